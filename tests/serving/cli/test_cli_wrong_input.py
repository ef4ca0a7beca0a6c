"""Wrong input at the real entry point: exit 2, every mistake told, no traceback, no file, bounded memory and time."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LONGTAKE = Path(sys.executable).parent / "longtake"
TIME_LIMIT_S = 30
MEMORY_LIMIT_BYTES = 3 << 30

GOOD = "version: 1\nshots:\n  - {id: a, prompt: a red ball, seconds: 1}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


def longtake(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the real executable in `folder` with a limit on its memory and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))

    return subprocess.run(
        [str(LONGTAKE), *arguments],
        cwd=folder,
        env={**os.environ, "LONGTAKE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        preexec_fn=limit,
    )


def told(result: subprocess.CompletedProcess[str]) -> str:
    """What a refused command said, after checking that it was refused as it should be."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD + "  - {seconds: 1}\n", ["line 4: shots[1].prompt", "is missing"]),
        (
            GOOD + "  - {prompt: x, secnds: -7}\n  - {prompt: '{heor}', seconds: 1}\ncharacters: {hero: x}\n",
            ["line 4: shots[1].secnds", "'seconds'", "line 5: shots[2].prompt", "'heor'", "'hero'"],
        ),
        (GOOD + "  - {prompt: x, seconds: -2}\n", ["line 4: shots[1].seconds", "above 0", "got -2"]),
        (GOOD + "  - {prompt: x, seconds: 1e30}\n", ["shots[1].seconds", "at most 600", "1e+30"]),
        (GOOD + "model: pockt\n", ["line 4: model", "'pockt'", "'pocket'"]),
        (GOOD + "  - {prompt: x, seconds: 1}\n" * 30_000, ["at most 20000 values"]),
        (BOMB, ["at most 20000 values"]),
        (GOOD.encode("utf-16"), ["UTF-8"]),
        ("", ["empty"]),
        (GOOD + "\t- x\n", ["line 4", "spaces"]),
        ("version: 1\nshots: " + "[" * 100_000, ["line 2", "nested"]),
    ],
    ids=[
        "missing prompt", "unknown key and character", "negative", "huge", "unknown model", "many shots", "alias bomb",
        "not UTF-8", "empty", "tab", "deep",
    ],
)  # fmt: skip
def test_a_bad_storyboard_is_told_and_leaves_no_file(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    (tmp_path / "bad.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    message = told(longtake("render", "bad.yaml", "-o", "film.mp4", folder=tmp_path))
    assert all(word in message for word in words), message
    assert all(line.startswith("longtake: bad.yaml: ") for line in message.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_billion_shots_are_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.write(GOOD.encode())
        file.truncate(40 * 10**9)  # sparse: as large as a billion shots, and takes no disk
    assert "at most 1024 KiB" in told(longtake("plan", "huge.yaml", folder=tmp_path))


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
        (lambda path: path.symlink_to("/dev/zero"), "at most 1024 KiB"),
        (lambda path: path.symlink_to("/dev/null"), "empty"),
    ],
    ids=["folder", "missing", "endless", "nothing"],
)
def test_what_is_no_file_is_told(tmp_path: Path, prepare: Callable[[Path], None], words: str) -> None:
    prepare(tmp_path / "board.yaml")
    assert words in told(longtake("plan", "board.yaml", folder=tmp_path))


@pytest.mark.parametrize(
    ("out", "words"),
    [("film.avi", "end with .mp4"), ("missing/film.mp4", "no folder missing"), ("folder.mp4", "is a folder")],
)
def test_a_film_that_could_not_be_written_is_refused_before_rendering(tmp_path: Path, out: str, words: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "folder.mp4").mkdir()
    assert words in told(longtake("render", "good.yaml", "-o", out, folder=tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "good.yaml"],
        ["render", "good.yaml", "-o", "f.mp4", "--steps", "0"],
        ["plan", "--stpes", "3"],
        ["rendr"],
    ],
    ids=["no --out", "no steps", "unknown option", "unknown command"],
)
def test_a_wrong_command_line_is_the_users_mistake(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    told(longtake(*arguments, folder=tmp_path))


def test_an_unknown_model_on_the_command_line_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    message = told(longtake("plan", "good.yaml", "--model", "pockt", folder=tmp_path))
    assert "--model" in message
    assert "'pocket'" in message


def test_a_fault_of_ours_is_one_line_and_a_file_with_the_traceback(tmp_path: Path) -> None:
    # No room for a traceback's file elsewhere: TMPDIR makes it land in the test's folder.
    script = (
        "import serving.cli.main as main, serving.storyboard as board\n"
        "def broken(path): raise RuntimeError('something broke')\n"
        "board.load_storyboard = broken\n"
        "import sys; sys.argv = ['longtake', 'plan', 'x.yaml']\n"
        "main.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "internal error: RuntimeError: something broke" in result.stderr
    (kept,) = tmp_path.iterdir()
    assert str(kept) in result.stderr
    assert "Traceback" in kept.read_text()
