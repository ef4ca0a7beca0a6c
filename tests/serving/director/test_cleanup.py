"""Tidying goes on beside everything else, and leaves to the next Director what is the next one's."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.config.farm import RetentionConfig
from serving.director.cleanup import Cleanup
from serving.errors import ArtifactsUnavailable
from serving.store.artifacts import Artifacts
from serving.store.database import Database, open_database
from serving.store.jobs import JobStore

LATER = time.time() + 31 * 86_400
"""A day later than takes are kept."""
TAKE = ["takes/k/frames.mkv", "takes/k/latents.safetensors"]
PROMPTS = ["prompts/w/needed", "prompts/w/unneeded"]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    artifacts = Artifacts.open(str(tmp_path / "artifacts"))
    for key in [*TAKE, *PROMPTS]:
        artifacts.put(key, b"old")
    return artifacts


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'farm.db'}")
    yield database
    database.close()


def make_tidier(artifacts: Artifacts, database: Database) -> Cleanup:
    return Cleanup(database, JobStore(database), artifacts, RetentionConfig(), clock=lambda: LATER)


def keys(artifacts: Artifacts) -> list[str]:
    return sorted(info.key for info in artifacts.list())


async def run_until(tidier: Cleanup, artifacts: Artifacts, wanted: list[str]) -> None:
    running = asyncio.ensure_future(tidier.run(prompts_in_use=lambda: PROMPTS[:1], is_retired=lambda: False))
    try:
        async with asyncio.timeout(30):
            while keys(artifacts) != wanted:
                assert not running.done()
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


def test_what_no_job_has_used_for_long_goes_but_for_prompts_that_are_needed_now(
    artifacts: Artifacts, database: Database
) -> None:
    asyncio.run(run_until(make_tidier(artifacts, database), artifacts, PROMPTS[:1]))


def test_a_director_that_has_been_replaced_removes_no_artifact(artifacts: Artifacts, database: Database) -> None:
    tidier, sweeps = make_tidier(artifacts, database), 0

    async def scenario() -> None:
        nonlocal sweeps
        running = asyncio.ensure_future(tidier.run(prompts_in_use=list, is_retired=lambda: True))
        async with asyncio.timeout(30):
            while sweeps < 3:
                await asyncio.sleep(0.01)
        running.cancel()

    def count(*, now: float) -> int:
        nonlocal sweeps
        sweeps += 1
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.director.cleanup.SWEEP_EVERY_S", 0.0)
        patch.setattr(artifacts, "sweep_partials", count)
        asyncio.run(scenario())
    assert keys(artifacts) == sorted([*TAKE, *PROMPTS])


def test_an_artifact_store_that_was_away_is_tidied_when_it_is_back(
    artifacts: Artifacts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, failures = artifacts.sweep_partials, iter([ArtifactsUnavailable("the bucket does not answer")])

    def sometimes(*, now: float) -> int:
        for failure in failures:
            raise failure
        return sweep(now=now)

    monkeypatch.setattr(artifacts, "sweep_partials", sometimes)
    monkeypatch.setattr("serving.director.cleanup.SWEEP_EVERY_S", 0.0)
    asyncio.run(run_until(make_tidier(artifacts, database), artifacts, PROMPTS[:1]))
