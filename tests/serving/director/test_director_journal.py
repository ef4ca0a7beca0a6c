"""What the log of a farm says of its jobs once faults are over: each told once, with its ids, in the store."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.director.testing import LocalFarm
from serving.errors import ArtifactsUnavailable, GangDied, StoreUnavailable
from serving.models.testing import write_tiny_checkpoint
from serving.render.messages import CallInput
from serving.store.checkpoints import Checkpoints
from serving.store.log_lines import LogLine, LogLines
from serving.storyboard import Shot, Storyboard


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, "2.1")
    return str(folder)


@pytest.fixture(autouse=True)
def lines_of_info() -> Iterator[None]:
    """As the processes of a farm have it."""
    ours = logging.getLogger("serving")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield
    ours.setLevel(before)


def board(model: str, seconds: float = 2.0) -> Storyboard:
    video: Any = {"width": 32, "height": 32, "fps": 16}
    shots = tuple(Shot(id=name, prompt="a ball", seconds=seconds) for name in ("one", "two"))
    return Storyboard(version=1, model=model, quality="draft", video=video, shots=shots)


def lines(farm: LocalFarm, job: Any = None, action: str = "") -> list[LogLine]:
    found = LogLines(farm.database).list(job_id=None if job is None else job.id, after=0, limit=500)
    return [line for line in found if action in ("", line.action)]


def test_a_job_is_told_of_from_its_claim_to_its_film(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: lines(farm, job, "complete_job"))
        told = [line.action for line in lines(farm, job)]
        assert Counter(told) == Counter(
            claim_job=1, start_job=1, open_take=2, take_rendered=2, take_done=2, complete_job=1
        )
        assert (told[0], told[-1]) == ("claim_job", "complete_job")
        opened = next(line for line in lines(farm, job, "open_take") if line.fields["take"] == "one")
        assert opened.fields.pop("calls") > 0
        assert opened.fields == {"take": "one", "resumed": "noise", "calls_done": 0, "host": 0}
        assert not [line for line in lines(farm) if line.level != "info"]

    asyncio.run(body())


def test_a_gang_that_dies_is_told_of_once_with_the_call_that_it_failed(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1)
    deaths = iter([False, True])

    def die(call: CallInput) -> None:
        if next(deaths, False):
            raise GangDied("SIGKILL")

    next(iter(farm.gangs.values())).fault = die

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: lines(farm, job, "complete_job"))
        (failed,) = lines(farm, job, "call_failed")
        (lost,) = lines(farm, action="gang_lost")
        assert (failed.level, failed.fields["gang"], failed.fields["outcome"]) == ("warning", "gang-0", "gang_died")
        assert {"take", "step", "chunk", "pool"} <= failed.fields.keys()
        assert "SIGKILL" in failed.message
        assert (lost.job_id, lost.fields["gang"], lost.fields["why"]) == (None, "gang-0", "died")
        (joined,) = [line for line in lines(farm, action="gang_joined") if line.fields["gang"] != "gang-0"]
        assert joined.id > lost.id, "and so is the one that takes its place"

    asyncio.run(body())


def test_a_host_that_is_lost_is_told_of_once_and_its_takes_each_with_where_they_go_on(
    model: str, tmp_path: Path
) -> None:
    config = {"checkpoint_every_s": 0.01}
    farm = LocalFarm(tmp_path, model=model, gangs=2, config=config)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model, seconds=4.0))
        async with farm.running(director):
            checkpoints = tmp_path / "artifacts"
            await farm.until(lambda: any(checkpoints.rglob("*checkpoint*")) and len(lines(farm, job, "open_take")) == 2)
            farm.hosts[0].kill()
            await farm.until(lambda: lines(farm, job, "complete_job"))
        assert len(lines(farm, action="host_lost")) == 1
        lost = Counter(line.fields["take"] for line in lines(farm, job, "take_lost"))
        assert lost
        assert max(lost.values()) == 1
        opened = [line for line in lines(farm, job, "open_take") if line.fields["resumed"] == "checkpoint"]
        assert opened
        assert all(line.fields["calls_done"] > 0 for line in opened)
        assert "goes on from its checkpoint" in opened[0].message

    asyncio.run(body())


def test_a_decoder_that_fails_and_a_job_that_fails_are_told_of(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1)
    farm.decoder.failures = 1

    def fail(call: CallInput) -> None:
        raise RuntimeError("no luck at /srv/x")

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: lines(farm, job, "complete_job"))
            (failed,) = lines(farm, job, "decode_failed")
            assert "the decoder was killed" in failed.message
            next(iter(farm.gangs.values())).fault = fail
            other = farm.submit(director, board(model).model_copy(update={"seed": 5}))
            await farm.until(lambda: lines(farm, other, "fail_job"))
        (ended,) = lines(farm, other, "fail_job")
        assert ended.level == "error"
        assert "failed on" in ended.message
        assert len(lines(farm, other, "call_failed")) >= 2

    asyncio.run(body())


def test_a_checkpoint_that_fails_is_told_of_with_its_take(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1, config={"checkpoint_every_s": 0.01})
    save = Checkpoints.save
    refused: list[bool] = []

    def refuse_once(self: Checkpoints, *arguments: Any, **named: Any) -> int:
        if not refused:
            refused.append(True)
            raise ArtifactsUnavailable("the bucket does not answer")
        return save(self, *arguments, **named)

    monkeypatch.setattr(Checkpoints, "save", refuse_once)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: lines(farm, job, "complete_job"))
        assert refused
        # The host says so too; it is in this process, and in a farm's it is not.
        (found,) = [
            line for line in lines(farm, job, "checkpoint_failed") if line.message.startswith("a checkpoint of")
        ]
        assert found.fields["take"] in ("one", "two")
        assert "the bucket does not answer" in found.message

    asyncio.run(body())


def test_lines_of_a_time_without_a_store_come_when_it_is_back(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=1)
    add, away = LogLines.add, [True] * 20

    def add_or_fail(self: LogLines, batch: Any) -> None:
        if away:
            away.pop()
            raise StoreUnavailable("the database does not answer")
        add(self, batch)

    monkeypatch.setattr(LogLines, "add", add_or_fail)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, board(model))
        async with farm.running(director):
            await farm.until(lambda: lines(farm, job, "complete_job"))
        assert lines(farm, job)[0].action == "claim_job"
        stores = lines(farm, action="store")
        assert sum(line.fields.get("times", 1) for line in stores) >= 20
        assert len(stores) < 20, "the same again is one line"

    asyncio.run(body())
