"""The farm's way to a film, from finished latents over stored frames, ends with the bytes of `longtake render`."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors.numpy import load_file

from serving import settings
from serving.errors import ArtifactMissing, ArtifactsUnavailable, ModelError
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from serving.models.wan import WanModel
from serving.planning.compile import compile_storyboard
from serving.planning.plan import FilmPlan
from serving.render.assemble_film import assemble_film
from serving.render.farm_messages import AssembleOrder, Decoded, DecodeOrder
from serving.render.frames import read_frames
from serving.render.latent_preview import learned_rgb
from serving.render.local.film import render_film
from serving.render.messages import Array
from serving.render.take_decoder import TakeDecoder
from serving.store.artifact_keys import film_artifact, frames_artifact, head_artifact
from serving.store.artifact_writers import Source
from serving.store.artifacts import Artifacts
from serving.store.latents import write_latents
from serving.storyboard import parse_storyboard

STORYBOARD = b"""
version: 1
seed: 3
shots:
  - {id: a, prompt: a red ball moving right, seconds: 2}
  - {id: b, prompt: a red ball bouncing, seconds: 1, transition: continue}
  - {id: c, prompt: a blue box, seconds: 1.4, transition: {dissolve: 0.5}}
  - {id: d, prompt: a star, seconds: 1.1}
"""


@dataclass(frozen=True)
class Rendered:
    """A film that was rendered in one process, and what the farm would make it from."""

    model: WanModel
    plan: FilmPlan
    film: bytes
    manifest: dict[str, Any]
    latents: list[Array]

    def order(self, index: int) -> DecodeOrder:
        return DecodeOrder(self.plan, self.plan.takes[index], content_key(index))


def content_key(index: int) -> str:
    return f"{index:064x}"


@pytest.fixture(scope="module", params=["tiny", pytest.param("pocket", marks=pytest.mark.slow)])
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render("tiny", tmp_path_factory.mktemp("tiny"))


def render(kind: str, folder: Path) -> Rendered:
    model = open_model("pocket" if kind == "pocket" else str(write_tiny_checkpoint(folder / "model", "2.1")))
    storyboard = parse_storyboard(STORYBOARD)
    plan = compile_storyboard(storyboard, model_name=model.name, capabilities=model.capabilities, steps=3)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LONGTAKE_HOME", str(folder / "home"))
        manifest = render_film(plan, model=model, out=folder / "film.mp4", gangs=1, keep_latents=folder / "latents")
    latents = [load_file(folder / "latents" / f"{k:03d}.safetensors")["latents"] for k in range(len(plan.takes))]
    return Rendered(model, plan, (folder / "film.mp4").read_bytes(), manifest, latents)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts.open(str(tmp_path / "artifacts"), patience_s=0.3)


@pytest.fixture
def decoder(artifacts: Artifacts, tmp_path: Path) -> TakeDecoder:
    return TakeDecoder(artifacts, tmp_path / "scratch", sessions=8)


def count_frames(content: bytes) -> int:
    with av.open(io.BytesIO(content), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def decode_in_pieces(decoder: TakeDecoder, order: DecodeOrder, latents: Array, *, size: int = 3) -> Decoded:
    decoded = Decoded(0, 0, complete=False)
    while not decoded.complete:
        start = decoded.latents
        decoded = decoder.decode(order, start, latents[start : start + size])
        assert decoded.latents > start
    return decoded


def assemble(rendered: Rendered, artifacts: Artifacts, scratch: Path) -> dict[str, Any]:
    order = AssembleOrder(
        job_id="job_1",
        plan=rendered.plan,
        content_keys=tuple(content_key(k) for k in range(len(rendered.plan.takes))),
        numerics=rendered.manifest["numerics"],
        timings={"total_s": 1.0},
        gangs=1,
    )
    return assemble_film(order, artifacts, scratch).film


def keep_all(rendered: Rendered, artifacts: Artifacts, decoder: TakeDecoder) -> None:
    """Latents and frames of every take, the last takes first."""
    for k in reversed(range(len(rendered.plan.takes))):
        write_latents(artifacts, content_key(k), rendered.latents[k])
        assert decoder.decode_stored(rendered.order(k)).complete


# ------------------------------------------------------------------------------------------------------ films


def test_the_film_of_stored_frames_has_the_bytes_of_one_rendered_in_one_process(
    rendered: Rendered, artifacts: Artifacts, decoder: TakeDecoder, tmp_path: Path
) -> None:
    keep_all(rendered, artifacts, decoder)
    film = assemble(rendered, artifacts, tmp_path)
    assert artifacts.get(film_artifact("job_1")) == rendered.film
    assert film == {key: rendered.manifest[key] for key in film}
    assert set(film) == {"sha256", "frames", "seconds", "bytes", "width", "height", "fps"}

    manifest = json.loads(artifacts.get(film_artifact("job_1", "film.json")))
    assert set(manifest) == set(rendered.manifest)
    for key in set(manifest) - {"timings", "gangs"}:
        assert manifest[key] == rendered.manifest[key], key
    for name in ("thumbnail.jpg", "spritesheet.jpg"):
        assert count_frames(artifacts.get(film_artifact("job_1", name))) == 1
    assert files_in(tmp_path / "scratch") == []


@pytest.mark.slow
def test_the_farm_works_the_same_on_a_bucket(tiny: Rendered, s3_url: str, tmp_path: Path) -> None:
    artifacts = Artifacts.open(s3_url)
    keep_all(tiny, artifacts, TakeDecoder(artifacts, tmp_path / "scratch", sessions=8))
    assert assemble(tiny, artifacts, tmp_path)["sha256"] == tiny.manifest["sha256"]


def test_frames_that_were_damaged_are_deleted_and_decoded_again(
    tiny: Rendered, artifacts: Artifacts, decoder: TakeDecoder, tmp_path: Path
) -> None:
    keep_all(tiny, artifacts, decoder)
    key = frames_artifact(content_key(1))
    content = bytearray(artifacts.get(key))
    content[len(content) // 2] ^= 4
    artifacts.put(key, bytes(content))
    with pytest.raises(ArtifactMissing, match="damaged"):
        assemble(tiny, artifacts, tmp_path)
    assert not artifacts.exists(key)
    assert not artifacts.exists(film_artifact("job_1", "film.json"))
    decoder.decode_stored(tiny.order(1))
    assert assemble(tiny, artifacts, tmp_path)["sha256"] == tiny.manifest["sha256"]
    assert files_in(tmp_path / "scratch") == []


def test_a_film_that_lacks_a_take_is_not_made(tiny: Rendered, artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing):
        assemble(tiny, artifacts, tmp_path)
    assert artifacts.list("films") == []


# ------------------------------------------------------------------------------------------------------ decoding


def test_frames_do_not_depend_on_the_pieces_that_latents_come_in_nor_on_lost_sessions(
    tiny: Rendered, artifacts: Artifacts, tmp_path: Path
) -> None:
    order, latents = tiny.order(0), tiny.latents[0]
    latents.flags.writeable = False
    decode_in_pieces(TakeDecoder(artifacts, tmp_path / "one", sessions=8), order, latents, size=1)
    frames = artifacts.get(frames_artifact(order.content_key))
    artifacts.delete([frames_artifact(order.content_key)])

    lost = TakeDecoder(artifacts, tmp_path / "two", sessions=8)
    assert lost.decode(order, 0, latents[:5]) == Decoded(5, 17, complete=False)
    again = TakeDecoder(
        artifacts, tmp_path / "two", sessions=8
    )  # as after a kill: the folder is what the lost one left
    assert again.decode(order, 5, latents[5:8]) == Decoded(0, 0, complete=False)
    assert again.decode(order, 0, latents[:4]).latents == 4
    assert again.decode(order, 2, latents[2:7]).latents == 7
    assert again.decode(order, 0, latents[:3]).latents == 7
    assert again.decode(order, 7, latents[7:]).complete
    assert artifacts.get(frames_artifact(order.content_key)) == frames
    assert files_in(tmp_path / "two") == []


def test_frames_are_those_of_the_take_with_its_handles_and_without_surplus(
    tiny: Rendered, artifacts: Artifacts, decoder: TakeDecoder, tmp_path: Path
) -> None:
    takes = tiny.plan.takes
    assert any(take.surplus for take in takes)
    assert any(take.head or take.tail for take in takes)
    for k, take in enumerate(takes):
        decoded = decode_in_pieces(decoder, tiny.order(k), tiny.latents[k])
        assert decoded.frames == take.frames - take.surplus
        artifacts.get_to_file(frames_artifact(content_key(k)), tmp_path / "frames.mkv")
        assert sum(1 for _ in read_frames(tmp_path / "frames.mkv", frames=decoded.frames)) == decoded.frames


def test_a_take_whose_frames_are_kept_is_complete_without_decoding(
    tiny: Rendered, artifacts: Artifacts, decoder: TakeDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decode_in_pieces(decoder, tiny.order(0), tiny.latents[0])
    monkeypatch.setattr(WanModel, "open_codec", lambda self: pytest.fail("it was decoded again"))
    assert TakeDecoder(artifacts, tmp_path / "two", sessions=8).decode(tiny.order(0), 0, tiny.latents[0][:0]) == first


def test_more_takes_than_a_decoder_holds_are_decoded_all_the_same(
    tiny: Rendered, artifacts: Artifacts, tmp_path: Path
) -> None:
    decoder = TakeDecoder(artifacts, tmp_path / "scratch", sessions=1)
    assert decoder.decode(tiny.order(0), 0, tiny.latents[0][:4]).latents == 4
    assert decoder.decode(tiny.order(1), 0, tiny.latents[1][:2]).latents == 2
    assert decoder.decode(tiny.order(0), 4, tiny.latents[0][4:5]).latents == 0
    decode_in_pieces(decoder, tiny.order(0), tiny.latents[0])
    decoder.close()
    assert files_in(tmp_path / "scratch") == []


def test_a_take_that_nobody_wants_any_more_leaves_no_file(
    tiny: Rendered, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (TakeDecoder(artifacts, tmp_path / name, sessions=8) for name in ("one", "other"))
    one.decode(tiny.order(0), 0, tiny.latents[0][:4])
    one.decode(tiny.order(1), 0, tiny.latents[1][:2])
    one.forget(tiny.order(1).content_key)
    one.forget("a take that it never saw")
    decode_in_pieces(other, tiny.order(0), tiny.latents[0])  # as when its decoder was taken for dead
    assert one.idle() == [], "latents may still come"
    monkeypatch.setattr(settings, "DECODE_PRUNE_S", 0.0)
    assert one.idle() == [tiny.order(0).content_key]
    one.forget(tiny.order(0).content_key)
    assert files_in(tmp_path / "one") == []
    one.decode(tiny.order(1), 0, tiny.latents[1][:2])
    assert one.idle() == [tiny.order(1).content_key]
    assert files_in(tmp_path / "one") != []
    monkeypatch.setattr("serving.render.take_decoder.DECODE_IDLE_S", 0.0)
    assert one.idle() == [], "nobody came for long"
    assert files_in(tmp_path / "one") == []


def test_the_head_can_be_watched_before_the_take_is_done(
    tiny: Rendered, artifacts: Artifacts, decoder: TakeDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.render.decode_session.HEAD_PREVIEW_S", 1.0)
    order, latents = tiny.order(0), tiny.latents[0]
    watched: list[int] = []
    heads: dict[int, bytes] = {}
    for n in range(len(latents)):
        decoded = decoder.decode(order, n, latents[n : n + 1])
        if decoded.head_frames:
            head = artifacts.get(head_artifact(order.content_key, decoded.head_frames))
            heads.setdefault(decoded.head_frames, head)
            watched.append(count_frames(head))
            assert decoded.complete or decoded.frames - 2.5 * tiny.plan.fps <= watched[-1] <= decoded.frames
    kept = {frames: artifacts.get(head_artifact(order.content_key, frames)) for frames in heads}
    assert kept == heads, "a head was rewritten"
    assert watched == sorted(watched)
    assert len(set(watched)) >= 3
    assert watched[-1] == tiny.plan.takes[0].frames - tiny.plan.takes[0].surplus


def test_a_store_that_fails_costs_a_head_for_a_while_but_no_frames(
    tiny: Rendered, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.render.decode_session.HEAD_PREVIEW_S", 0.5)
    failing = ["head-", "frames.mkv"]
    write = artifacts._write

    def unwilling(key: str, source: Source, *, create: bool) -> bool:
        if key.rpartition("/")[2].startswith(tuple(failing)):
            raise ArtifactsUnavailable(key)
        return write(key, source, create=create)

    monkeypatch.setattr(artifacts, "_write", unwilling)
    decoder = TakeDecoder(artifacts, tmp_path / "scratch", sessions=8)
    order, latents = tiny.order(0), tiny.latents[0]
    assert decoder.decode(order, 0, latents[:-1]).latents == len(latents) - 1
    for first_that_fails in ("head-", "frames.mkv"):
        failing[:] = (first_that_fails, "frames.mkv")
        with pytest.raises(ArtifactsUnavailable, match=first_that_fails):
            decoder.decode(order, len(latents) - 1, latents[-1:])
    failing.clear()
    assert decoder.decode(order, len(latents), latents[:0]).complete
    assert artifacts.exists(frames_artifact(order.content_key))
    assert files_in(tmp_path / "scratch") == []


def test_a_session_whose_decoder_raises_is_begun_anew(
    tiny: Rendered, decoder: TakeDecoder, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, latents = tiny.order(0), tiny.latents[0]
    decoder.decode(order, 0, latents[:3])
    bad = np.zeros((1, 3, 1, 1), np.float32)
    with pytest.raises(RuntimeError):
        decoder.decode(order, 3, bad)
    assert decoder.decode(order, 3, latents[3:5]).latents == 0
    assert decode_in_pieces(decoder, order, latents).complete


def test_a_decoder_learns_how_to_draw_previews_of_a_model_that_brings_no_map(
    tiny: Rendered, artifacts: Artifacts, decoder: TakeDecoder
) -> None:
    assert learned_rgb(artifacts, tiny.model.weights_hash()) is None
    decode_in_pieces(decoder, tiny.order(0), tiny.latents[0])
    rgb = learned_rgb(artifacts, tiny.model.weights_hash())
    assert rgb is not None
    assert rgb.factors_C3.shape == (tiny.model.capabilities.latent_channels, 3)


def test_an_unknown_model_is_refused_and_leaves_no_session(
    tiny: Rendered, decoder: TakeDecoder, tmp_path: Path
) -> None:
    from dataclasses import replace

    order = replace(tiny.order(0), plan=replace(tiny.plan, model="no-such-model"))
    with pytest.raises(ModelError):
        decoder.decode(order, 0, tiny.latents[0][:1])
    assert files_in(tmp_path / "scratch") == []
