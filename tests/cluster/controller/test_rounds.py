"""Rounds against an API server and a farm: what they do, and that they may end after any request."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.controller.actions import NotLeader
from cluster.controller.drain_plan import DrainLimits
from cluster.controller.drainer import Drainer
from cluster.controller.metrics import ControllerMetrics
from cluster.controller.reconciler import Reconciler
from cluster.controller.rounds import RoundEnd, Rounds
from cluster.crd import RENDER_POOLS
from cluster.farm_client import FarmClient
from cluster.kube.events import EventRecorder
from tests.cluster.clusters import write_scale
from tests.cluster.controller.farm_double import KEY, pool_state
from tests.cluster.controller.world import SPOT_TAINT, BreakableWorld, NewWorld, World

pytest_plugins = ["tests.cluster.fixtures"]

NOW = 1_785_744_000.0


class Died(BaseException):
    """The process was killed here."""


class Mortal:
    """Passes calls on to something, and dies after one of them. `life` counts the calls of all that share it."""

    def __init__(self, inner: Any, life: Iterator[int], *, dies_after: int) -> None:
        self._inner, self._life, self._dies_after = inner, life, dies_after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            dies = next(self._life) == self._dies_after
            try:
                return found(*arguments, **named)
            finally:
                if dies:
                    raise Died

        return call


def build(
    world: World, *, kube: Any = None, farm: Any = None, may_act: Any = lambda: True, clock: Any = lambda: NOW
) -> Rounds:
    metrics, kube = ControllerMetrics(), kube or world.kube
    farm = farm or FarmClient(world.farm.url, api_key=KEY, timeout_s=2.0)
    return Rounds(
        kube=kube,
        farm=farm,
        view=world,
        drainer=Drainer(
            kube=kube,
            farm=farm,
            metrics=metrics,
            namespace=world.namespace,
            limits=DrainLimits(),
            heed_cordons=True,
        ),
        reconciler=Reconciler(kube=kube, farm=farm, metrics=metrics),
        events=EventRecorder(kube, "test"),
        metrics=metrics,
        namespace=world.namespace,
        may_act=may_act,
        clock=clock,
    )


def test_a_round_tells_the_farm_and_writes_the_status_and_the_next_does_nothing(world: World) -> None:
    world.add_render_pool()
    assert build(world).run() == RoundEnd(failed=False, retry_after_s=0.0)
    assert [pool for pool, _ in world.farm.terms_put] == ["wan"]
    assert world.ready() == ("True", "AsSpecified")
    assert world.render_pool().status.gangs.ready == 1
    (event,) = world.events("AsSpecified")
    assert event["involvedObject"]["kind"] == "RenderPool"
    version = world.render_pool().version
    assert build(world).run().failed is False
    assert world.render_pool().version == version, "nothing has changed"
    assert world.events("AsSpecified")[0]["count"] == 1
    assert len(world.farm.terms_put) == 1


def test_terms_that_somebody_else_changed_are_set_right(world: World) -> None:
    world.add_render_pool()
    build(world).run()
    world.farm.add_pool(pool_state())
    build(world).run()
    assert len(world.farm.terms_put) == 2
    assert world.farm.pools["wan"].terms.max_gangs == 8


def test_refused_terms_are_said_and_do_not_stop_the_rest(world: World) -> None:
    world.farm.refuse_terms = "max_gangs is more than the farm's quota"
    world.farm.add_pool(pool_state("small"))
    world.add_render_pool()
    world.add_render_pool("small", pool="small", minGangs=0, maxGangs=1)
    assert build(world).run().failed is True
    assert world.ready() == ("False", "TermsRefused")
    assert world.ready("small") == ("True", "AsSpecified")
    (event,) = world.events("TermsRefused")
    assert (event["type"], event["message"]) == ("Warning", "max_gangs is more than the farm's quota")


def test_a_wrong_key_is_told_in_the_status(world: World) -> None:
    world.add_render_pool()
    rounds = build(world, farm=FarmClient(world.farm.url, api_key="wrong", timeout_s=2.0))
    assert rounds.run().failed is True
    found = world.render_pool().status.condition("FarmReachable")
    assert found is not None
    assert "an API key is needed" in found.message
    assert world.farm.terms_put == []


def test_a_farm_that_is_away_leaves_everything_as_it_is(world: World) -> None:
    world.add_render_pool()
    build(world).run()
    world.farm.stop()
    world.change(maxGangs=5)
    assert build(world).run().failed is True
    status = world.render_pool().status
    assert status.gangs.ready == 1
    assert status.condition("FarmReachable").status == "False"  # type: ignore[union-attr]
    world.farm.start()
    assert build(world).run().failed is False
    assert world.farm.pools["wan"].terms.max_gangs == 5
    assert world.render_pool().status.condition("FarmReachable").status == "True"  # type: ignore[union-attr]


def test_an_hpa_is_given_something_to_begin_with_and_is_obeyed_from_there(world: World) -> None:
    world.add_render_pool(scaling="external", minGangs=0)
    build(world).run()
    assert world.render_pool().spec.replicas == 1  # type: ignore[union-attr]
    build(world).run()
    assert world.farm.pools["wan"].terms.replicas == 1
    assert world.ready() == ("True", "AsSpecified")
    scale = write_scale(world.kube, RENDER_POOLS, "wan", 4, namespace=world.namespace)
    assert scale["status"] == {"replicas": 1, "selector": "longtake.dev/pool=wan"}
    build(world).run()
    assert world.farm.pools["wan"].terms.replicas == 4


def test_a_spot_node_is_drained_noted_and_told_of(world: World) -> None:
    world.add_render_pool()
    ray = world.add_node("a", gangs=("wan-x-0",))
    world.signal("a", taints=[SPOT_TAINT])
    build(world).run()
    ((node, request),) = world.farm.drains
    assert node == ray
    assert (request.cause, request.deadline_s) == ("spot", 110.0)
    assert world.annotations("a")["longtake.dev/drained-ray-node"] == ray
    on_node = world.events("Draining", world.node_name("a"))
    on_pool = world.events("Draining", "wan")
    assert "draining wan-x-0 in pod ray-a until 2026-08-03T08:01:50Z" in on_node[0]["message"]
    assert on_pool[0]["message"] == f"node {world.namespace}-a: {on_node[0]['message']}"
    build(world).run()
    assert len(world.farm.drains) == 1


def test_what_cannot_wait_is_drained_before_anything_is_written(world: World) -> None:
    world.add_node("a", gangs=("wan-a-0",))
    world.signal("a", taints=[SPOT_TAINT])
    with FarmClient(world.farm.url, api_key=KEY, timeout_s=2.0) as client:

        class Watched(Mortal):
            def drain(self, *arguments: Any) -> None:
                assert world.events("Draining") == []
                client.drain(*arguments)

        build(world, farm=Watched(client, itertools.count(), dies_after=-1)).run()
    assert len(world.farm.drains) == 1
    assert len(world.events("Draining")) == 1


def test_a_cordon_waits_for_its_share_and_a_notice_does_not(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add_node(name, gangs=(f"wan-{name}-0",))
        world.signal(name, unschedulable=True)
    rounds = build(world)
    rounds.run()
    assert len(world.farm.drains) == 1
    assert len(world.events("DrainWaits")) == 2
    rounds.run()
    assert {event["count"] for event in world.events("DrainWaits")} == {1}, "people are told once"
    world.signal("b", taints=[SPOT_TAINT])
    rounds.run()
    assert [request.cause for _, request in world.farm.drains] == ["operator", "spot"]
    (warning,) = [event for event in world.events("Draining") if event["type"] == "Warning"]
    assert "more than the share of pool wan" in warning["message"]


def test_a_notice_over_a_cordon_brings_the_end_forward(world: World) -> None:
    world.add_node("a", gangs=("wan-a-0",))
    world.signal("a", unschedulable=True)
    build(world).run()
    world.signal("a", taints=[SPOT_TAINT])
    build(world).run()
    build(world).run()
    assert [request.deadline_s for _, request in world.farm.drains] == [300.0, 110.0]


@pytest.mark.parametrize("mark", [{"unschedulable": True}, {"taints": [SPOT_TAINT]}], ids=["cordon", "spot"])
def test_a_drain_that_the_farm_refuses_is_told_once_with_its_reason(world: World, mark: dict[str, Any]) -> None:
    world.add_render_pool()
    world.add_node("a", gangs=("wan-a-0",))
    world.signal("a", **mark)
    world.farm.refuse_drains = "a job is being restored"
    now = itertools.count(int(NOW), 7)
    rounds = build(world, clock=lambda: float(next(now)))
    assert [rounds.run().failed for _ in range(4)] == [True] * 4
    for about in (world.node_name("a"), "wan"):
        (refused,) = world.events("DrainRefused", about)
        assert (refused["type"], refused["count"]) == ("Warning", 1)
        assert "the farm does not drain pod ray-a: a job is being restored" in refused["message"]
        assert sum(event["count"] for event in world.events("Draining", about)) <= 1
    world.farm.refuse_drains = ""
    rounds.run()
    assert len(world.farm.drains) == 1
    assert sum(event["count"] for event in world.events("Draining", "wan")) == 1


def test_rays_head_is_not_drained_but_told_of(world: World) -> None:
    world.add_node("h", head=True)
    world.signal("h", taints=[SPOT_TAINT])
    rounds = build(world)
    rounds.run()
    rounds.run()
    assert world.farm.drains == []
    (event,) = world.events("HeadLeaves")
    assert (event["type"], event["count"]) == ("Warning", 1)


def test_who_may_not_act_does_nothing(world: World) -> None:
    world.add_render_pool()
    world.add_node("a", gangs=("wan-a-0",))
    world.signal("a", taints=[SPOT_TAINT])
    version = world.render_pool().version
    with pytest.raises(NotLeader):
        build(world, may_act=lambda: False).run()
    assert (world.farm.terms_put, world.farm.drains) == ([], [])
    assert world.render_pool().version == version
    assert world.annotations("a") == {}
    assert world.events("Draining") == []


@pytest.mark.parametrize("verb", ["patch", "*"])
def test_without_permission_for_pods_nodes_are_drained_all_the_same(breakable_world: BreakableWorld, verb: str) -> None:
    world = breakable_world
    world.add_node("a", gangs=("wan-a-0",))
    world.signal("a", taints=[SPOT_TAINT])
    pods = list(world.pods())
    world.server.deny(verb, "pods")
    world.pods = lambda: pods  # type: ignore[method-assign]
    try:
        rounds = build(world)
        assert rounds.run().failed is True
        assert len(world.farm.drains) == 1
    finally:
        world.server.allow_all()


def scene(world: World) -> None:
    """Something of everything that a round does."""
    world.add_render_pool(minGangs=2)
    world.farm.add_pool(pool_state("small", model="pocket", gang_shape="1"))
    world.add_render_pool("hpa", pool="small", model="pocket", gangShape="1", scaling="external", minGangs=0)
    world.add_render_pool("wrong", pool="nosuch")
    for name in ("a", "b", "c"):
        world.add_node(name, gangs=(f"wan-{name}-0",))
    world.signal("a", taints=[SPOT_TAINT])
    world.signal("b", unschedulable=True)
    world.signal("c", unschedulable=True)


def check_reached(world: World) -> None:
    """Whether all that should be is there."""
    assert world.ready() == ("True", "AsSpecified")
    assert world.ready("hpa") == ("True", "AsSpecified")
    assert world.ready("wrong") == ("False", "PoolUnknown")
    assert world.farm.pools["wan"].terms.min_gangs == 2
    assert world.farm.pools["small"].terms.replicas == 1
    states = {node.name.rpartition("-")[2]: node.state for node in world.farm.nodes.values()}
    assert states["a"] == "draining"
    assert sum(state == "draining" for state in states.values()) == 1, "the share: a goes anyway, b and c wait"
    assert world.annotations("a")["longtake.dev/drained-for"] == SPOT_TAINT["key"]
    for name in ("a", "b", "c"):
        reason = "Draining" if name == "a" else "DrainWaits"
        assert world.events(reason, world.node_name(name)), f"nobody was told of {name}"


def run_rounds(world: World, *, rounds: int, dies_after: int = -1) -> int:
    """Rounds of one process; returns how many requests it sent. Raises Died."""
    life = itertools.count()
    with FarmClient(world.farm.url, api_key=KEY, timeout_s=2.0) as client:
        kube, farm = Mortal(world.kube, life, dies_after=dies_after), Mortal(client, life, dies_after=dies_after)
        process = build(world, kube=kube, farm=farm)
        for _ in range(rounds):
            process.run()
    return next(life)


@pytest.mark.slow
def test_killed_anywhere_the_next_process_reaches_the_same_state(
    new_world: NewWorld, subtests: pytest.Subtests
) -> None:
    with new_world() as calm:
        scene(calm)
        requests = run_rounds(calm, rounds=3)
        check_reached(calm)
    assert requests > 20, "the scene is too small to show anything"
    for dies_after in range(requests):
        with subtests.test(dies_after=dies_after), new_world() as world:
            scene(world)
            with pytest.raises(Died):
                run_rounds(world, rounds=3, dies_after=dies_after)
            run_rounds(world, rounds=3)
            check_reached(world)
            assert [pool for pool, _ in world.farm.terms_put].count("wan") == 1, "told again though nothing had changed"
            # A drain may be requested again if its note was lost. It never becomes a later one.
            deadlines = [request.deadline_s for _, request in world.farm.drains]
            assert deadlines in ([110.0], [110.0, 110.0])
