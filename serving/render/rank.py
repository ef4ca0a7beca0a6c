"""A rank of a gang: one model, one call after the other, together with the gang's other ranks.

A plain class; a process of a render or an actor of the farm wraps it. A gang of one rank is its rank. With more, every
rank is given every call, and all answer with the whole prediction.
"""

import contextlib
import functools
import importlib.metadata
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from serving.errors import GangBroken, ModelError, UnknownInputs
from serving.models.denoiser import WanDenoiser
from serving.models.registry import open_model
from serving.models.weight_shapes import check_weight_shapes
from serving.render.messages import Array, CallInput, CallOutput, TakeInputs
from serving.render.tensors import as_tensor
from sharding.denoiser import PromptPart, WindowDenoiser
from sharding.gang_groups import GangGroups, make_groups
from sharding.gang_shape import GangShape

MAX_INPUTS_PER_GANG = 256
"""Takes whose inputs a gang holds at once; at 512 tokens of 4096 numbers a Wan take needs about 17 MB per text, and for
each picture at 832 x 480 about 10 MB."""

RANK_EXCHANGE_S = 30.0
"""Seconds that a rank waits for another of its gang in one exchange; then the gang counts as broken."""


_LIBRARIES = ("torch", "diffusers")
"""Libraries whose release may change the bytes of a prediction."""


@functools.cache
def _library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of a gang find each other."""

    host: str
    port: int
    name: str
    """A new one each time that a gang is formed."""


class Rank:
    """Rank `rank` of a gang of this shape; loads `model_name`. Raises ModelError."""

    def __init__(self, model_name: str, shape: str = "1", rank: int = 0) -> None:
        self._shape, self._rank = GangShape.parse(shape), rank
        self._set_threads()
        self._model = open_model(model_name)
        self._denoiser: WanDenoiser | None = None
        self._store: TCPStore | None = None
        self._inputs: OrderedDict[str, TakeInputs] = OrderedDict()
        if self._shape.ranks == 1:
            self._open(GangGroups(self._shape, 0))

    def check_model(self) -> None:
        """Raises ModelError if the model's weights are not those that its configs describe."""
        check_weight_shapes(self._model.checkpoint)

    # ------------------------------------------------------------------------------------------------ forming the gang

    def call_meeting(self, host: str, name: str) -> Meeting:
        """In rank 0: open a place for all ranks to meet, on this machine's address `host`."""
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return Meeting(host, self._store.port, name)

    def join(self, meeting: Meeting) -> None:
        """Form the gang with the other ranks, which must join too; what is loaded stays. Raises GangBroken."""
        self.leave()
        timeout = timedelta(seconds=RANK_EXCHANGE_S)
        try:
            store = self._store if self._rank == 0 and self._store is not None else _visit(meeting, timeout)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore(meeting.name, store),
                rank=self._rank,
                world_size=self._shape.ranks,
                timeout=timeout,
            )
            self._open(make_groups(self._shape, timeout=timeout))
        except RuntimeError as error:
            self.leave()
            raise GangBroken(f"rank {self._rank} could not join: {error}") from error

    def leave(self) -> None:
        """Close the connections to the other ranks, so that none waits for this one."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def warm_up(self) -> None:
        """Load what the first call needs, before it comes. What cannot be loaded is told by that call."""
        self._set_threads()
        if self._denoiser is not None:
            with contextlib.suppress(ModelError):
                self._denoiser.warm_up()

    @property
    def joined(self) -> bool:
        """Whether the gang is formed, as far as this rank knows."""
        return self._denoiser is not None and (self._shape.ranks == 1 or dist.is_initialized())

    # ------------------------------------------------------------------------------------------------ calls

    @property
    def numerics(self) -> dict[str, str]:
        """What the bytes of its predictions depend on."""
        assert self._denoiser is not None, "the gang is not formed"
        return {
            **self._denoiser.numerics,
            "threads_per_rank": str(self._shape.threads),
            "weights": self._model.weights_hash(),
            **_library_versions(),
        }

    def keep_inputs(self, key: str, inputs: TakeInputs, *, most: int = MAX_INPUTS_PER_GANG) -> None:
        """Hold what the calls of a take read, for at most so many takes; the least used are let go."""
        self._inputs[key] = inputs
        self._inputs.move_to_end(key)
        while len(self._inputs) > most:
            self._inputs.popitem(last=False)

    def know_inputs(self, key: str) -> None:
        """Raises UnknownInputs if they are not here."""
        if key not in self._inputs:
            raise UnknownInputs(key)
        self._inputs.move_to_end(key)

    def predict(self, call: CallInput, inputs_key: str) -> CallOutput:
        """The prediction of one call, which all ranks of the gang are given. Raises UnknownInputs, GangBroken."""
        self._set_threads()  # the setting belongs to a thread, and an actor's methods may change threads
        self.know_inputs(inputs_key)
        if not self.joined:
            raise GangBroken(f"rank {self._rank} has left its gang")
        assert self._denoiser is not None
        started = time.monotonic()
        try:
            prediction = predict_call(self._denoiser, call, self._inputs[inputs_key])
        except BaseException as error:
            if self._shape.ranks == 1:
                raise
            self.leave()  # or the others would wait for what this one was to send
            if type(error) is RuntimeError:  # what torch.distributed raises
                raise GangBroken(f"rank {self._rank}: {error}") from error
            raise
        return CallOutput(prediction, time.monotonic() - started)

    # ------------------------------------------------------------------------------------------------ inner

    def _open(self, groups: GangGroups) -> None:
        if self._denoiser is None:
            self._denoiser = self._model.load_denoiser(groups=groups)
        else:
            self._denoiser.regroup(groups)

    def _set_threads(self) -> None:
        torch.set_num_threads(self._shape.threads)


def _visit(meeting: Meeting, timeout: timedelta) -> Store:
    return TCPStore(meeting.host, meeting.port, is_master=False, timeout=timeout)


@torch.inference_mode()
def predict_call(denoiser: WindowDenoiser, call: CallInput, inputs: TakeInputs) -> Array:
    """The prediction of one call, float32 [n, C, h, w]."""
    parts = [
        PromptPart(
            embedding=as_tensor(inputs.embeddings[part.text]),
            negative=as_tensor(inputs.embeddings[part.negative]),
            weights=as_tensor(part.weights),
        )
        for part in call.parts
    ]
    prediction = denoiser.predict(
        as_tensor(call.latents_nChw),
        timestep=call.timestep,
        parts=parts,
        start=call.start,
        shares=call.shares,
        beside={name: as_tensor(value) for name, value in inputs.beside.items()},
    )
    return np.ascontiguousarray(prediction.numpy())
