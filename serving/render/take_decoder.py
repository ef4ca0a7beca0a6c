"""Decodes the takes of a farm as their latents are finished, several at once, each in order.

A plain class without Ray, for one thread.
"""

import itertools
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from serving import settings
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.render.decode_session import DecodeSession
from serving.render.farm_messages import Decoded, DecodeOrder
from serving.render.messages import Array
from serving.render.scratch import raise_if_full
from serving.store.artifact_keys import frames_artifact, head_artifact
from serving.store.artifacts import Artifacts
from serving.store.latents import read_latents

DECODE_IDLE_S = 3600.0
"""Seconds without latents after which a decoder forgets a take; if they come after all, it begins it anew."""


@dataclass
class _Open:
    """A session and the folder that is its own."""

    session: DecodeSession
    folder: Path
    used_at: float
    """Monotonic seconds of the last latents."""


class TakeDecoder:
    """Holds a decode session for each of up to `sessions` takes; each holds its feature cache and a growing file of
    frames. `scratch` is a folder of its own, for temporary files."""

    def __init__(self, artifacts: Artifacts, scratch: Path, *, sessions: int) -> None:
        self._artifacts = artifacts
        self._scratch = scratch
        self._sessions = sessions
        shutil.rmtree(scratch, ignore_errors=True)  # what a decoder before this one left
        scratch.mkdir(parents=True)
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._models: dict[str, WanModel] = {}
        self._names = itertools.count()

    def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Decoded:
        """Decode latents of a take from `start` on, float32 [n, C, h, w]; those that were decoded before are skipped.

        Where others are missing before them nothing is decoded: the answer says which latent comes next. A take whose
        frames are kept already is complete. Raises ArtifactsUnavailable and OutOfSpace: ask again.
        """
        started = time.monotonic()
        torch.set_num_threads(1)  # as in one process: the frames must not depend on the machine's cores
        key = order.content_key
        if key not in self._open and self._artifacts.exists(frames_artifact(key)):
            frames = order.take.frames - order.take.surplus
            head = frames if self._artifacts.exists(head_artifact(key, frames)) else 0
            return Decoded(order.take.latents, frames, complete=True, head_frames=head)
        session = self._session(order)
        try:
            decoded = session.add(start, latents_nChw)
        except Exception as error:
            if session.next_latent < order.take.latents:  # it may have stopped half-way through a latent
                self._end(key)
            raise_if_full(error, self._scratch)
            raise
        if decoded.complete:
            self._end(key)
        return replace(decoded, seconds=time.monotonic() - started)

    def decode_stored(self, order: DecodeOrder) -> Decoded:
        """Decode a take whose latents are among the artifacts. Raises ArtifactMissing."""
        return self.decode(order, 0, read_latents(self._artifacts, order.content_key))

    def forget(self, content_key: str) -> None:
        """End the session of a take that nobody wants any more, if there is one."""
        if content_key in self._open:
            self._end(content_key)

    def idle(self) -> list[str]:
        """The content keys of sessions that nobody has come to for a while: their takes may have been decoded
        elsewhere. Those that nobody has come to for long are ended."""
        now = time.monotonic()
        for key, one in list(self._open.items()):
            if now - one.used_at > DECODE_IDLE_S:
                self._end(key)
        return [key for key, one in self._open.items() if now - one.used_at > settings.DECODE_PRUNE_S]

    def load_codec(self, model: str) -> None:
        """Loads a model's VAE before it is needed. Raises ModelError."""
        self._model(model).open_codec()

    def close(self) -> None:
        """End every session and remove what they wrote."""
        for key in list(self._open):
            self._end(key)

    def _session(self, order: DecodeOrder) -> DecodeSession:
        key = order.content_key
        if key not in self._open:
            while len(self._open) >= self._sessions:
                self._end(next(iter(self._open)))
            folder = self._scratch / str(next(self._names))
            folder.mkdir()
            model = self._model(order.plan.model)
            session = DecodeSession(order, model=model, artifacts=self._artifacts, folder=folder)
            self._open[key] = _Open(session, folder, time.monotonic())
        self._open.move_to_end(key)
        self._open[key].used_at = time.monotonic()
        return self._open[key].session

    def _end(self, key: str) -> None:
        ended = self._open.pop(key)
        try:
            ended.session.close()
        finally:
            shutil.rmtree(ended.folder, ignore_errors=True)

    def _model(self, name: str) -> WanModel:
        if name not in self._models:
            self._models[name] = open_model(name)
        return self._models[name]
