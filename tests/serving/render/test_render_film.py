"""The film is a function of the storyboard: whatever number of gangs render it, and whatever happens to them."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.errors import Fault, ModelError
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from serving.models.wan import WanModel
from serving.planning.compile import compile_storyboard
from serving.planning.plan import FilmPlan
from serving.render.frames import to_pixels
from serving.render.local import processes
from serving.render.local.film import gangs_of_this_machine, render_film
from serving.render.local.progress import Progress
from serving.render.takes import open_recipe, open_timeline
from serving.storyboard import parse_storyboard
from sharding.gang_shape import GangShape

STORYBOARD = b"""
version: 1
seed: 3
identity: 0.3
shots:
  - {id: a, prompt: a red ball moving right, seconds: 3}
  - {id: b, prompt: a red ball bouncing, seconds: 2, transition: continue}
  - {id: c, prompt: a blue box, seconds: 2, transition: {dissolve: 0.5}}
  - {id: d, prompt: a star, seconds: 1.1}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WanModel:
    return open_model(str(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.1")))


@pytest.fixture(scope="module")
def plan(model: WanModel) -> FilmPlan:
    return compile_storyboard(
        parse_storyboard(STORYBOARD), model_name=model.name, capabilities=model.capabilities, steps=4
    )


@pytest.fixture(scope="module")
def rendered(model: WanModel, plan: FilmPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of one gang, its manifest and latents."""
    folder = tmp_path_factory.mktemp("one-gang")
    render_film(plan, model=model, out=folder / "a.mp4", gangs=1, keep_latents=folder / "latents")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "film.json").read_text())
    return manifest


def test_two_gangs_render_the_same_bytes_as_one(
    model: WanModel, plan: FilmPlan, rendered: Path, tmp_path: Path, home: None
) -> None:
    render_film(plan, model=model, out=tmp_path / "b.mp4", gangs=2)
    assert (tmp_path / "b.mp4").read_bytes() == (rendered / "a.mp4").read_bytes()
    assert manifest_of(tmp_path)["takes"] == manifest_of(rendered)["takes"]


def own_children() -> list[str]:
    """Processes of renders that are still there."""
    names = [child.name for child in multiprocessing.active_children()]
    return [name for name in names if name.startswith("longtake-")]


def killing_gangs(after_calls: set[int], *, name: str = "longtake-gang") -> Callable[[Progress], None]:
    """Kills a gang, or a rank, without notice, whenever so many calls are done."""

    def on_progress(progress: Progress) -> None:
        due = {calls for calls in after_calls if progress.calls_done >= calls}
        if due:
            after_calls.difference_update(due)
            gangs = [child for child in multiprocessing.active_children() if child.name == name]
            pid = gangs[-1].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    return on_progress


def test_a_film_whose_gangs_are_killed_has_the_same_bytes(
    model: WanModel, plan: FilmPlan, rendered: Path, tmp_path: Path, home: None
) -> None:
    after_calls = {3, 11}
    render_film(plan, model=model, out=tmp_path / "b.mp4", gangs=2, on_progress=killing_gangs(after_calls))
    assert after_calls == set()
    assert (tmp_path / "b.mp4").read_bytes() == (rendered / "a.mp4").read_bytes()


SHAPES = ("ulysses=2", "cfg=2", "ring=2", "ulysses=2 x ring=2")
FILM_TOLERANCE = 2e-4
"""By how much latents of different shapes may differ after all steps, in fp32; latents are about one."""


def latents_of(folder: Path) -> list[torch.Tensor]:
    return [load_file(path)["latents"] for path in sorted((folder / "latents").iterdir())]


@pytest.mark.parametrize("shape", SHAPES)
def test_gangs_of_any_shape_render_the_same_film_within_a_tolerance(
    model: WanModel, plan: FilmPlan, rendered: Path, tmp_path: Path, home: None, shape: str
) -> None:
    gang = GangShape.parse(shape)
    render_film(plan, model=model, out=tmp_path / "b.mp4", gangs=1, shape=gang, keep_latents=tmp_path / "latents")
    for mine, expected in zip(latents_of(tmp_path), latents_of(rendered), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=FILM_TOLERANCE)
    assert manifest_of(tmp_path)["numerics"]["gang_shape"] == shape


@pytest.mark.slow
def test_gangs_of_one_shape_render_the_same_bytes_whatever_their_number_and_the_deaths_of_their_ranks(
    model: WanModel, plan: FilmPlan, tmp_path: Path, home: None
) -> None:
    ring = GangShape(ring=2)
    render_film(plan, model=model, out=tmp_path / "a.mp4", gangs=1, shape=ring)
    after_calls = {3, 11}
    deaths = killing_gangs(after_calls, name="longtake-rank")
    render_film(plan, model=model, out=tmp_path / "b.mp4", gangs=2, shape=ring, on_progress=deaths)
    assert after_calls == set()
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
    assert own_children() == []


@pytest.mark.slow
def test_processes_that_are_started_afresh_as_beside_a_gpu_render_the_same_bytes(
    model: WanModel, plan: FilmPlan, rendered: Path, tmp_path: Path, home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_start_method", lambda: "spawn")
    render_film(plan, model=model, out=tmp_path / "b.mp4", gangs=2)
    assert (tmp_path / "b.mp4").read_bytes() == (rendered / "a.mp4").read_bytes()


def test_a_machine_has_a_gang_for_every_gpu_or_for_every_core_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 8)
    assert [gangs_of_this_machine(GangShape(threads=threads)) for threads in (1, 2, 16)] == [8, 4, 1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [gangs_of_this_machine(GangShape(ulysses=ranks)) for ranks in (1, 2, 3, 8)] == [4, 2, 1, 1]


def test_gangs_that_die_too_often_end_the_render_and_leave_no_file(
    model: WanModel, plan: FilmPlan, tmp_path: Path, home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.render.local.gang_pool.MAX_GANG_DEATHS", 0)
    out = tmp_path / "films" / "b.mp4"
    out.parent.mkdir()
    with pytest.raises(Fault, match="1 gangs died"):
        render_film(plan, model=model, out=out, gangs=1, on_progress=killing_gangs({2}))
    assert list(out.parent.iterdir()) == []
    assert own_children() == []


def widen(path: Path) -> None:
    """Give the first tensor of a file of weights another shape."""
    tensors = load_file(path)
    name = min(tensors)
    save_file({**tensors, name: torch.zeros(3, 3, 3)}, path, metadata={"format": "pt"})


def damaged(model: WanModel, folder: Path, component: str) -> WanModel:
    """A copy of a model with a tensor of another shape, opened."""
    copy = shutil.copytree(model.folder, folder)
    widen(next((copy / component).glob("*.safetensors")))
    return open_model(str(copy))


@pytest.mark.parametrize("component", ["transformer", "vae"])
def test_weights_of_another_shape_end_a_render_before_its_first_gang(
    model: WanModel, plan: FilmPlan, tmp_path: Path, home: None, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    monkeypatch.setattr("serving.render.local.film.GangPool", None)
    with pytest.raises(ModelError, match=rf": {component}/diff\S+\.safetensors: \S+ is of shape \[3, 3, 3\]"):
        render_film(plan, model=damaged(model, tmp_path / "model", component), out=tmp_path / "a.mp4", gangs=1)
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("component", ["transformer", "vae"])
def test_weights_that_break_while_a_film_renders_are_told_in_one_line(
    model: WanModel, plan: FilmPlan, tmp_path: Path, home: None, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    broken = damaged(model, tmp_path / "model", component)
    monkeypatch.setattr("serving.render.local.film.check_weight_shapes", lambda checkpoint: None)
    with pytest.raises(ModelError, match=f"cannot load .*/{component}") as caught:
        render_film(replace(plan, model=broken.name), model=broken, out=tmp_path / "a.mp4", gangs=1)
    assert "\n" not in str(caught.value)


def test_the_manifest_says_what_the_film_is(plan: FilmPlan, rendered: Path) -> None:
    manifest = manifest_of(rendered)
    with av.open(str(rendered / "a.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert manifest["frames"] == frames == plan.frames
    assert manifest["storyboard_sha256"] == plan.storyboard_hash
    assert {"cut", "chunk"} == {seam["kind"] for seam in manifest["seams"]}
    assert all("jump_ratio" in seam for seam in manifest["seams"])
    assert manifest["plan"]["calls"] == plan.calls
    assert manifest["numerics"]["threads_per_rank"] == "1"


def test_the_kept_latents_are_those_that_the_manifest_names(rendered: Path, plan: FilmPlan) -> None:
    import hashlib

    for index, take in enumerate(manifest_of(rendered)["takes"]):
        latents = load_file(rendered / "latents" / f"{index:03d}.safetensors")["latents"]
        assert len(latents) == plan.takes[index].latents
        assert hashlib.sha256(latents.numpy().astype("<f4").tobytes()).hexdigest() == take["latents_sha256"]


def test_the_film_shows_what_the_kept_latents_decode_to(model: WanModel, plan: FilmPlan, rendered: Path) -> None:
    """The last take, after a cut: its frames without a dissolve, within what encoding loses."""
    latents = load_file(rendered / "latents" / "002.safetensors")["latents"]
    codec = model.open_codec()
    decoded = np.concatenate([to_pixels(codec.decode(latent)) for latent in latents])
    with av.open(str(rendered / "a.mp4")) as container:
        film = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = np.stack(film[plan.takes[2].shots[0].film.start :])
    assert np.abs(shown.astype(int) - decoded[: len(shown)]).mean() < 12


def test_takes_start_from_noise_of_their_own(model: WanModel, plan: FilmPlan) -> None:
    can = model.capabilities
    recipes = [open_recipe(plan, take, capabilities=can, solver_of=model.solver) for take in plan.takes[:2]]
    first, second = (
        open_timeline(plan, take, capabilities=can, recipe=recipe).latent(0)
        for take, recipe in zip(plan.takes[:2], recipes, strict=True)
    )
    assert not torch.equal(first, second)
