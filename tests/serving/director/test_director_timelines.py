"""What the Director tells of the latents of a job while it renders, by real timeline hosts."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from serving.director.testing import LocalFarm
from serving.director.timelines import describe_timeline
from serving.jobs.stored_timeline import describe_stored
from serving.models.testing import write_tiny_checkpoint
from serving.render.messages import CallInput
from serving.storyboard import Shot, Storyboard


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, "2.1")
    return str(folder)


def test_a_timeline_tells_every_latent_and_the_calls_of_gangs_and_ends_at_the_last_step(
    model: str, tmp_path: Path
) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2)
    seen: list[dict[str, Any]] = []
    fails = iter([True])

    def fail_once(call: CallInput) -> None:
        if next(fails, False):
            raise RuntimeError("it failed")

    for gang in farm.gangs.values():
        gang.fault = fail_once
    video: Any = {"width": 32, "height": 32, "fps": 16}
    shots = tuple(Shot(id=name, prompt="a ball", seconds=3.0) for name in ("one", "two"))
    storyboard = Storyboard(version=1, model=model, quality="draft", video=video, shots=shots)

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, storyboard)
        async with farm.running(director):

            def look() -> bool:
                run = director.runs.get(job.id)
                if run is not None:
                    seen.extend(describe_timeline(run, director.state))
                return farm.status(job) in ("completed", "failed")

            await farm.until(look)
        assert farm.status(job) == "completed"
        stored = describe_stored(farm.jobs.takes(job.id), steps=8)
        assert [take["reached"] for take in stored] == [[(8, take["latents"])] for take in stored]

    asyncio.run(body())
    assert all(sum(length for _, length in take["reached"]) == take["latents"] for take in seen)
    ragged = [take for take in seen if take["exact"] and len(take["reached"]) > 1]
    assert ragged, "latents of one take are at different steps while it renders"
    calls = [call for take in seen for call in take["in_flight"]]
    assert {call["gang"] for call in calls} == {"gang-0", "gang-1"}
    assert {call["try"] for call in calls} == {1, 2}
    assert all(0 <= call["start"] < call["stop"] <= seen[0]["latents"] for call in calls)
    assert all(0 <= call["step"] < 8 and abs(call["since"] - time.time()) < 600 for call in calls)
    for take in seen:
        steps = [step for step, length in take["reached"] for _ in range(length)]
        for call in take["in_flight"] if take["exact"] else ():
            assert steps[call["start"]] >= call["step"], "a call is only out where its latents have come that far"
