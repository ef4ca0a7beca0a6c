"""The Director's side of scaling and draining, with real hosts, ranks and store in one process."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.contract.pools_and_nodes import DrainRequest, PoolDemand, PoolSupply, PoolTerms
from serving.config.farm import LimitsConfig, PoolConfig, ScalingConfig
from serving.config.pool_terms import TERMS
from serving.director.director import Director
from serving.director.pools.pool_scaling import COLD_START
from serving.director.testing import LocalFarm
from serving.errors import NotFound, WrongState
from serving.jobs.admission import Quote
from serving.models.testing import write_tiny_checkpoint
from serving.render.messages import CallInput
from serving.settings import COLD_START_S
from serving.storyboard import Shot, Storyboard
from serving.storyboard.schema import Video

POOL = "default"
STANDING = {"target": 0, "decision": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, "2.1")
    return str(folder)


def board(model: str, *, seed: int = 1, shots: int = 2) -> Storyboard:
    return Storyboard(
        version=1,
        title="A film",
        model=model,
        seed=seed,
        quality="draft",
        video=Video(width=32, height=32, fps=16),
        shots=tuple(Shot(id=f"s{k}", prompt=f"a ball {k}", seconds=2.0) for k in range(shots)),
    )


class StoppedClock:
    """Unix seconds at which time stands still: what waits for a time to come waits until the test fails."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def scaled_farm(folder: Path, model: str, *, gangs: int) -> LocalFarm:
    pool = PoolConfig(model=model, min_gangs=0, max_gangs=4, scaling=ScalingConfig(), price_per_gpu_second=1.0)
    farm = LocalFarm(folder, model=model, gangs=gangs)
    farm.config = farm.config.model_copy(update={"pools": (pool,)})
    return farm


def asked(
    director: Director, standing: Mapping[str, Any] = STANDING
) -> tuple[PoolTerms, PoolDemand, PoolSupply] | None:
    """What the pool's policy is told."""
    told = director.demand.answer(POOL, standing, time.time())
    if told is None:
        return None
    return (
        PoolTerms.model_validate(told["terms"]),
        PoolDemand.model_validate(told["demand"]),
        PoolSupply.model_validate(told["supply"]),
    )


def price(director: Director, model: str, *, due_at: float | None = None) -> Quote:
    """What the film costs."""
    planned = director.admission.plan(board(model))
    return director.admission.quote(planned, tenant="default", due_at=due_at, now=time.time())


def demand(director: Director) -> PoolDemand:
    told = asked(director)
    assert told is not None
    return told[1]


def test_a_pool_without_gangs_knows_the_work_of_jobs_that_nobody_has_taken_up(model: str, tmp_path: Path) -> None:
    farm = scaled_farm(tmp_path, model, gangs=0)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            await farm.until(lambda: asked(director) is not None)
            assert (demand(director).backlog_gpu_s, demand(director).calls_ready) == (0.0, 0)
            due_at = time.time() + 3600
            quote = price(director, model, due_at=due_at)
            farm.submit(director, board(model), due_at=due_at)
            await farm.until(lambda: demand(director).backlog_gpu_s > 0)
            found = demand(director)
            assert found.backlog_gpu_s == pytest.approx(quote.gpu_seconds), "it is counted as it was quoted"
            assert found.calls_ready >= 2, "both takes could begin"
            assert found.required_gangs == pytest.approx(quote.gpu_seconds / 3600, rel=0.05)
            farm.submit(director, board(model, seed=2))
            await farm.until(lambda: demand(director).backlog_gpu_s == pytest.approx(2 * quote.gpu_seconds))

    asyncio.run(body())


def test_the_work_of_jobs_that_are_not_planned_yet_is_taken_to_be_alike(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.director.pools.waiting_jobs.WAITING_PLANNED", 2)
    farm = scaled_farm(tmp_path, model, gangs=0)

    async def body() -> None:
        director = farm.director()
        quote = price(director, model)
        for seed in range(5):
            farm.submit(director, board(model, seed=seed))
        async with farm.running(director):
            await farm.until(lambda: asked(director) is not None)
            assert demand(director).backlog_gpu_s == pytest.approx(5 * quote.gpu_seconds)

    asyncio.run(body())


def test_work_moves_from_the_waiting_to_those_taken_up_and_is_not_counted_twice(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = scaled_farm(tmp_path, model, gangs=0)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            await farm.until(lambda: asked(director) is not None)
            monkeypatch.setattr(director.costs, "observe", lambda *_, **__: None)  # what is left is expected as before
            job = farm.submit(director, board(model))
            await farm.until(lambda: demand(director).backlog_gpu_s > 0)
            most = demand(director).backlog_gpu_s
            farm.add_gang()
            seen = []

            def is_done() -> bool:
                seen.append(demand(director).backlog_gpu_s)
                return farm.status(job) == "completed"

            await farm.until(is_done)
            assert max(seen) <= 1.001 * most
            await farm.until(lambda: demand(director).backlog_gpu_s == 0)

    asyncio.run(body())


def test_calls_that_wait_for_their_tenants_cap_ask_for_no_gangs(model: str, tmp_path: Path) -> None:
    farm = scaled_farm(tmp_path, model, gangs=1)
    farm.config = farm.config.model_copy(update={"limits": LimitsConfig(calls_per_tenant=1)})
    [gang] = farm.gangs.values()

    async def body() -> None:
        director = farm.director()
        farm.submit(director, board(model), due_at=time.time() + 3600)
        async with farm.running(director), gang.line:  # its call does not end
            await farm.until(lambda: asked(director) is not None and demand(director).calls_running == 1)
            await farm.until(lambda: demand(director).calls_ready == 0)
            assert demand(director).oldest_wait_s == 0.0
            [pool] = director.pools()
            assert pool["calls_ready"] == 0
            assert pool["required_rate"] == pool["demand"]["required_gangs"] > 0
            assert pool["due_slack_s"] == pool["demand"]["due_slack_s"]
            shown = director.metrics.due_slack.labels(POOL)._value.get()
            assert shown == pytest.approx(pool["due_slack_s"], abs=60.0)

    asyncio.run(body())


def test_terms_of_the_store_hold_and_outlive_the_director(model: str, tmp_path: Path) -> None:
    farm = scaled_farm(tmp_path, model, gangs=0)
    terms = PoolTerms(min_gangs=1, max_gangs=9, mode="external", replicas=2)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            await farm.until(lambda: asked(director) is not None)
            farm.jobs.learn(TERMS, POOL, terms.model_dump(mode="json"), now=time.time())
            director.poke()
            await farm.until(lambda: (asked(director) or [None])[0] == terms)
            assert director.state.pools[POOL].spec.max_gangs == 9
        successor = farm.director("successor")
        async with farm.running(successor):
            await farm.until(lambda: (asked(successor) or [None])[0] == terms)
            farm.jobs.learn(TERMS, POOL, {"min_gangs": "many"}, now=time.time())
            successor.poke()
            await farm.until(lambda: (asked(successor) or [None])[0] == PoolTerms(min_gangs=0, max_gangs=4))

    asyncio.run(body())


def test_how_long_gangs_take_to_start_is_measured_and_outlives_the_director(model: str, tmp_path: Path) -> None:
    farm = scaled_farm(tmp_path, model, gangs=0)

    def supply(director: Director, target: int) -> PoolSupply:
        told = asked(director, {"target": target, "decision": None})
        assert told is not None
        return told[2]

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            await farm.until(lambda: asked(director) is not None)
            assert supply(director, 0).cold_start_s == COLD_START_S
            assert supply(director, 2).starting == 2
            farm.add_gang()
            await farm.until(lambda: supply(director, 2).ready == 1)
            found = supply(director, 2)
            assert (found.starting, found.idle) == (1, 1)
            assert found.cold_start_s != COLD_START_S
            await farm.until(lambda: b'longtake_pool_gangs_starting{pool="default"} 1.0' in director.metrics.text())
            assert b'longtake_pool_cold_start_seconds{pool="default"} 60' not in director.metrics.text()
            await farm.until(lambda: farm.jobs.recall_all(COLD_START))
        successor = farm.director("successor")
        async with farm.running(successor):
            await farm.until(lambda: asked(successor) is not None)
            assert supply(successor, 2).cold_start_s == pytest.approx(found.cold_start_s, abs=0.01)

    asyncio.run(body())


def test_a_host_leaves_a_node_that_goes_and_nothing_is_rendered_twice(model: str, tmp_path: Path) -> None:
    calm = LocalFarm(tmp_path / "calm", model=model, gangs=2)
    farm = LocalFarm(tmp_path / "moved", model=model, gangs=2)
    calls = 0

    def count(call: CallInput) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.01)

    async def render(of: LocalFarm, *, drained: bool) -> Any:
        clock = StoppedClock()
        director = of.director(clock=clock)
        job = of.submit(director, board(model))
        async with of.running(director):
            if drained:
                await of.until(lambda: sum(take.calls_done for take in of.jobs.takes(job.id)) > 2)
                of.nodes.going["here"] = clock() + 60
                await of.until(lambda: of.hosts[0].node == "elsewhere")
                assert of.status(job) == "in_progress", "it moved in mid-render"
            await of.until(lambda: of.status(job) in ("completed", "failed"))
        found = of.jobs.get(job.id)
        assert found is not None
        assert found.film is not None, found.error
        return found

    for gang in farm.gangs.values():
        gang.fault = count
    undisturbed = asyncio.run(render(calm, drained=False))
    moved = asyncio.run(render(farm, drained=True))
    assert moved.film["sha256"] == undisturbed.film["sha256"]
    assert moved.wasted_gpu_seconds == 0
    assert calls == moved.calls_total, "no call was done twice"


def test_a_take_that_is_rendered_while_its_host_drains_does_not_hold_the_host(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)
    begun, durable = asyncio.Event(), asyncio.Event()
    finish = farm.hosts[0].inner.finish_take

    async def finish_when_told(*arguments: Any) -> str:
        begun.set()
        await durable.wait()
        return await finish(*arguments)

    monkeypatch.setattr(farm.hosts[0].inner, "finish_take", finish_when_told)

    async def body() -> None:
        clock = StoppedClock()
        director = farm.director(clock=clock)
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await begun.wait()  # a take has all its latents, and its host makes them durable
            farm.nodes.going["here"] = clock() + 3600
            await farm.until(lambda: director.moving_hosts)
            durable.set()
            await farm.until(lambda: farm.hosts[0].node == "elsewhere", within_s=20)
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert farm.status(job) == "completed"

    asyncio.run(body())


def test_calls_that_outlast_the_node_are_given_up_and_done_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.director.host_moves.MOVE_MARGIN_S", 0.0)
    farm = LocalFarm(tmp_path, model=model, gangs=1)
    [gang] = farm.gangs.values()

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: sum(take.calls_done for take in farm.jobs.takes(job.id)) > 2)
            async with gang.line:  # its calls do not end
                farm.nodes.going["here"] = time.time() + 0.3
                await farm.until(lambda: farm.hosts[0].node == "elsewhere")
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert farm.status(job) == "completed"

    asyncio.run(body())


def test_a_host_stays_where_no_other_node_takes_it(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1)
    farm.nodes.gone.add("elsewhere")

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            farm.nodes.going["here"] = time.time() + 60
            await farm.until(lambda: "no other node takes hosts" in caplog.text)
            await farm.until(lambda: farm.status(job) == "completed")
        assert farm.hosts[0].node == "here"
        assert caplog.text.count("no other node takes hosts") == 1, "it is said once"

    asyncio.run(body())


def test_a_drain_is_asked_for_once_and_again_only_for_an_earlier_deadline(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1)

    def request(deadline_s: float) -> DrainRequest:
        return DrainRequest(cause="maintenance", reason="a new kernel", deadline_s=deadline_s)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            await farm.until(lambda: director.gangs.numerics(POOL) is not None)
            [here] = [node for node in await director.nodes() if node.id == "here"]
            assert (len(here.gangs), here.timeline_hosts) == (1, ("timeline-host-0",))
            for deadline_s, changes in [(100.0, True), (100.0, False), (500.0, False), (20.0, True)]:
                node, changed = await director.drain("here", request(deadline_s))
                assert (node.state, changed) == ("draining", changes)
            assert [(node, reason) for node, reason, _ in farm.nodes.asked] == [
                ("here", "maintenance: a new kernel")
            ] * 2
            farm.nodes.gone.add("elsewhere")
            node, changed = await director.drain("elsewhere", request(5.0))
            assert (node.state, changed) == ("dead", False)
            with pytest.raises(NotFound, match="did you mean here"):
                await director.drain("her", request(5.0))
            with pytest.raises(WrongState, match="head"):
                await director.drain("head", request(5.0))

    asyncio.run(body())
