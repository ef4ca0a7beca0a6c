"""Whole controllers against an API server and a farm, alone and in pairs, through what goes wrong in clusters."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cluster.contract.pools_and_nodes import PoolSupply
from cluster.controller.process import Controller
from cluster.controller.round_loop import pause_after
from cluster.controller.rounds import RoundEnd
from cluster.controller.settings import ControllerSettings, load_settings
from cluster.crd import RENDER_POOLS
from cluster.errors import UserMistake
from cluster.kube.lease import Timing
from tests.cluster.clusters import write_scale
from tests.cluster.controller.farm_double import KEY, pool_state
from tests.cluster.controller.world import SPOT_TAINT, BreakableWorld, World, wait_until

pytest_plugins = ["tests.cluster.fixtures"]

QUICK = Timing(duration_s=2, renew_deadline_s=1.5, retry_s=0.1)


def settings(world: World, **changes: Any) -> ControllerSettings:
    values: dict[str, Any] = {
        "farm_url": world.farm.url,
        "api_key": KEY,
        "namespace": world.namespace,
        "resync_s": 1.0,
        "settle_s": 0.01,
        "max_backoff_s": 0.3,
        "request_timeout_s": 1.0,
        "port": 0,
        "stop_s": 8.0,
    }
    return ControllerSettings(**{**values, **changes})


@contextmanager
def running(world: World, name: str = "c", **changes: Any) -> Iterator[Controller]:
    """A controller in a thread; ended at the end."""
    controller = Controller(settings(world, name=name, **changes), world.kube, random=Random(name), timing=QUICK)
    thread = threading.Thread(target=controller.run, name=f"controller-{name}")
    thread.start()
    try:
        yield controller
    finally:
        controller.stop()
        thread.join(20)
        assert not thread.is_alive(), "a controller did not end"


def get(controller: Controller, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{controller.exporter.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_controller_does_its_work_and_gives_its_lease_back(world: World) -> None:
    world.add_render_pool()
    world.add_node("a", gangs=("wan-a-0",))
    with running(world) as controller:
        wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"))
        world.signal("a", taints=[SPOT_TAINT])
        wait_until("the node is drained", lambda: world.farm.drains)
        world.change(maxGangs=3)
        wait_until("the farm knows", lambda: world.farm.pools["wan"].terms.max_gangs == 3)
        world.farm.add_pool(
            pool_state(
                terms=world.farm.pools["wan"].terms,
                supply=PoolSupply(ready=3, idle=0, starting=0, draining=0, cold_start_s=1),
            )
        )
        wait_until("the status follows", lambda: world.render_pool().status.gangs.ready == 3)
        assert get(controller, "/healthz") == (200, "ok\n")
        assert get(controller, "/readyz") == (200, "ok\n")
        text = get(controller, "/metrics")[1]
        assert "longtake_controller_leads 1.0" in text
        assert 'longtake_controller_drains_total{cause="spot"} 1.0' in text
        assert 'longtake_controller_pool_ready{pool="wan"} 1.0' in text
        assert get(controller, "/else")[0] == 404
    assert not world.lease().get("holderIdentity"), "the lease is free for the next"


def test_an_autoscaler_that_writes_the_scale_is_obeyed(world: World) -> None:
    world.add_render_pool(scaling="external", replicas=1, minGangs=0)
    with running(world):
        wait_until("the farm knows of one", lambda: world.farm.pools["wan"].terms.replicas == 1)
        write_scale(world.kube, RENDER_POOLS, "wan", 6, namespace=world.namespace)
        wait_until("the farm knows of six", lambda: world.farm.pools["wan"].terms.replicas == 6)
    assert [terms.replicas for _, terms in world.farm.terms_put] == [1, 6]


def test_one_of_two_acts_and_the_other_takes_over(world: World) -> None:
    world.add_render_pool()
    with running(world, "first") as first:
        wait_until("the first leads", first.election.leads)
        with running(world, "second") as second:
            wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"))
            wait_until("the second knows the cluster", lambda: second.unready() == "")
            assert not second.election.leads()
            assert "longtake_controller_leads 0.0" in get(second, "/metrics")[1]
            first.stop()
            wait_until("the second leads", second.election.leads)
            world.change(maxGangs=5)
            wait_until("the farm knows", lambda: world.farm.pools["wan"].terms.max_gangs == 5)
    assert len(world.farm.terms_put) == 2, "the second told again what the first had told"
    assert [writer.split("/")[1].split("-")[0] for writer in world.farm.writers] == ["first", "second"]


def test_a_leader_that_cannot_renew_stops_acting_before_another_begins(breakable_world: BreakableWorld) -> None:
    world = breakable_world
    world.add_render_pool()
    with running(world, "first") as first:
        wait_until("the first leads", first.election.leads)
        world.server.refuse(r"/leases/", times=10_000, code=503)
        wait_until("the first gives up", lambda: not first.election.leads(), timeout_s=10)
        told, tries = len(world.farm.writers), lease_tries(world)
        world.change(maxGangs=5)
        wait_until("it has retried several times", lambda: lease_tries(world) > tries + 5)
        assert len(world.farm.writers) == told
        world.server.faults.clear()
        wait_until("the farm knows", lambda: world.farm.pools["wan"].terms.max_gangs == 5)


def lease_tries(world: BreakableWorld) -> int:
    return sum("/leases/" in one.path for one in list(world.server.asked))


def let_them_work(world: BreakableWorld, *, requests: int) -> None:
    """Faults come at moments of the controllers' work, not of the clock."""
    enough = len(world.server.asked) + requests
    wait_until("the controllers go on", lambda: len(world.server.asked) >= enough)


def drop_watches(world: BreakableWorld) -> None:
    world.server.drop_watches()


def restart(world: BreakableWorld) -> None:
    world.server.restart()


def expire(world: BreakableWorld) -> None:
    world.server.drop_watches()
    world.server.expire()


def conflicts(world: BreakableWorld) -> None:
    world.server.refuse(r"PATCH .*/renderpools/", times=3, code=409)


def throttling(world: BreakableWorld) -> None:
    world.server.refuse(r"(GET|PATCH) .*/renderpools", times=3, code=429, retry_after_s=1)


def errors(world: BreakableWorld) -> None:
    world.server.refuse(r"", times=10, code=500)


def lost_answers(world: BreakableWorld) -> None:
    world.server.lose_answer(r"PATCH|POST", times=3)


def failing_farm(world: World) -> None:
    world.farm.fail_next = 5


def slow_farm(world: World) -> None:
    world.farm.delay_s = 0.3


def hanging_farm(world: World) -> None:
    world.farm.delay_s = 1.5  # longer than the controller waits
    threading.Timer(2.0, lambda: setattr(world.farm, "delay_s", 0.0)).start()


def farm_restarts(world: World) -> None:
    world.farm.stop()
    threading.Timer(0.5, world.farm.start).start()


FAULTS_OF_SERVERS: list[Callable[[BreakableWorld], None]] = [
    drop_watches,
    restart,
    expire,
    conflicts,
    throttling,
    errors,
    lost_answers,
]
FAULTS_OF_FARMS: list[Callable[[World], None]] = [failing_farm, slow_farm, hanging_farm, farm_restarts]


def check_calm(world: World, *, unheard: bool = False) -> None:
    """No flapping: the farm was told nothing that it knew, nodes were drained once, and leaders followed each other.
    `unheard`: the farm did some things without being heard, so they may have been asked for again."""
    again = 2 if unheard else 0
    for pool in world.farm.pools:
        told = [terms for name, terms in world.farm.terms_put if name == pool]
        same = sum(before == after for before, after in pairwise(told))
        assert same <= again, "terms were told again without a change"
    drained = [(node, request.cause) for node, request in world.farm.drains]
    assert len(drained) - len(set(drained)) <= 1 + again, f"drained repeatedly: {drained}"
    switches = sum(before != after for before, after in pairwise(world.farm.writers))
    assert switches <= world.lease().get("leaseTransitions", 0), "two acted at once"


@pytest.mark.parametrize("fault", FAULTS_OF_SERVERS, ids=lambda fault: fault.__name__)
def test_two_controllers_reach_what_is_wanted_through_a_fault_of_the_api_server(
    breakable_world: BreakableWorld, fault: Callable[[BreakableWorld], None]
) -> None:
    check_two_controllers(breakable_world, lambda: fault(breakable_world))


@pytest.mark.parametrize("fault", FAULTS_OF_FARMS, ids=lambda fault: fault.__name__)
def test_two_controllers_reach_what_is_wanted_through_a_fault_of_the_farm(
    world: World, fault: Callable[[World], None]
) -> None:
    check_two_controllers(world, lambda: fault(world), unheard=fault is hanging_farm)


def check_two_controllers(world: World, fault: Callable[[], None], *, unheard: bool = False) -> None:
    """A pool is changed and a node gets its notice while something goes wrong."""
    world.add_render_pool()
    for name in ("a", "b"):
        world.add_node(name, gangs=(f"wan-{name}-0",))
    with running(world, "one"), running(world, "two"):
        wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"))
        fault()
        world.signal("a", taints=[SPOT_TAINT])
        world.change(maxGangs=4)
        wait_until("the farm knows", lambda: world.farm.pools["wan"].terms.max_gangs == 4)
        wait_until("the node is drained", lambda: world.farm.drains)
        wait_until("it is noted", lambda: world.annotations("a"))
        wait_until(
            "the status follows",
            lambda: world.ready() == ("True", "AsSpecified") and world.render_pool().status.observed_generation == 2,
        )
        assert {node for node, _ in world.farm.drains} == {f"id-{world.node_name('a')}"}
    check_calm(world, unheard=unheard)


@pytest.mark.slow
def test_two_controllers_keep_calm_through_a_bad_minute(breakable_world: BreakableWorld) -> None:
    world, random = breakable_world, Random(7)
    world.add_render_pool(scaling="external", replicas=1, minGangs=0)
    for number in range(6):
        world.add_node(f"n{number}", gangs=(f"wan-{number}-0",))
    with ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(running(world, name))
        wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"))
        for turn in range(12):
            random.choice([*FAULTS_OF_SERVERS, *FAULTS_OF_FARMS])(world)
            # For good: a node that is safe again before anybody could act need not be drained.
            world.signal(f"n{turn % 6}", taints=[SPOT_TAINT])
            world.change(replicas=1 + turn % 8)
            let_them_work(world, requests=random.randint(2, 30))
        world.farm.delay_s = 0.0
        world.server.faults.clear()
        wait_until("the farm knows the last", lambda: world.farm.pools["wan"].terms.replicas == 1 + 11 % 8)
        wait_until("all are drained", lambda: {node for node, _ in world.farm.drains} == set(world.farm.nodes))
        wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"))
    check_calm(world, unheard=True)


def test_the_process_ends_within_its_time_after_sigterm_and_gives_its_lease_back(world: World) -> None:
    world.add_render_pool()
    values = settings(world).model_dump(mode="json", exclude_none=True)
    environment = {f"LONGTAKE_CONTROLLER_{name.upper()}": str(value) for name, value in values.items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith("LONGTAKE_")}
    environment |= {**others, "KUBECONFIG": str(world.kubeconfig)}  # which may name a program that needs them
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.controller"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until("the pool is ready", lambda: world.ready() == ("True", "AsSpecified"), timeout_s=60)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"begin", "election", "put_terms", "end"} <= {line.get("action") for line in lines}
    assert not world.lease().get("holderIdentity")


def test_wrong_settings_are_told_all_at_once_with_the_nearest_name() -> None:
    environment = {
        "LONGTAKE_CONTROLLER_FARM_ULR": "http://farm",
        "LONGTAKE_CONTROLLER_RESYNC_S": "soon",
        "LONGTAKE_CONTROLLER_MAX_DRAINED_SHARE": "2",
    }
    with pytest.raises(UserMistake) as refused:
        load_settings(environment)
    told = str(refused.value)
    assert "LONGTAKE_CONTROLLER_FARM_ULR: no such setting; did you mean LONGTAKE_CONTROLLER_FARM_URL?" in told
    assert "LONGTAKE_CONTROLLER_RESYNC_S: " in told
    assert "LONGTAKE_CONTROLLER_MAX_DRAINED_SHARE: " in told


def test_the_key_is_read_from_a_file_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("lt_secret\n")
    found = load_settings({"LONGTAKE_CONTROLLER_API_KEY_FILE": str(tmp_path / "key")})
    assert found.api_key == "lt_secret"
    assert "lt_secret" not in repr(found)
    with pytest.raises(UserMistake, match="API_KEY_FILE"):
        load_settings({"LONGTAKE_CONTROLLER_API_KEY_FILE": str(tmp_path / "none")})


def test_after_failures_it_waits_longer_and_never_less_than_it_was_asked_to() -> None:
    def pause(failures: int, asked_s: float = 0.0, failed: bool = True) -> float:
        end = RoundEnd(failed, asked_s)
        return pause_after(end, failures=failures, settle_s=0.01, max_backoff_s=15, random=Random(1))

    assert pause(0, failed=False) == 0.01
    assert [pause(failures) <= min(15, 0.5 * 2**failures) for failures in range(1, 40)] == 39 * [True]
    assert pause(39) > 1.0
    assert pause(1, asked_s=7.0) == 7.0
