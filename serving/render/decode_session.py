"""One take while it is decoded: its frames without loss, and its head as a film that can be watched meanwhile.

A session may be lost at any time: a new one begins with the first latent, and decoding is exact, so the frames are the
same. The whole take's frames become an artifact at once, and only then; the head is there to be looked at.

Legend: n latents, C channels, h and w height and width of a latent.
"""

import logging
from pathlib import Path

from serving.errors import ArtifactsUnavailable
from serving.models.latent_rgb import RgbFit, shipped_rgb
from serving.models.wan import WanModel
from serving.render.encode import HeadWriter
from serving.render.farm_messages import Decoded, DecodeOrder
from serving.render.frames import FramesWriter, to_pixels
from serving.render.messages import Array
from serving.render.tensors import as_tensor
from serving.store.artifact_keys import frames_artifact, head_artifact, rgb_artifact
from serving.store.artifacts import Artifacts

log = logging.getLogger(__name__)

HEAD_PREVIEW_S = 2.0
"""Seconds of film by which the decoded head of a take grows before it is published again."""


HEAD_GROWTH = 1.2
"""A head is published again when it is this much longer: what is sent in all stays in proportion to the take."""


class DecodeSession:
    """Decodes the latents of one take in order. `folder` exists and is its own, for temporary files."""

    def __init__(self, order: DecodeOrder, *, model: WanModel, artifacts: Artifacts, folder: Path) -> None:
        plan, take = order.plan, order.take
        self._order, self._model, self._artifacts = order, model, artifacts
        self._codec = model.open_codec()
        self._frames_path, self._head_path = folder / "frames.mkv", folder / "head.mp4"
        size = {"width": plan.width, "height": plan.height, "fps": plan.fps}
        self._frames = FramesWriter(self._frames_path, **size)
        self._head = HeadWriter(self._head_path, **size)
        self._total = take.frames - take.surplus
        self._closed = False
        self._head_step = self._next_head = HEAD_PREVIEW_S * plan.fps
        """Frames: by how many the head must at least have grown, and how long it must be, to be published again."""
        learns = shipped_rgb(model.folder) is None
        self._rgb_fit = RgbFit(model.capabilities.latent_channels) if learns else None
        self.next_latent = 0
        self._head_frames = 0
        """Of the newest head that can be watched; 0: there is none yet."""

    def add(self, start: int, latents_nChw: Array) -> Decoded:
        """Decode latents from `start` on; those that were decoded before are skipped. Where others are missing before
        them nothing is decoded: the answer says which comes next. Raises ArtifactsUnavailable: ask again."""
        if start <= self.next_latent:
            for latent_Chw in latents_nChw[self.next_latent - start :]:
                self._decode(latent_Chw)
        complete = self.next_latent == self._order.take.latents
        if complete:
            self._keep()
        elif self._frames.frames >= self._next_head:
            self._next_head = max(self._frames.frames * HEAD_GROWTH, self._frames.frames + self._head_step)
            self._publish_head()
        return Decoded(self.next_latent, self._frames.frames, complete, head_frames=self._head_frames)

    def close(self) -> None:
        """Close its files; whoever made the folder removes it."""
        if not self._closed:
            self._closed = True
            self._frames.close()
            self._head.close()

    def _decode(self, latent_Chw: Array) -> None:
        frames = to_pixels(self._codec.decode(as_tensor(latent_Chw)))
        if self._rgb_fit is not None:
            self._rgb_fit.add(latent_Chw, frames)
        for frame in frames[: self._total - self._frames.frames]:
            self._frames.write(frame)
            self._head.write(frame)
        self.next_latent += 1

    def _publish_head(self) -> None:
        """Show what there is. A head that cannot be shown now is shown later, with more."""
        try:
            self._keep_head()
            self._keep_rgb()
        except ArtifactsUnavailable as error:
            log.warning("the head of a take was not shown: %s", error, extra={"action": "publish_head"})

    def _keep(self) -> None:
        """Make the take durable. Its frames come last: if they are, everything is."""
        self.close()
        self._keep_head()
        self._keep_rgb()
        self._artifacts.create_file(frames_artifact(self._order.content_key), self._frames_path)

    def _keep_head(self) -> None:
        """Keep what there is of the head under a key of its own; shorter ones go by retention."""
        frames = self._frames.frames
        self._artifacts.create_file(head_artifact(self._order.content_key, frames), self._head_path)
        self._head_frames = frames

    def _keep_rgb(self) -> None:
        """Keep the map that previews are drawn with, as far as it is learned; a later one has seen more."""
        if self._rgb_fit is not None and (rgb := self._rgb_fit.solve()) is not None:
            self._artifacts.put(rgb_artifact(self._model.weights_hash()), rgb.to_json().encode())
