"""The real command in a process of its own: rendered, killed and repeated."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from serving.models.testing import write_tiny_checkpoint

LONGTAKE = Path(sys.executable).with_name("longtake")
PATIENCE_S = 120.0
STORYBOARD = """
version: 1
shots:
  - {id: one, prompt: a red ball, seconds: 4}
  - {id: two, prompt: a blue ball, seconds: 3, transition: continue}
  - {id: three, prompt: a box, seconds: 2, transition: {dissolve: 0.5}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.1")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "storyboard.yaml").write_text(STORYBOARD)
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


def command(tiny: Path, films: Path, *, steps: int, gangs: int) -> list[str]:
    storyboard, out = films.parent / "storyboard.yaml", films / "film.mp4"
    options = ["--model", str(tiny), "--steps", str(steps), "--gangs", str(gangs), "--json"]
    return [str(LONGTAKE), "render", str(storyboard), "-o", str(out), *options]


def environment(films: Path) -> dict[str, str]:
    return {**os.environ, "LONGTAKE_HOME": str(films.parent / "home")}


def eventually(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


@contextmanager
def rendering(tiny: Path, films: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A long render that has begun to write its film, and the processes that it started."""
    with subprocess.Popen(
        command(tiny, films, steps=80, gangs=2),
        env=environment(films),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            partial = films / ".film.mp4.partial"
            eventually(lambda: partial.exists() or process.poll() is not None, "a film is begun")
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield process, psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()


@pytest.mark.slow
def test_a_killed_render_leaves_no_process_and_repeated_gives_the_film(tiny: Path, films: Path) -> None:
    with rendering(tiny, films) as (process, children):
        process.kill()
        process.wait(timeout=PATIENCE_S)
    eventually(lambda: not any(child.is_running() for child in children), "its processes end")
    two = render(tiny, films, gangs=2)
    manifest = json.loads(two.stdout)
    assert manifest["frames"] == manifest["plan"]["frames"], "progress goes to stderr, and only JSON to stdout"
    assert "calls" in two.stderr
    assert json.loads((films / "film.json").read_text()) == manifest
    assert json.loads(render(tiny, films, gangs=1).stdout)["sha256"] == manifest["sha256"]
    assert sorted(path.name for path in films.iterdir()) == ["film.json", "film.mp4"]


def render(tiny: Path, films: Path, *, gangs: int) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command(tiny, films, steps=2, gangs=gangs),
        env=environment(films),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
