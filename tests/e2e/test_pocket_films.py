"""The examples, rendered with the checkpoint that ships: what the command promises, seen by its real entry point."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from serving.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
LONGTAKE = Path(sys.executable).with_name("longtake")
PICTURES = ROOT / "examples" / "pictures"
EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), PICTURES / "film.yaml"])


def longtake(*arguments: object, home: Path) -> Any:
    done = subprocess.run(
        [str(LONGTAKE), *map(str, arguments)],
        env={**os.environ, "LONGTAKE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def file_of(sha256: str) -> Path:
    """The picture beside the example that has this hash."""
    return next(path for path in PICTURES.glob("*.png") if hashlib.sha256(path.read_bytes()).hexdigest() == sha256)


@pytest.mark.slow
def test_the_pictures_of_the_example_are_those_that_its_program_draws(tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in PICTURES.glob("*.png")}
    copied = tmp_path / "draw.py"
    copied.write_text((PICTURES / "draw.py").read_text())
    subprocess.run([sys.executable, str(copied)], check=True, cwd=ROOT)
    drawn = {path.name: path for path in tmp_path.glob("*.png")}
    assert before.keys() == drawn.keys()
    for name, path in drawn.items():
        with Image.open(path) as mine, Image.open(PICTURES / name) as theirs:
            assert list(mine.get_flattened_data()) == list(theirs.get_flattened_data()), name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_planned(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["plan", str(example), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["frames"] > 0
    assert plan["calls"] == sum(sum(take["chunks_per_step"]) for take in plan["takes"])
    assert 0 <= plan["overlap_waste"] < 0.35


@pytest.mark.slow
def test_the_demo_has_the_same_bytes_on_one_gang_and_on_two_and_shows_its_shots(tmp_path: Path) -> None:
    example = PICTURES / "film.yaml"
    films = []
    for gangs in (1, 2):
        folder = tmp_path / str(gangs)
        folder.mkdir()
        out = folder / "film.mp4"
        films.append(longtake("render", example, "-o", out, "--steps", 4, "--gangs", gangs, "--json", home=tmp_path))
        assert films[-1]["sha256"] == json.loads((folder / "film.json").read_text())["sha256"]
    manifest, other = films
    assert manifest["sha256"] == other["sha256"]
    assert [take["latents_sha256"] for take in manifest["takes"]] == [take["latents_sha256"] for take in other["takes"]]
    with av.open(str(tmp_path / "1" / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == manifest["frames"] >= 9 * manifest["fps"]
    transitions = [shot["transition"] for take in manifest["plan"]["takes"] for shot in take["shots"]]
    assert {"cut", "dissolve"} <= set(transitions)
    seen = [picture for take in manifest["plan"]["takes"] for picture in take.get("pictures", [])]
    assert [picture["place"] for picture in seen] == ["first", "keyframe", "last", "first", "first"]
    for picture in seen[:4]:  # the fifth begins its shot in the middle of a dissolve
        shown = np.asarray(Image.open(file_of(picture["asset"])).convert("RGB")).astype(int)
        error = np.abs(frames[min(picture["real_frame"], len(frames) - 1)] - shown).mean() / 255
        assert error < 0.05, f"{picture['place']} of {picture['shot']} is not seen at its frame"
    differences = [float(np.abs(a.astype(int) - b).mean()) for a, b in itertools.pairwise(frames)]
    assert max(differences) > 10, "a cut is nowhere to be seen"
    assert np.median(differences) > 0.05, "nothing moves"
