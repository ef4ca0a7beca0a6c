"""The Director with real timeline hosts, ranks, decoder and store, in one process."""

import asyncio
import io
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.contract.backoff import Backoff
from serving.config.farm import DAY_S
from serving.director.director import Director
from serving.director.outcomes import MAX_DECODE_TRIES, MAX_HOST_FAILURES
from serving.director.testing import LocalFarm
from serving.errors import ArtifactsUnavailable, GangDied, StoreUnavailable
from serving.models.testing import write_tiny_checkpoint
from serving.render.latent_preview import UNSEEN
from serving.render.messages import CallInput
from serving.store.artifact_keys import frames_artifact, latents_artifact, preview_artifact
from serving.store.artifacts import Artifacts
from serving.store.records import Job
from serving.storyboard import Shot, Storyboard
from serving.storyboard.schema import Video

Body = Callable[[LocalFarm], Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, "2.1")
    return str(folder)


def board(model: str, *, seed: int = 1, shots: int = 2, seconds: float = 2.0) -> Storyboard:
    names = [f"s{k}" for k in range(shots)]
    return Storyboard(
        version=1,
        title="A film",
        model=model,
        seed=seed,
        quality="draft",
        video=Video(width=32, height=32, fps=16),
        shots=tuple(Shot(id=name, prompt=f"a ball {name}", seconds=seconds) for name in names),
    )


def is_completed(farm: LocalFarm, job: Job) -> bool:
    return farm.status(job) == "completed"


def sha(farm: LocalFarm, job: Any) -> str:
    film = farm.job(job.id).film
    assert film is not None
    return str(film["sha256"])


@pytest.fixture(scope="module")
def undisturbed(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The film's sha256 where nothing went wrong."""
    farm = LocalFarm(tmp_path_factory.mktemp("calm"), model=model)

    async def body() -> str:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        return sha(farm, job)

    return asyncio.run(body())


def test_a_film_of_the_farm_has_the_bytes_of_one_rendered_in_one_process(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    from serving.models.registry import open_model
    from serving.planning.compile import compile_storyboard
    from serving.render.local.film import render_film

    opened = open_model(model)
    plan = compile_storyboard(board(model), model_name=model, capabilities=opened.capabilities)
    manifest = render_film(plan, model=opened, out=tmp_path / "film.mp4", gangs=1)
    assert manifest["sha256"] == undisturbed


def test_gangs_that_die_cost_retries_and_change_nothing(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)
    deaths = iter([True, False, False, True] + [False] * 1000)

    def die(call: CallInput) -> None:
        if next(deaths):
            raise GangDied("SIGKILL")

    for gang in farm.gangs.values():
        gang.fault = die

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert sha(farm, job) == undisturbed
        assert sum(take.retries for take in farm.jobs.takes(job.id)) == 2

    asyncio.run(body())


def test_a_call_that_kills_every_gang_fails_its_job_with_evidence_and_no_other(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)

    def die(call: CallInput) -> None:
        if any("poison" in part.text for part in call.parts):
            raise GangDied("out of memory")

    for gang in farm.gangs.values():
        gang.fault = die

    async def body() -> None:
        director = farm.director()
        bad = board(model).model_copy(update={"shots": (Shot(id="p", prompt="poison", seconds=1.0),)})
        poisoned, sound = farm.submit(director, bad), farm.submit(director, board(model, seed=5))
        async with farm.running(director):
            await farm.until(lambda: farm.status(sound) == "completed" and farm.status(poisoned) == "failed")
        error = farm.job(poisoned.id).error
        assert error is not None
        assert error["code"] == "poison_call"
        assert len({attempt["gang"] for attempt in error["attempts"]}) == 3

    asyncio.run(body())


def test_a_killed_host_goes_on_from_a_checkpoint_to_the_same_bytes(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model, config={"checkpoint_every_steps": 1})

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: farm.artifacts.list("takes/") and farm.job(job.id).calls_done > 2)
            farm.hosts[0].kill()
            shown = set()
            while farm.status(job) not in ("completed", "failed"):
                shown.add(farm.job(job.id).calls_done)
                await asyncio.sleep(0.001)
        assert 0 not in shown, "those who watch see how far it was until it is open again"
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_a_second_director_goes_on_where_the_first_was_killed(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, config={"lease_s": 0.3})

    async def body() -> None:
        first = farm.director("first")
        job = farm.submit(first, board(model))
        async with farm.running(first):
            await farm.until(lambda: farm.job(job.id).calls_done > 2)
        second = farm.director("second")
        shown = set()
        async with farm.running(second):
            while farm.status(job) not in ("completed", "failed"):
                shown.add(farm.job(job.id).calls_done)
                await asyncio.sleep(0.001)
        assert 0 not in shown
        assert sha(farm, job) == undisturbed
        assert second.generation > first.generation

    asyncio.run(body())


def test_two_directors_at_once_never_own_the_same_job(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)

    async def body() -> None:
        first, second = farm.director("first"), farm.director("second")
        jobs = [farm.submit(first, board(model, seed=seed, shots=1, seconds=1.0)) for seed in range(4)]
        async with farm.running(first), farm.running(second):
            while any(farm.status(job) != "completed" for job in jobs):
                assert not first.runs.keys() & second.runs.keys()
                assert all(farm.status(job) != "failed" for job in jobs)
                await asyncio.sleep(0.01)
        starts = [event for event in farm.jobs.events_after(0) if event.kind == "complete"]
        assert len(starts) == len(jobs)

    asyncio.run(body())


def test_a_job_stops_at_its_budget_and_goes_on_with_a_larger_one(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model), budget_usd=0.05)  # a US dollar a second
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) == "paused")
            stopped = farm.job(job.id)
            assert "budget" in stopped.reason
            assert stopped.usd >= 0.05
            farm.jobs.set_terms(job.id, actor="longtake", now=1.0, budget_usd=1000.0)
            farm.lifecycle.apply(job.id, "resume", reason="more money", now=1.0)
            await farm.until(lambda: farm.status(job) == "completed")
        assert sha(farm, job) == undisturbed
        assert farm.job(job.id).usd == pytest.approx(sum(t.gpu_seconds for t in farm.jobs.takes(job.id)), rel=1.0)

    asyncio.run(body())


def test_the_same_storyboard_twice_renders_once(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        jobs = [farm.submit(director, board(model)) for _ in range(2)]
        async with farm.running(director):
            await farm.until(lambda: all(farm.status(job) == "completed" for job in jobs))
        assert sha(farm, jobs[0]) == sha(farm, jobs[1])
        assert {take.cached for job in jobs for take in farm.jobs.takes(job.id)} == {True, False}
        done = sum(gang.calls for gang in farm.gangs.values())
        assert done == jobs[0].calls_total

    asyncio.run(body())


def test_tenants_who_do_not_share_takes_get_the_same_film_rendered_for_each(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model, config={"share_takes": "tenant"})

    async def body() -> None:
        director = farm.director()
        first, same, other = (farm.submit(director, board(model), tenant=tenant) for tenant in ("ada", "ada", "bob"))
        async with farm.running(director):
            await farm.until(lambda: all(farm.status(job) == "completed" for job in (first, same, other)))
        assert sha(farm, first) == sha(farm, same) == sha(farm, other) == undisturbed
        assert not any(take.cached for take in farm.jobs.takes(other.id))
        keys = [{take.content_key for take in farm.jobs.takes(job.id)} for job in (first, same, other)]
        assert keys[0] == keys[1]
        assert not keys[0] & keys[2], "no preview, head or count of steps of the one is the other's"
        assert sum(gang.calls for gang in farm.gangs.values()) == first.calls_total + other.calls_total

    asyncio.run(body())


def test_a_changed_shot_renders_only_its_take(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        before = board(model, shots=3, seconds=1.0)
        changed = before.shots[1].model_copy(update={"prompt": "a cube"})
        after = before.model_copy(update={"shots": (before.shots[0], changed, before.shots[2])})
        async with farm.running(director):
            first = farm.submit(director, before)
            await farm.until(lambda: farm.status(first) == "completed")
            calls = sum(gang.calls for gang in farm.gangs.values())
            second = farm.submit(director, after, previous=farm.jobs.get(first.id))
            await farm.until(lambda: farm.status(second) == "completed")
        assert [take.cached for take in farm.jobs.takes(second.id)] == [True, False, True]
        assert sum(gang.calls for gang in farm.gangs.values()) - calls == farm.jobs.takes(second.id)[1].calls_total
        assert farm.job(second.id).version == 2

    asyncio.run(body())


def test_cancel_pause_and_resume_take_hold_while_it_renders(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        kept, ended = farm.submit(director, board(model)), farm.submit(director, board(model, seed=2))
        async with farm.running(director):
            await farm.until(lambda: farm.job(kept.id).calls_done > 2)
            farm.lifecycle.apply(kept.id, "pause", reason="lunch", now=1.0)
            farm.lifecycle.apply(ended.id, "cancel", reason="no more", now=1.0)
            await farm.until(lambda: not director.runs and not farm.hosts[0].inner.held())
            farm.lifecycle.apply(kept.id, "resume", reason="back", now=2.0)
            await farm.until(lambda: farm.status(kept) == "completed")
            await farm.until(lambda: charged(farm) == pytest.approx(computed(director)))
            assert not any((tmp_path / "scratch").rglob("*.mkv"))
        assert sha(farm, kept) == undisturbed
        assert farm.status(ended) == "cancelled"

    asyncio.run(body())


def charged(farm: LocalFarm) -> float:
    """GPU-seconds that the ledger holds of all jobs."""
    jobs = farm.jobs.list()
    return sum(job.gpu_seconds + job.wasted_gpu_seconds for job in jobs)


def computed(director: Director) -> float:
    """GPU-seconds of all calls that a Director heard the end of."""
    samples = (sample for metric in director.metrics.gpu_seconds.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


def test_an_older_director_gives_back_what_it_holds(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, config={"lease_s": 0.6})

    async def body() -> None:
        older = farm.director("older")
        job = farm.submit(older, board(model))
        async with farm.running(older):
            await farm.until(lambda: farm.job(job.id).calls_done > 2)
            farm.jobs.next_generation(now=1.0)  # a newer one has begun, and has not come to claim anything
            await farm.until(lambda: not older.runs and farm.job(job.id).lease_owner is None)
            assert farm.hosts[0].inner.held() == {}
            assert any(info.key.endswith(".ckpt") for info in farm.artifacts.list("takes"))
        newer = farm.director("newer")
        async with farm.running(newer):
            await farm.until(lambda: farm.status(job) == "completed")
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_a_director_whose_takes_a_newer_one_has_opened_fails_no_job(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        older = farm.director("older")
        job = farm.submit(older, board(model))
        async with farm.running(older):
            await farm.until(lambda: farm.job(job.id).calls_done > 2)
            newest = farm.jobs.next_generation(now=1.0)
            tokens = farm.hosts[0].inner._tokens
            tokens.update(dict.fromkeys(tokens, newest))
            await farm.until(lambda: not older.runs and farm.job(job.id).lease_owner is None)
        assert farm.status(job) == "in_progress"
        newer = farm.director("newer")
        async with farm.running(newer):
            await farm.until(lambda: farm.status(job) == "completed")
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


@pytest.mark.parametrize("lost", ["latents", "frames"])
def test_what_is_lost_of_a_take_that_was_done_is_made_again(
    model: str, undisturbed: str, tmp_path: Path, lost: str
) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        first = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: farm.status(first) == "completed")
            farm.decoder.free.clear()
            second = farm.submit(director, board(model))
            [_, key] = [str(take.content_key) for take in farm.jobs.takes(first.id)]
            if lost == "latents":  # and its frames: it must be rendered again
                farm.artifacts.delete([latents_artifact(key), frames_artifact(key)])
            else:
                farm.artifacts.put(frames_artifact(key), farm.artifacts.get(frames_artifact(key))[:-1000])
            farm.decoder.free.set()
            await farm.until(lambda: farm.status(second) in ("completed", "failed"))
        assert sha(farm, second) == undisturbed

    asyncio.run(body())


def test_latents_that_vanish_before_they_are_decoded_are_rendered_again(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        farm.decoder.free.clear()
        async with farm.running(director):
            await farm.until(lambda: all(take.status == "rendered" for take in farm.jobs.takes(job.id)))
            farm.artifacts.delete([info.key for info in farm.artifacts.list("takes")])
            farm.hosts[0].kill()
            farm.decoder.free.set()
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


@pytest.mark.slow
def test_no_job_fails_because_the_artifact_store_does_for_long(
    model: str, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model)
    for module in ("outcomes", "finishing"):
        monkeypatch.setattr(f"serving.director.{module}.DECODE_BACKOFF", Backoff.steady(0.001))
    monkeypatch.setattr("serving.director.outcomes.HOST_BACKOFF", Backoff.steady(0.001))
    failures = 0

    def failing(*_: object, **__: object) -> None:
        nonlocal failures
        failures += 1
        raise ArtifactsUnavailable("the bucket is gone")

    async def outage(tries: int) -> None:
        nonlocal failures
        failures = 0
        with monkeypatch.context() as outage:
            outage.setattr(Artifacts, "_trying", failing)
            await farm.until(lambda: failures > tries)

    async def body() -> None:
        director = farm.director()
        first = farm.submit(director, board(model))
        async with farm.running(director):
            await outage(3 * MAX_DECODE_TRIES)  # when a job is taken up
            await farm.until(lambda: farm.job(first.id).calls_done > 2)
            await outage(MAX_HOST_FAILURES + 10)  # while it renders
            await farm.until(lambda: farm.status(first) in ("completed", "failed"))
        assert sha(farm, first) == undisturbed

    asyncio.run(body())


def days_later(days: float) -> float:
    return time.time() + days * DAY_S


def holds_only(farm: LocalFarm, folders: set[str]) -> bool:
    """Whether artifacts are in these folders and no others, but for what is learned of models."""
    return {info.key.partition("/")[0] for info in farm.artifacts.list()} - {"models"} == folders


def test_what_nobody_needs_any_more_is_removed(model: str, tmp_path: Path) -> None:
    kept = {"takes_days": 1.0, "films_days": 2.0, "events_days": 1.0}
    farm = LocalFarm(tmp_path, model=model, config={"retention": kept})

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model, shots=1, seconds=1.0))
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) == "completed")
        ages = [info.key.partition("/")[0] for info in farm.artifacts.list()]
        assert {"takes", "films", "prompts"} <= set(ages)
        for days, left in ((0.5, {"takes", "films", "prompts"}), (1.5, {"films"}), (2.5, set())):
            later = farm.director(clock=partial(days_later, days))
            async with farm.running(later):
                await farm.until(partial(holds_only, farm, left))
            assert bool(farm.jobs.events_after(0)) == (days < 1)

    asyncio.run(body())


def test_a_decoder_that_is_killed_is_sent_the_latents_again(model: str, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        farm.decoder.failures = 2
        async with farm.running(director):
            await farm.until(lambda: any(take.frames_decoded for take in farm.jobs.takes(job.id)))
            farm.decoder.restart()
            farm.decoder.failures = 2
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_a_host_killed_when_its_take_is_rendered_and_not_decoded_loses_nothing(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        farm.decoder.free.clear()
        async with farm.running(director):
            await farm.until(lambda: all(take.status == "rendered" for take in farm.jobs.takes(job.id)))
            farm.hosts[0].kill()
            farm.decoder.free.set()
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_checkpoints_that_a_killed_host_had_no_time_to_remove_go_with_the_next_director(
    model: str, undisturbed: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model, config={"lease_s": 0.3})

    async def body() -> None:
        first = farm.director("first")
        job = farm.submit(first, board(model))
        farm.decoder.free.clear()
        async with farm.running(first):
            await farm.until(lambda: all(take.status == "rendered" for take in farm.jobs.takes(job.id)))
        left = [f"takes/{take.content_key}/checkpoints/000000000001-00000009.ckpt" for take in farm.jobs.takes(job.id)]
        for key in left:
            farm.artifacts.put(key, b"of a take that is done")
        farm.hosts[0].kill()
        for task in first.tasks.running:  # killed with its process
            task.cancel()
        async with farm.running(farm.director("second")):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
            await farm.until(lambda: not farm.artifacts.existing(left))
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_a_store_that_mostly_does_not_answer_only_delays_the_film(
    model: str, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model)
    save, tries = farm.jobs.save_progress, itertools.count()

    def sometimes(*arguments: Any, **named: Any) -> Any:
        if next(tries) % 4:
            raise StoreUnavailable("it is being restarted")
        return save(*arguments, **named)

    monkeypatch.setattr(farm.jobs, "save_progress", sometimes)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert sha(farm, job) == undisturbed

    asyncio.run(body())


def test_a_job_that_fails_says_so_when_the_store_is_back(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)
    save, tries = farm.jobs.save_progress, itertools.count()

    def die(call: CallInput) -> None:
        raise GangDied("out of memory")

    for gang in farm.gangs.values():
        gang.fault = die

    def later(*arguments: Any, **named: Any) -> Any:
        if next(tries) < 5:
            raise StoreUnavailable("it is being restarted")
        return save(*arguments, **named)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: director.runs)
            monkeypatch.setattr(farm.jobs, "save_progress", later)
            await farm.until(lambda: farm.status(job) == "failed")

    asyncio.run(body())


def test_the_picture_of_a_take_that_is_done_shows_all_of_it(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            # The colours of a model that brings no map of them are learned from the first film.
            for seed in (1, 2):
                job = farm.submit(director, board(model, seed=seed, shots=1))
                await farm.until(partial(is_completed, farm, job))
            [take] = farm.jobs.takes(job.id)
            preview = preview_artifact(str(take.content_key))
            await farm.until(lambda: farm.artifacts.exists(preview) and not has_unseen(farm.artifacts.get(preview)))

    asyncio.run(body())


def has_unseen(picture: bytes) -> bool:
    """Whether a tile of a preview is still empty."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return bool((pixels == UNSEEN).all(axis=(0, 2)).any())


def test_jobs_of_a_pool_whose_model_is_broken_fail_with_what_is_wrong_and_the_pool_says_so(
    model: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=0)
    problem = "'m': transformer/diffusion_pytorch_model.safetensors is empty"

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            director.gang_unfit("default", "leader", problem)
            await farm.until(lambda: farm.status(job) == "failed")
            stored = farm.jobs.get(job.id)
            assert stored is not None
            assert stored.error == {"code": "model_unfit", "message": problem}
            assert director.pools()[0]["problem"] == problem
            farm.add_gang()
            await farm.until(lambda: director.pools()[0]["problem"] is None)
            again = farm.submit(director, board(model))
            await farm.until(lambda: farm.status(again) == "completed")

    asyncio.run(body())
