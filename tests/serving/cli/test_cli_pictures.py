"""Pictures on the command line: found beside the storyboard, mistakes told before anything starts, sent once."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from serving.cli import pictures
from serving.cli.commands import app
from serving.config.farm import PoolConfig
from serving.errors import UserError
from serving.models.testing import write_tiny_checkpoint
from testkit.picture_files import drawing, written
from tests.serving.api.api_double import ApiDouble, running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Takes first pictures."""
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("model"), "2.2-5b"))


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[ApiDouble]:
    pools = (PoolConfig(name="default", model=model),)
    with running(tmp_path_factory.mktemp("farm"), pools=pools, assets={"upload_bytes": 1 << 16}) as double:
        yield double


@pytest.fixture
def folder(farm: ApiDouble, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storyboard in a folder of its own, with its pictures."""
    monkeypatch.setenv("LONGTAKE_URL", farm.url)
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    films = tmp_path / "films"
    (films / "pix").mkdir(parents=True)
    (films / "pix" / "open.png").write_bytes(written(drawing(64, 96), "PNG"))
    (films / "film.yaml").write_text(board(model, "pix/open.png"))
    return films


def board(model: str, *images: str) -> str:
    shots = "".join(f"  - {{id: s{k}, prompt: a ball, seconds: 1, image: {image}}}\n" for k, image in enumerate(images))
    return f"version: 1\nmodel: {model}\nquality: draft\nshots:\n{shots}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def asset_id(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_picture_is_found_beside_the_storyboard_and_the_plan_says_where_it_lands(folder: Path) -> None:
    result = run("plan", folder / "film.yaml")
    assert result.exit_code == 0, result.output
    assert asset_id(folder / "pix" / "open.png")[7:19] in result.stdout


@pytest.mark.parametrize("command", ["plan", "quote", "submit"])
def test_every_picture_that_cannot_be_used_is_told_at_once(
    folder: Path, farm: ApiDouble, model: str, command: str
) -> None:
    (folder / "pix" / "notes.png").write_text("no picture")
    short = written(drawing(64, 96), "PNG")
    (folder / "pix" / "short.png").write_bytes(short[: len(short) // 2])
    (folder / "film.yaml").write_text(board(model, "pix/opn.png", "pix/notes.png", "pix/short.png", "pix"))
    before = farm.http.get("/v1/jobs").json()["data"]
    with pytest.raises(UserError) as caught:
        run(command, folder / "film.yaml")
    told = str(caught.value)
    assert "shots[0].image: there is no such file" in told
    assert "did you mean 'open.png'?" in told
    assert "shots[1].image: is no PNG, JPEG, WebP or AVIF picture" in told
    assert "shots[2].image: is cut short or damaged" in told
    assert "shots[3].image: cannot be read: Is a directory" in told
    assert farm.http.get("/v1/jobs").json()["data"] == before


@pytest.mark.parametrize("picture", ["https://example.com/a.png", f"sha256:{'0' * 64}"])
def test_a_render_on_this_machine_reads_files_alone(folder: Path, model: str, picture: str) -> None:
    (folder / "film.yaml").write_text(board(model, f'"{picture}"'))
    with pytest.raises(UserError, match="must be the path of a file here"):
        run("render", folder / "film.yaml", "-o", folder / "film.mp4")
    assert not (folder / "film.mp4").exists()


def test_submit_sends_what_the_farm_does_not_have_and_nothing_twice(
    folder: Path, farm: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("submit", folder / "film.yaml")
    assert first.exit_code == 0, first.output
    assert "1 picture sent" in first.stderr
    job = farm.http.get(f"/v1/jobs/{first.stdout.strip()}/storyboard").json()
    assert job["shots"][0]["image"] == asset_id(folder / "pix" / "open.png")
    again = run("submit", folder / "film.yaml")
    assert again.exit_code == 0, again.output
    assert "sent" not in again.stderr


def test_a_quote_and_a_dry_run_send_nothing(folder: Path, farm: ApiDouble, model: str) -> None:
    other = folder / "pix" / "other.png"
    other.write_bytes(written(drawing(70, 90), "PNG"))
    (folder / "film.yaml").write_text(board(model, "pix/open.png"))
    job = run("submit", folder / "film.yaml").stdout.strip()
    (folder / "film.yaml").write_text(board(model, "pix/other.png"))
    assert run("quote", folder / "film.yaml").exit_code == 0
    assert run("revise", job, folder / "film.yaml", "--dry-run").exit_code == 0
    assert farm.http.head(f"/v1/assets/{asset_id(other)}").status_code == 404
    assert run("revise", job, folder / "film.yaml", "--yes").exit_code == 0
    assert farm.http.head(f"/v1/assets/{asset_id(other)}").status_code == 200


def test_a_large_picture_goes_in_pieces_and_goes_on_where_it_was_broken_off(
    folder: Path, farm: ApiDouble, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PIECE_BYTES", 50_000)
    pixels = random.Random(3).randbytes(3 * 200 * 200)
    large = folder / "pix" / "large.png"
    large.write_bytes(written(Image.frombytes("RGB", (200, 200), pixels), "PNG"))
    content, total = large.read_bytes(), large.stat().st_size
    assert total > 100_000
    begun: dict[str, Any] = {"id": asset_id(large), "offset": 0, "total": total}
    assert farm.http.post("/v1/assets", content=content[:50_000], params=begun).status_code == 202
    (folder / "film.yaml").write_text(board(model, "pix/large.png"))
    result = run("submit", folder / "film.yaml")
    assert result.exit_code == 0, result.output
    assert f"1 picture sent, {(total - 50_000) / 1024:.0f} KiB" in result.stderr
    assert farm.http.get(f"/v1/assets/{asset_id(large)}").content == content
