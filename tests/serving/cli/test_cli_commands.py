"""The commands: what they print, where, and that the light ones stay light."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import doctor
from serving.cli.commands import app
from serving.cli.output.progress import PlainLines, describe
from serving.models.testing import write_tiny_checkpoint
from serving.render.local.progress import Progress
from serving.settings import PLAIN_PROGRESS_S
from serving.storyboard import storyboard_schema
from sharding.attention import CudnnCuda
from sharding.ring import OwnMerge

BOARD = """\
version: 1
title: Two takes
model: MODEL
video: {width: 32, height: 48, fps: 8}
shots:
  - {id: open, prompt: a red ball, seconds: 2.06}
  - {id: turn, prompt: a blue box, seconds: 1.5, transition: continue}
  - {id: dusk, prompt: a red ball, seconds: 1, transition: {dissolve: 0.5}}
"""


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.1")


@pytest.fixture
def board(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    path = tmp_path / "board.yaml"
    path.write_text(BOARD.replace("MODEL", str(tiny_model)))
    return path


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_plan_prints_json_with_requested_and_real_lengths(board: Path) -> None:
    plan: dict[str, Any] = json.loads(output_of("plan", str(board), "--json", "--steps", "3"))
    assert (plan["frames"], plan["fps"], plan["steps"]) == (36, 8, 3)
    assert plan["calls"] == sum(take["calls"] for take in plan["takes"])
    assert plan["overlap_waste"] >= 0
    assert [len(take["shots"]) for take in plan["takes"]] == [2, 1]
    assert all(take["latents"] > 0 and len(take["chunks_per_step"]) == 3 for take in plan["takes"])
    opening = plan["takes"][0]["shots"][0]
    assert (opening["requested_seconds"], opening["real_seconds"], opening["frames"]) == (2.06, 2.0, 16)
    assert plan["estimate"]["seconds"] > 0
    assert plan["estimate"]["weights_bytes"] > 0


def test_plan_prints_tables_for_people(board: Path) -> None:
    text = output_of("plan", str(board), "--steps", "3")
    assert "Two takes: 36 frames, 4.50 seconds at 32x48, 8 fps, 3 steps" in text
    for word in (
        "asked s",
        "real s",
        "2.06",
        "continue",
        "dissolve 0.5 s",
        "per step",
        "evaluations",
        "overlap waste",
    ):
        assert word in text


def test_schema_prints_the_schema() -> None:
    assert json.loads(output_of("schema")) == storyboard_schema()


def test_models_are_listed_for_people_and_programs() -> None:
    listed = json.loads(output_of("models", "--json"))
    assert listed[0]["name"] == "pocket"
    assert "pocket" in output_of("models")


def test_version_is_printed() -> None:
    assert output_of("--version").strip().count(".") == 2


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Finding:
        raise OSError("no disk")

    well = doctor.Finding("well", "ok", "fine")
    ill = doctor.Finding("ill", "warn", "so so", "[rest]")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: well, lambda: ill))
    assert "-> [rest]" in output_of("doctor")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: well, broken))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)[1]["found"] == "OSError: no disk"


@pytest.mark.parametrize("check", [check for check in doctor.CHECKS if check is not doctor.check_pocket])
def test_each_check_of_the_doctor_works_here(check: Any) -> None:
    finding = check()
    assert finding.state in ("ok", "warn")
    assert bool(finding.fix) == (finding.state != "ok")


def test_the_doctor_says_that_no_gang_has_used_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untried(OwnMerge):
        name = "xformers_merge"
        verified = False

    monkeypatch.setattr("sharding.attention.choose_backend", lambda device: CudnnCuda(Untried()))
    finding = doctor.check_attention()
    assert finding.state == "warn"
    assert finding.found.startswith("torch_cudnn+xformers_merge in gangs of several ranks; unverified: xformers_merge")
    monkeypatch.setattr("sharding.attention.choose_backend", lambda device: CudnnCuda())
    assert doctor.check_attention().found == "torch_cudnn in gangs of several ranks"


def progress(calls: int, encoded: int = 0, left: float | None = None) -> Progress:
    return Progress(
        calls_done=calls,
        calls_total=100,
        latents_finished=calls // 10,
        latents_total=10,
        frames_encoded=encoded,
        frames_total=160,
        seconds_left=left,
    )


def test_progress_is_one_line_with_calls_latents_film_and_time_left() -> None:
    line = describe(progress(42, encoded=24, left=75.4), fps=16)
    assert line == "calls 42/100, latents 4/10, film 1.5/10.0 s, 1:15 left"
    assert describe(progress(0), fps=16) == "calls 0/100, latents 0/10, film 0.0/10.0 s"


def test_without_a_terminal_lines_come_seldom_and_the_last_one_always() -> None:
    lines: list[str] = []
    clock = iter([0.0, 1.0, PLAIN_PROGRESS_S, PLAIN_PROGRESS_S + 1, PLAIN_PROGRESS_S + 2])
    write = PlainLines(fps=16, write=lines.append, now=lambda: next(clock))
    for step in (progress(1), progress(2), progress(3), progress(4), progress(100, encoded=160)):
        write(step)
    assert [line.split(",")[0] for line in lines] == ["calls 1/100", "calls 3/100", "calls 100/100"]


def test_the_command_line_starts_without_torch_pydantic_or_diffusers() -> None:
    heavy = ("torch", "diffusers", "pydantic", "av")
    script = f"import sys, serving.cli.commands; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
