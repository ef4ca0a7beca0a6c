"""Every stitching gives a film the same bytes on one machine and on a farm whose gangs and hosts die."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from serving.director.testing import LocalFarm
from serving.errors import GangDied
from serving.models.registry import open_model
from serving.models.testing import SchedulerKind, write_tiny_checkpoint
from serving.planning.compile import compile_storyboard
from serving.render.local.film import render_film
from serving.render.messages import CallInput
from serving.storyboard import Storyboard, parse_storyboard
from sharding.stitching import STITCHING_KINDS, StitchingKind


@pytest.fixture(scope="module")
def euler(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("euler"), "euler")


@pytest.fixture(scope="module")
def unipc(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("unipc"), "unipc")


def tiny(folder: Path, scheduler: SchedulerKind) -> str:
    """A model that reads context, and whose joint takes have sweeps and new noise."""
    model = write_tiny_checkpoint(folder, "2.2-5b", scheduler=scheduler)
    made_for = json.loads((model / "longtake.json").read_text())
    made_for |= {"pictures": ["first", "context"], "stitching": {"sweeps": 0.4, "renew_above": 0.9}}
    (model / "longtake.json").write_text(json.dumps(made_for))
    return str(model)


def board(model: str, kind: StitchingKind) -> Storyboard:
    """A take of three windows in which the prompt changes, and a short one."""
    shots = [
        {"id": "a", "prompt": "a red ball", "seconds": 3},
        {"id": "b", "prompt": "a blue ball", "seconds": 2, "transition": "continue"},
        {"id": "c", "prompt": "a box", "seconds": 0.5},
    ]
    text = json.dumps({"version": 1, "model": model, "quality": "draft", "stitching": kind, "shots": shots})
    return parse_storyboard(text.encode(), form="json")


@pytest.mark.parametrize(("kind", "solver"), [*((kind, "euler") for kind in STITCHING_KINDS), ("drafted", "unipc")])
def test_a_film_has_the_bytes_of_a_render_whatever_dies_under_it(
    kind: StitchingKind, solver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name: str = request.getfixturevalue(solver)
    model = open_model(name)
    plan = compile_storyboard(board(name, kind), model_name=name, capabilities=model.capabilities)
    assert [take.stitching.kind for take in plan.takes] == [kind, "joint"]
    rendered = render_film(plan, model=model, out=tmp_path / "film.mp4", gangs=1)

    farm = LocalFarm(tmp_path / "farm", model=name, gangs=2, config={"checkpoint_every_steps": 1})
    rng = random.Random(kind)

    def die(call: CallInput) -> None:
        if rng.random() < 0.05:
            raise GangDied("SIGKILL")

    for gang in farm.gangs.values():
        gang.fault = die

    async def body() -> str:
        director = farm.director()
        job = farm.submit(director, board(name, kind))
        async with farm.running(director):
            await farm.until(lambda: farm.artifacts.list("takes/") and farm.job(job.id).calls_done > plan.calls // 3)
            farm.hosts[0].kill()
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        film = farm.job(job.id).film
        assert film is not None, farm.job(job.id).error
        return str(film["sha256"])

    assert asyncio.run(body()) == rendered["sha256"]
