"""Films from pictures on a farm: the bytes of a render on one machine, through deaths, and nothing rendered twice."""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.director.testing import LocalFarm
from serving.errors import GangDied
from serving.models.registry import open_model
from serving.models.testing import Variant, write_tiny_checkpoint
from serving.planning.compile import compile_storyboard
from serving.render.local.film import render_film
from serving.render.messages import CallInput
from serving.store.artifact_keys import asset_artifact, condition_artifact
from serving.store.assets import Asset, AssetQuota, Assets
from serving.storyboard import Storyboard, parse_storyboard
from testkit.picture_files import drawing, written

TENANT = "default"

FILES = {name: written(drawing(width, 30 + width), "PNG") for name, width in (("a", 40), ("b", 52), ("c", 64))}
IDS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
CONTENTS = {IDS[name]: content for name, content in FILES.items()}


@dataclass(frozen=True)
class Case:
    """A model and a storyboard that uses all that it takes."""

    model: str
    shots: tuple[dict[str, Any], ...]

    def board(self, **names: str) -> Storyboard:
        """With the pictures that `names` puts in the place of others."""
        ids = {name: f"sha256:{IDS[names.get(name, name)]}" for name in IDS}
        hero = {"text": "a red ball", "images": ["b.png"]}
        text = json.dumps(
            {"version": 1, "model": self.model, "quality": "draft", "characters": {"hero": hero}, "shots": self.shots}
        )
        for name, asset_id in ids.items():
            text = text.replace(f'"{name}.png"', f'"{asset_id}"')
        return parse_storyboard(text.encode(), form="json")


GIVEN = (
    {"id": "one", "prompt": "a red ball", "seconds": 4, "image": "a.png", "last_image": "b.png",
     "keyframes": [{"at": 2, "image": "c.png", "strength": 0.6}]},
    {"id": "two", "prompt": "a blue box", "seconds": 2, "image": "b.png", "transition": {"dissolve": 0.5}},
    {"id": "still", "prompt": "a red ball", "seconds": 0.1, "image": "a.png"},
)  # fmt: skip
"""For a model whose latents pictures become; of the last shot nothing is left to render."""

BESIDE = (
    {"id": "one", "prompt": "a red ball", "seconds": 4, "image": "a.png"},
    {"id": "more", "prompt": "a blue ball", "seconds": 2, "image": "c.png", "transition": "continue"},
    {"id": "two", "prompt": "a blue box", "seconds": 2, "image": "b.png", "transition": {"dissolve": 0.5}},
)  # fmt: skip
"""For a model that reads pictures beside its latents."""

VACE = (
    {"id": "one", "prompt": "a red ball", "seconds": 4, "image": "a.png", "keyframes": [{"at": 2, "image": "c.png"}]},
    {"id": "words", "prompt": "a blue ball", "seconds": 2},
    {"id": "two", "prompt": "{hero} moving right", "seconds": 3, "transition": {"dissolve": 0.5}},
)
"""With a take of words alone, which has a control clip too, and one with a character's picture."""

SHOTS: dict[str, tuple[dict[str, Any], ...]] = {"2.2-5b": GIVEN, "2.1-i2v": BESIDE, "2.1-vace": VACE}


@pytest.fixture(scope="module", params=list(SHOTS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variant: Variant = request.param
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("model"), variant, scheduler="euler")
    if variant == "2.2-5b":
        made_for = json.loads((folder / "longtake.json").read_text())
        made_for["pictures"] = ["first", "last", "keyframes", "strength"]
        (folder / "longtake.json").write_text(json.dumps(made_for))
    return Case(str(folder), SHOTS[variant])


def send(farm: LocalFarm) -> None:
    for content in FILES.values():
        sha256 = hashlib.sha256(content).hexdigest()
        asset = Asset(
            tenant=TENANT, sha256=sha256, media_type="image/png", bytes=len(content), width=1, height=1,
            created_at=time.time(), used_at=time.time(),
        )  # fmt: skip
        Assets(farm.database, farm.artifacts).add(asset, content, AssetQuota(100, 1 << 30))


def film_of(farm: LocalFarm, job_id: str) -> str:
    film = farm.job(job_id).film
    assert film is not None
    return str(film["sha256"])


@pytest.fixture(scope="module")
def undisturbed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the film as one machine renders it."""
    return rendered(case, case.board(), tmp_path_factory.mktemp("alone"), gangs=1)


def rendered(case: Case, board: Storyboard, folder: Path, *, gangs: int) -> str:
    model = open_model(case.model)
    plan = compile_storyboard(board, model_name=case.model, capabilities=model.capabilities)
    manifest = render_film(plan, model=model, out=folder / "film.mp4", gangs=gangs, pictures=CONTENTS)
    return str(manifest["sha256"])


def test_two_gangs_on_one_machine_render_the_bytes_of_one(case: Case, undisturbed: str, tmp_path: Path) -> None:
    assert rendered(case, case.board(), tmp_path, gangs=2) == undisturbed


def test_another_picture_is_another_film(case: Case, undisturbed: str, tmp_path: Path) -> None:
    assert rendered(case, case.board(a="c"), tmp_path, gangs=1) != undisturbed


def test_the_farm_makes_the_same_film_though_gangs_and_hosts_die(case: Case, undisturbed: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=case.model, gangs=2, config={"checkpoint_every_steps": 1})
    send(farm)
    calls = iter(range(10_000))

    def die(call: CallInput) -> None:
        number = next(calls)
        if number in (3, 11):
            raise GangDied("SIGKILL")
        if number == 20:
            farm.hosts[0].kill()

    for gang in farm.gangs.values():
        gang.fault = die

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, case.board())
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        assert farm.job(job.id).error is None
        assert film_of(farm, job.id) == undisturbed
        for take in farm.jobs.takes(job.id):
            assert farm.artifacts.exists(condition_artifact(str(take.content_key)))

    asyncio.run(body())


def test_a_changed_picture_renders_only_its_take(case: Case, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=case.model, gangs=1)
    send(farm)

    async def body() -> None:
        director = farm.director()
        async with farm.running(director):
            first = farm.submit(director, case.board())
            await farm.until(lambda: farm.status(first) == "completed")
            second = farm.submit(director, case.board(c="a" if len(case.shots) == 3 else "b"))
            await farm.until(lambda: farm.status(second) == "completed")
        before, after = (farm.jobs.takes(job.id) for job in (first, second))
        assert [take.cached for take in after] == [False, *[True] * (len(after) - 1)]
        assert before[0].content_key != after[0].content_key
        assert film_of(farm, first.id) != film_of(farm, second.id)

    asyncio.run(body())


def test_a_job_whose_picture_has_vanished_fails_and_says_which(case: Case, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=case.model, gangs=1)
    send(farm)
    farm.artifacts.delete([asset_artifact(TENANT, IDS["b"])])

    async def body() -> None:
        director = farm.director()
        job = farm.submit(director, case.board())
        async with farm.running(director):
            await farm.until(lambda: farm.status(job) in ("completed", "failed"))
        error = farm.job(job.id).error
        assert error is not None
        assert error["code"] == "asset_missing"

    asyncio.run(body())
