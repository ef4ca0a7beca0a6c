"""Joins the decoded takes of a job into its film and keeps it, with its stills and manifest, among the artifacts.

The frames go through the same assembler as in `longtake render`, so the bytes are the same.
"""

import json
import tempfile
from math import isfinite
from pathlib import Path

from serving.errors import ArtifactMissing
from serving.models.registry import open_model
from serving.render.assembler import FilmAssembler
from serving.render.farm_messages import Assembled, AssembleOrder
from serving.render.frames import DamagedFrames, read_frames
from serving.render.manifest import MANIFEST_NAME, build_manifest, manifest_bytes
from serving.render.messages import Film
from serving.render.scratch import raise_if_full
from serving.render.stills import Stills
from serving.store.artifact_keys import FILM_NAME, film_artifact, frames_artifact, latents_artifact
from serving.store.artifacts import Artifacts


def assemble_film(order: AssembleOrder, artifacts: Artifacts, scratch: Path) -> Assembled:
    """Make a job's film from its takes' frames. Done twice it is the same film.

    The manifest is kept last: if it is, everything else is. Of temporary files in `scratch` none is left.
    Raises ArtifactsUnavailable, OutOfSpace, and ArtifactMissing if a take must be decoded again: frames that turn
    out to be damaged are deleted.
    """
    plan = order.plan
    try:
        with tempfile.TemporaryDirectory(prefix="film-", dir=scratch) as folder:
            path = Path(folder) / FILM_NAME
            film, stills = _assemble(order, artifacts, path)
            artifacts.put_file(film_artifact(order.job_id), path)
    except OSError as error:
        raise_if_full(error, scratch)
        raise
    artifacts.put(film_artifact(order.job_id, "thumbnail.jpg"), stills.thumbnail())
    artifacts.put(film_artifact(order.job_id, "spritesheet.jpg"), stills.spritesheet())
    manifest = build_manifest(
        plan,
        name=FILM_NAME,
        film=film,
        weights_sha256=order.numerics["weights"],
        numerics=order.numerics,
        latents_sha256=[_latents_sha256(artifacts, key) for key in order.content_keys],
        timings={**order.timings, "encode_s": film.encode_s},
        gangs=order.gangs,
    )
    artifacts.put(film_artifact(order.job_id, MANIFEST_NAME), manifest_bytes(manifest))
    return Assembled(
        film={key: manifest[key] for key in ("sha256", "frames", "seconds", "bytes", "width", "height", "fps")},
        encode_s=film.encode_s,
        seam_jumps=_seam_jumps(film),
    )


def _seam_jumps(film: Film) -> tuple[float, ...]:
    jumps = (seam["jump_ratio"] for seam in film.seams if seam["kind"] == "chunk")
    return tuple(jump for jump in jumps if isinstance(jump, float) and isfinite(jump))


def _assemble(order: AssembleOrder, artifacts: Artifacts, path: Path) -> tuple[Film, Stills]:
    capabilities = open_model(order.plan.model).capabilities
    assembler, stills = FilmAssembler(order.plan, path), Stills(order.plan)
    stored = path.with_name("frames.mkv")
    try:
        for take, content_key in zip(order.plan.takes, order.content_keys, strict=True):
            artifacts.get_to_file(frames_artifact(content_key), stored)
            assembler.begin_take()
            try:
                for frame in read_frames(stored, frames=take.frames - take.surplus):
                    for film_frame in assembler.add(frame):
                        stills.add(film_frame)
            except DamagedFrames as error:
                artifacts.delete([frames_artifact(content_key)])
                raise ArtifactMissing(f"the frames of take {take.key} were deleted: {error}") from error
        return assembler.finish(capabilities), stills
    except BaseException:
        assembler.abandon()
        raise


def _latents_sha256(artifacts: Artifacts, content_key: str) -> str:
    """That of a take's stored latents, from the header of their file (safetensors) alone."""
    key = latents_artifact(content_key)
    header_bytes = int.from_bytes(artifacts.get_range(key, 0, 8), "little")
    return str(json.loads(artifacts.get_range(key, 8, 8 + header_bytes))["__metadata__"]["sha256"])
