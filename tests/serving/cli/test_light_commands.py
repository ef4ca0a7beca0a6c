"""Commands that only read configs and files start without what rendering needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "diffusers", "transformers", "ray", "av", "sqlalchemy", "fastapi")

BOARD = """
version: 1
title: a light one
model: pocket
video: {width: 96, height: 64, fps: 16}
quality: draft
shots:
  - {id: one, prompt: a red ball, seconds: 1}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(folder: Path, home: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of a command, and which heavy modules it had imported at its end."""
    program = (
        "import sys\nfrom serving.cli.main import main\n"
        f"sys.argv = ['longtake', *{list(arguments)!r}]\n"
        "try:\n    main()\n"
        f"finally:\n    print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    (folder / "board.yaml").write_text(BOARD)
    environment = {**os.environ, "LONGTAKE_HOME": str(home), "LONGTAKE_URL": "http://127.0.0.1:9", "PYTHONWARNINGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "internal error" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1].split()[1:]


@pytest.fixture(scope="module")
def measured_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that knows what a call costs: the first plan measures it, and needs torch for that."""
    code, heavy = run(tmp_path_factory.mktemp("first"), home, "plan", "board.yaml")
    assert code == 0
    assert "torch" in heavy
    return home


@pytest.mark.parametrize(
    "arguments",
    [["plan", "board.yaml"], ["plan", "board.yaml", "--json"], ["plan", "board.yaml", "--gpus", "8"]],
)
def test_a_plan_loads_nothing_once_the_cost_of_a_call_is_known(
    tmp_path: Path, measured_home: Path, arguments: list[str]
) -> None:
    assert run(tmp_path, measured_home, *arguments) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["render", "--help"], 0),
        (["models"], 0),
        (["schema"], 0),
        (["status"], 1),
        (["down"], 0),
        (["quote", "board.yaml"], 1),
        (["submit", "board.yaml"], 1),
    ],
)
def test_a_command_that_renders_nothing_loads_nothing(
    tmp_path: Path, home: Path, arguments: list[str], code: int
) -> None:
    assert run(tmp_path, home, *arguments) == (code, [])


def test_opening_a_model_reads_its_configs_alone() -> None:
    program = (
        "import sys\nfrom serving.config.gang_shapes import parts_to_fit\n"
        "from serving.models.registry import open_model\n"
        "parts_to_fit(open_model('pocket'), tokens=100, gpu_gib=80.0)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
