"""The Dockerfile, as far as it can be judged without building it: the linter's word, and what every image must be."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.charts.chart_rendering import DEFAULTS, ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"

Step = tuple[str, str]
"""An instruction and what stands behind it."""


def stages() -> dict[str, list[Step]]:
    """The instructions of each stage, by its name; those before the first one under ''."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    found: dict[str, list[Step]] = {"": []}
    name = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            name = rest.partition(" AS ")[2]
        if instruction:
            found.setdefault(name, []).append((instruction, rest.strip()))
    return found


STAGES = stages()
IMAGES = ("cpu", "cuda")


def ancestry(name: str) -> list[Step]:
    """All instructions that an image is made by."""
    base = STAGES[name][0][1].partition(" AS ")[0]
    return [*(ancestry(base) if base in STAGES else []), *STAGES[name]]


def test_the_linter_has_no_complaint() -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    assert linter.exists(), "hadolint is not there; `make .venv/ready` gets it"
    done = subprocess.run([str(linter), "--strict-labels", str(DOCKERFILE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_linter_would_complain(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /x && apt-get install wget\n")
    done = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "hadolint"), str(tmp_path / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "DL3006" in done.stdout


def test_the_base_is_pinned_and_has_the_python_that_is_tested() -> None:
    (base,) = (rest for instruction, rest in STAGES[""] if instruction == "ARG")
    found = re.fullmatch(r"BASE=python:(\d+\.\d+)\.\d+-slim-bookworm", base)
    assert found, base
    assert found[1] == f"{sys.version_info.major}.{sys.version_info.minor}"
    bases = {steps[0][1].partition(" AS ")[0] for name, steps in STAGES.items() if name}
    assert bases == {"${BASE}", "runtime"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_the_user_of_the_chart(image: str) -> None:
    users = [rest for instruction, rest in ancestry(image) if instruction == "USER"]
    context = DEFAULTS["podSecurityContext"]
    assert users == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert STAGES[image][-2][0] == "USER", "nothing runs as root after it"


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_that_builds_is_left_in_an_image(image: str) -> None:
    text = "\n".join(rest for _, rest in ancestry(image))
    assert not re.search(r"gcc|g\+\+|build-essential|python3?-dev|curl|git\b", text)
    assert "pip uninstall --yes pip setuptools" in text
    copied = [rest for instruction, rest in ancestry(image) if instruction == "COPY"]
    assert copied == [f"--from=packages-{image} /opt/longtake /opt/longtake"]
    assert any("pip uninstall --yes pip" in rest for _, rest in STAGES[f"packages-{image}"])


def test_what_kuberay_asks_with_is_in_the_image() -> None:
    assert any("install --yes --no-install-recommends wget" in rest for _, rest in STAGES["runtime"])


def test_every_package_is_installed_as_the_constraints_pin_it() -> None:
    for steps in STAGES.values():
        for _, rest in steps:
            for command in rest.split("&&"):
                if "pip install" in command:
                    assert "--constraint" in command
                    assert "--no-cache-dir" in command


def copied_from_the_tree() -> set[str]:
    """What the Dockerfile takes from the working tree."""
    found: set[str] = set()
    for steps in STAGES.values():
        for instruction, rest in steps:
            if instruction == "COPY" and not rest.startswith("--from"):
                found |= {source.rstrip("/") for source in rest.split()[:-1]}
    return found


def test_what_is_copied_exists_and_is_all_that_travels() -> None:
    assert all((ROOT / source).exists() for source in copied_from_the_tree())
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied_from_the_tree()


def test_what_the_wheel_is_made_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, project["project"]["readme"], "LICENSE", "pyproject.toml"} <= copied_from_the_tree()


def test_the_constraints_of_the_cuda_image_contradict_nothing(tmp_path: Path) -> None:
    """The two commands that make them, run for real."""
    (script,) = (rest for instruction, rest in STAGES["packages-cuda"] if instruction == "RUN" and "overridden" in rest)
    commands = [part.strip() for part in script.split("&&")][:3]
    assert [command.split()[0] for command in commands] == ["sed", "grep", "cat"]
    made = subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            f"cp constraints*.txt $FOLDER && cd $FOLDER && {' && '.join(commands)} && cat pinned",
        ],
        cwd=ROOT,
        env={"FOLDER": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    pins = dict(line.split("==") for line in made.stdout.splitlines() if fnmatch.fnmatch(line, "[a-zA-Z]*==*"))
    names = [line.split("==")[0] for line in made.stdout.splitlines() if fnmatch.fnmatch(line, "[a-zA-Z]*==*")]
    assert len(names) == len(set(names)), "a package is pinned twice"
    cuda = dict(line.split("==") for line in (ROOT / "constraints-cuda.txt").read_text().splitlines() if "==" in line)
    assert cuda.items() <= pins.items()
    assert "ray" in pins


def test_the_chart_names_the_images() -> None:
    assert (DEFAULTS["image"]["repository"], DEFAULTS["gpuImage"]["repository"]) == ("longtake", "longtake-cuda")
