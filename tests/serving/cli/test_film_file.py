"""Where films are written: what cannot be is refused before any work, and no file of a user's is ever replaced."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.cli.output.film_file import STDOUT, check_film, check_latents_folder, check_room, open_film
from serving.errors import OutOfSpace, UserError
from serving.models.testing import write_tiny_checkpoint

LONGTAKE = Path(sys.executable).parent / "longtake"
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""A process that may write only small files would leave bytecode that is cut short: Python 3.11 does not notice."""
BOARD = """\
version: 1
model: MODEL
quality: draft
video: {width: 32, height: 48}
shots: [{prompt: a red ball, seconds: 1}]
"""


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("film.avi", "must end with .mp4"),
        ("missing/film.mp4", "there is no folder"),
        ("x" * 300 + ".mp4", "the name is too long"),
        ("x" * 251 + ".mp4", "the name is too long"),
        ("é" * 120 + ".mp4", "the name is too long"),
        ("board.mp4", "is what the film is made from"),
        ("link.mp4", "is what the film is made from"),
    ],
)
def test_a_film_that_cannot_be_written_is_refused(tmp_path: Path, out: str, words: str) -> None:
    (tmp_path / "board.mp4").write_text(BOARD)
    (tmp_path / "link.mp4").symlink_to("board.mp4")
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=words):
        check_film(tmp_path / out, reads=[tmp_path / "board.mp4"], with_manifest=True)
    assert files_in(tmp_path) == before


def test_the_longest_name_that_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    check_film(tmp_path / ("x" * 228 + ".mp4"), with_manifest=True)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_never_replaces_a_file_that_is_none(tmp_path: Path) -> None:
    board, manifest = tmp_path / "board.yaml", tmp_path / "film.json"
    manifest.write_text('{"version": 1, "shots": []}')
    for reads, words in (([manifest], "would replace the storyboard"), ([board], "is not a film's manifest")):
        with pytest.raises(UserError, match=words):
            check_film(tmp_path / "film.mp4", reads=reads, with_manifest=True)
    check_film(tmp_path / "film.mp4", reads=[board])  # no manifest is written
    manifest.write_text(json.dumps({"manifest_version": 1, "storyboard_sha256": "ab"}))
    check_film(tmp_path / "film.mp4", reads=[board], with_manifest=True)


def test_latents_never_replace_a_file_that_holds_something_else(tmp_path: Path) -> None:
    check_latents_folder(tmp_path / "new", ["000.safetensors"])
    weights = tmp_path / "000.safetensors"
    weights.write_bytes(b"somebody's weights")
    with pytest.raises(UserError, match=r"--keep-latents: .*does not hold a take's latents"):
        check_latents_folder(tmp_path, ["000.safetensors"])
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_latents_folder(weights, [])
    with pytest.raises(UserError, match="there is no folder"):
        check_latents_folder(tmp_path / "a" / "b", [])
    assert files_in(tmp_path) == {"000.safetensors": b"somebody's weights"}


@pytest.mark.parametrize(("number", "kind"), [(13, UserError), (30, UserError), (28, OutOfSpace)])
def test_a_folder_that_takes_no_file_is_told_before_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    checks: list[Callable[[], None]] = [
        lambda: check_film(tmp_path / "film.mp4"),
        lambda: check_latents_folder(tmp_path, []),
    ]
    for check in checks:
        with pytest.raises(kind, match=os.strerror(number)):
            check()


def test_a_disk_without_room_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3 << 20))
    check_room({tmp_path: 1 << 20, tmp_path / "latents": 2 << 20})
    with pytest.raises(OutOfSpace, match=r"no room on .*: 3\.5 MiB are needed, 3\.0 MiB are free"):
        check_room({tmp_path: 1 << 20, tmp_path / "latents": 5 << 19})


def test_a_film_for_stdout_goes_there_whole(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_film(STDOUT) as path:
        path.write_bytes(b"the film")
    assert capfdbinary.readouterr().out == b"the film"
    assert not path.exists()
    with pytest.raises(UserError, match="--json: does not go with"):
        check_film(STDOUT, as_json=True)


def render(
    folder: Path, *arguments: str, file_bytes: int | None = None, text: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    model = write_tiny_checkpoint(folder / "tiny", "2.1") if not (folder / "tiny").exists() else folder / "tiny"
    (folder / "board.yaml").write_text(BOARD.replace("MODEL", str(model)))
    return subprocess.run(
        [str(LONGTAKE), "render", *arguments],
        cwd=folder,
        env={**os.environ, **NO_BYTECODE, "LONGTAKE_HOME": str(folder / "home"), "TMPDIR": str(folder)},
        input=None if text is None else text.encode(),
        capture_output=True,
        preexec_fn=limit,
        timeout=300,
    )


def test_a_disk_that_fills_up_while_rendering_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    result = render(tmp_path, "board.yaml", "-o", "here/film.mp4", file_bytes=700)
    assert result.returncode == 1
    told = [line for line in result.stderr.decode().splitlines() if line.startswith("longtake: ")]
    assert told == ["longtake: no room on here: the disk was full before the film was complete; nothing is left of it"]
    assert b"Traceback" not in result.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_a_storyboard_from_a_pipe_becomes_a_film_in_a_pipe(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", "2.1")
    result = render(tmp_path, "-", "-o", "-", text=BOARD.replace("MODEL", "./tiny"))
    assert result.returncode == 0, result.stderr
    assert result.stdout[4:8] == b"ftyp"
    assert b"film" in result.stderr  # progress
    assert not list(tmp_path.glob("longtake-*"))
