"""Which nodes are drained when: the share of a pool, what goes anyway, and that asking again changes nothing."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.contract.pools_and_nodes import NodeState
from cluster.controller.departures import DRAINED_NODE, DRAINED_UNTIL, drain_annotations, find_departures
from cluster.controller.drain_plan import Departure, DrainLimits, DrainPlan, plan_drains, pool_of
from cluster.kube.timestamps import write_time
from cluster.signals import SIGNALS, Notice, Signal
from testkit.json_object import Json
from tests.cluster.controller.farm_double import node_state

NOW = 1_785_744_000.0
LIMITS = DrainLimits(max_share=0.25, least_s=120.0)

SPOT = next(signal for signal in SIGNALS if signal.key.endswith("spot-itn"))
CORDON = next(signal for signal in SIGNALS if signal.key == "spec.unschedulable")


def notice(signal: Signal, left_s: float | None = None) -> Notice:
    return Notice(signal, signal.notice_s if left_s is None else left_s, None)


def ray_nodes(number: int, *, pool: str = "wan", draining: int = 0) -> list[NodeState]:
    """Nodes with a gang each; the first `draining` are being drained."""
    states = ["draining"] * draining + ["alive"] * (number - draining)
    return [
        node_state(f"r{n}", address=f"10.0.0.{n}", gangs=(f"{pool}-abc{n}-0",), state=state)
        for n, state in enumerate(states)
    ]


def departure(node: NodeState, signal: Signal = CORDON, left_s: float | None = None, **more: Any) -> Departure:
    return Departure(node, f"k8s-{node.name}", f"pod-{node.name}", notice(signal, left_s), **more)


def plan(departures: list[Departure], nodes: list[NodeState], limits: DrainLimits = LIMITS) -> DrainPlan:
    return plan_drains(departures, nodes, pools=["wan", "ltx"], limits=limits, now=NOW)


def drained(found: DrainPlan) -> list[str]:
    return [one.departure.ray_node.name for one in found.drains]


def waiting(found: DrainPlan) -> list[str]:
    return [one.departure.ray_node.name for one in found.waits]


def test_of_eight_cordoned_nodes_two_are_drained_and_six_wait() -> None:
    nodes = ray_nodes(8)
    found = plan([departure(node) for node in nodes], nodes)
    assert drained(found) == ["r0", "r1"]
    assert waiting(found) == ["r2", "r3", "r4", "r5", "r6", "r7"]
    assert all(one.pool == "wan" and not one.departure.notice.signal.forced for one in found.waits)


def test_what_is_being_drained_already_counts() -> None:
    nodes = ray_nodes(8, draining=2)
    assert drained(plan([departure(node) for node in nodes[2:]], nodes)) == []
    nodes = ray_nodes(8, draining=1)
    assert drained(plan([departure(node) for node in nodes[1:]], nodes)) == ["r1"]


def test_one_node_may_always_be_drained() -> None:
    (node,) = nodes = ray_nodes(1)
    assert drained(plan([departure(node)], nodes)) == ["r0"]


def test_a_spot_notice_waits_for_nobody_and_says_that_it_is_more_than_the_share() -> None:
    nodes = ray_nodes(8)
    found = plan([departure(node, SPOT) for node in nodes], nodes)
    assert len(found.drains) == 8
    assert found.waits == ()
    assert [bool(one.exceeded) for one in found.drains] == [False, False, *6 * [True]]
    assert "more than the share of pool wan, but it goes anyway" in found.drains[-1].message


def test_the_most_urgent_goes_first_and_uses_up_the_share() -> None:
    nodes = ray_nodes(4)
    found = plan([departure(nodes[0]), departure(nodes[1], SPOT), departure(nodes[2], SPOT, 30)], nodes)
    assert drained(found) == ["r2", "r1"]
    assert waiting(found) == ["r0"]


def test_a_node_with_no_time_left_is_not_kept_waiting() -> None:
    nodes = ray_nodes(8, draining=2)
    found = plan([departure(nodes[2], CORDON, 119.0), departure(nodes[3], CORDON, 121.0)], nodes)
    assert (drained(found), waiting(found)) == (["r2"], ["r3"])


def test_pools_have_shares_of_their_own_and_a_node_needs_room_in_all_of_its() -> None:
    nodes = [*ray_nodes(4), *ray_nodes(4, pool="ltx", draining=1)]
    nodes = [replace_id(node, f"n{at}") for at, node in enumerate(nodes)]
    both = node_state("both", address="10.1.0.1", gangs=("wan-x-0", "ltx-x-0"))
    found = plan([departure(both), departure(nodes[0])], [*nodes, both])
    assert (drained(found), waiting(found)) == (["n0"], ["both"])


def replace_id(node: NodeState, name: str) -> NodeState:
    return node.model_copy(update={"id": name, "name": name, "gangs": (f"{node.gangs[0]}-{name}",)})


def test_a_gang_over_two_nodes_is_one_gang() -> None:
    gang = ("wan-abc-0",)
    nodes = [
        node_state("a", address="10.0.0.1", gangs=gang, state="draining"),
        node_state("b", address="10.0.0.2", gangs=gang),
    ]
    assert drained(plan([departure(nodes[1])], nodes)) == ["b"], "the gang leaves already"


def test_a_node_without_gangs_has_no_share_to_wait_for() -> None:
    nodes = ray_nodes(8, draining=2)
    idle = node_state("idle", address="10.0.9.9")
    assert drained(plan([departure(idle)], [*nodes, idle])) == ["idle"]


def test_asked_once_is_enough() -> None:
    (node,) = ray_nodes(1, draining=1)
    assert drained(plan([departure(node, SPOT, requested_until=NOW + 100)], [node])) == []
    assert drained(plan([departure(node, CORDON)], [node])) == [], "somebody else drains it"


def test_an_earlier_end_is_asked_for_again() -> None:
    (node,) = ray_nodes(1, draining=1)
    (again,) = plan([departure(node, SPOT, 60, requested_until=NOW + 300)], [node]).drains
    assert again.request.deadline_s == 60


def test_a_notice_over_a_drain_of_somebody_else_is_told_to_the_farm() -> None:
    (node,) = ray_nodes(1, draining=1)
    (drain,) = plan([departure(node, SPOT)], [node]).drains
    assert drain.request.cause == "spot"


def test_a_farm_that_forgot_is_asked_again_for_the_same_moment() -> None:
    (node,) = ray_nodes(1)
    (drain,) = plan([departure(node, CORDON, 300, requested_until=NOW + 100)], [node]).drains
    assert drain.until == NOW + 100


def test_a_dead_node_is_left_alone() -> None:
    node = node_state("r", address="10.0.0.1", gangs=("wan-a-0",), state="dead")
    assert plan([departure(node, SPOT)], [node]) == DrainPlan()


def test_a_time_that_has_passed_still_makes_a_valid_request() -> None:
    (node,) = ray_nodes(1)
    (drain,) = plan([departure(node, SPOT, 0.0)], [node]).drains
    assert drain.request.deadline_s == 1.0


def test_a_gang_belongs_to_the_longest_pool_that_its_name_begins_with() -> None:
    assert pool_of("wan-abc-0", ["wan", "wan-fast"]) == "wan"
    assert pool_of("wan-fast-abc-0", ["wan", "wan-fast"]) == "wan-fast"
    assert pool_of("other-abc-0", ["wan"]) is None


_nodes = st.lists(
    st.tuples(
        st.sampled_from(["alive", "draining", "dead"]),
        st.lists(st.tuples(st.sampled_from(["wan", "ltx"]), st.integers(0, 11)), max_size=3),
        st.sampled_from([None, "spot", "cordon"]),
        st.floats(1, 400),
    ),
    max_size=12,
)


def build(spec: list[Any]) -> tuple[list[NodeState], list[Departure]]:
    nodes, departures = [], []
    for at, (state, gangs, signal, left_s) in enumerate(spec):
        names = tuple(sorted({f"{pool}-g{number}-0" for pool, number in gangs}))
        node = node_state(f"r{at:02}", address=f"10.0.0.{at}", gangs=names, state=state)
        nodes.append(node)
        if signal is not None:
            departures.append(departure(node, SPOT if signal == "spot" else CORDON, left_s))
    return nodes, departures


def leaving(nodes: list[NodeState], also: set[str]) -> Counter[str]:
    gangs = {gang for node in nodes if node.state == "draining" or node.id in also for gang in node.gangs}
    return Counter(gang.split("-")[0] for gang in gangs)


@given(_nodes, st.floats(0.05, 1.0))
def test_never_more_than_the_share_leaves_by_our_own_will(spec: list[Any], share: float) -> None:
    nodes, departures = build(spec)
    found = plan(departures, nodes, DrainLimits(share, 120))
    total = Counter(
        gang.split("-")[0] for gang in {gang for node in nodes if node.state != "dead" for gang in node.gangs}
    )
    asked: set[str] = set()
    for drain in found.drains:
        before = leaving(nodes, asked)
        asked.add(drain.departure.ray_node.id)
        for pool, number in leaving(nodes, asked).items():
            if number > before[pool] > 0 and number > math.floor(share * total[pool]):
                assert pool in drain.exceeded
                assert drain.departure.notice.signal.forced or (drain.departure.notice.left_s or 0) <= 120


@given(_nodes)
def test_every_living_node_in_danger_is_drained_or_waits_or_is_drained_already(spec: list[Any]) -> None:
    nodes, departures = build(spec)
    found = plan(departures, nodes)
    assert not set(drained(found)) & set(waiting(found))
    for one in departures:
        name, state = one.ray_node.name, one.ray_node.state
        if state == "alive":
            assert name in {*drained(found), *waiting(found)}
            assert not one.notice.signal.forced or name in drained(found)
        if state == "dead":
            assert name not in {*drained(found), *waiting(found)}


@given(_nodes)
def test_what_was_carried_out_is_not_asked_for_again(spec: list[Any]) -> None:
    nodes, departures = build(spec)
    found = plan(departures, nodes)
    until = {drain.departure.ray_node.id: drain.until for drain in found.drains}
    after = [node.model_copy(update={"state": "draining"}) if node.id in until else node for node in nodes]
    by_id = {node.id: node for node in after}
    again = [
        replace(one, ray_node=by_id[one.ray_node.id], requested_until=until.get(one.ray_node.id)) for one in departures
    ]
    assert plan(again, after).drains == ()


@given(_nodes)
def test_all_are_drained_in_the_end_where_gangs_come_back_elsewhere(spec: list[Any]) -> None:
    nodes, departures = build([one for one in spec if one[0] == "alive"])
    left = {one.ray_node.id: one for one in departures}
    for _ in range(len(departures)):
        for drain in plan(list(left.values()), nodes).drains:
            del left[drain.departure.ray_node.id]
            # It went, and its gangs stand on another node now.
            gone = drain.departure.ray_node
            nodes = [node for node in nodes if node.id != gone.id]
            nodes.append(node_state(f"new-{gone.name}", address="10.2.0.1", gangs=gone.gangs))
    assert left == {}


def test_what_was_asked_is_read_back_from_the_pod_and_only_for_the_same_ray_node() -> None:
    (node,) = ray_nodes(1, draining=1)
    notes = drain_annotations(departure(node, SPOT), NOW + 90)
    assert notes[DRAINED_UNTIL] == write_time(NOW + 90)
    k8s_node = {"metadata": {"name": "k1"}, "spec": {"taints": [{"key": SPOT.key}]}}

    def pod(notes: dict[str, str]) -> Json:
        meta = {"name": "p", "annotations": notes}
        return {"metadata": meta, "spec": {"nodeName": "k1"}, "status": {"podIP": node.address}}

    (known,) = find_departures([k8s_node], [pod(notes)], [node], heed_cordons=True, now=NOW).departures
    assert known.requested_until == NOW + 90
    other = {**notes, DRAINED_NODE: "id-of-another"}
    (unknown,) = find_departures([k8s_node], [pod(other)], [node], heed_cordons=True, now=NOW).departures
    assert unknown.requested_until is None


def test_the_head_is_told_of_and_not_drained() -> None:
    (node,) = ray_nodes(1)
    meta = {"name": "head", "labels": {"ray.io/node-type": "head"}}
    head = {"metadata": meta, "spec": {"nodeName": "k1"}, "status": {"podIP": node.address}}
    k8s_node = {"metadata": {"name": "k1"}, "spec": {"unschedulable": True}}
    found = find_departures([k8s_node], [head], [node], heed_cordons=True, now=NOW)
    assert found.departures == ()
    assert [placed.node for placed in found.heads] == ["k1"]
    assert find_departures([k8s_node], [head], [node], heed_cordons=False, now=NOW).heads == ()
