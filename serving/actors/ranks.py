"""A rank of a gang as an actor. It imports what it computes with in its own process: a leader imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from serving.errors import ModelError

if TYPE_CHECKING:
    from serving.render.messages import CallInput, CallOutput, TakeInputs
    from serving.render.rank import Meeting


@dataclass(frozen=True)
class Pulse:
    """What a rank says when it is asked how it is."""

    pid: int
    node: str
    """Ray's id of its node."""
    joined: bool
    """Whether it is together with the others."""
    problem: str | None = None
    """What is wrong with its model's files, in a line."""


class RankActor:
    """A rank in a process of its own. Calls wait in line; its leader's questions do not."""

    def __init__(self, model_name: str, shape: str, rank: int) -> None:
        from serving.render.rank import Rank

        self._problem: str | None = None
        self._others: Sequence[Any] = ()
        """In rank 0: the actors of the other ranks."""
        try:
            self._rank = Rank(model_name, shape, rank)
        except ModelError as error:
            self._problem = str(error)

    def open_meeting(self, name: str) -> "Meeting":
        """In rank 0: where the others find it."""
        address: str = ray.util.get_node_ip_address()
        return self._rank.call_meeting(address, name)

    def meet(self, meeting: "Meeting", others: Sequence[Any] = ()) -> None:
        """Form the gang. Raises GangBroken."""
        self._others = list(others)
        self._rank.join(meeting)

    def warm_up(self) -> None:
        """Load what the first call needs, before it comes. What is wrong with the model's files shows in its pulse."""
        self.check_model()
        if self._problem is None:
            self._rank.warm_up()

    def check_model(self) -> None:
        """Compare the model's weights with its configs; what is wrong shows in its pulse. Imports diffusers."""
        if self._problem is None:
            try:
                self._rank.check_model()
            except ModelError as error:
                self._problem = str(error)

    def keep_inputs(self, key: str, inputs: "TakeInputs") -> None:
        self._rank.keep_inputs(key, inputs)
        if self._others:
            shared = ray.put(inputs)
            for other in self._others:
                other.keep_inputs.remote(key, shared)

    def predict(self, call: "CallInput", inputs_key: str) -> "CallOutput":
        """See Rank.predict. The other ranks are given the call too."""
        self._rank.know_inputs(inputs_key)
        if self._others:
            shared = ray.put(call)
            for other in self._others:  # what becomes of it there shows in what the ranks exchange
                other.follow.remote(shared, inputs_key)
        return self._rank.predict(call, inputs_key)

    def follow(self, call: "CallInput", inputs_key: str) -> None:
        """In every rank but 0: take part in a call. Rank 0 answers it."""
        self._rank.predict(call, inputs_key)

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        joined = self._problem is None and self._rank.joined
        return Pulse(os.getpid(), ray.get_runtime_context().get_node_id(), joined, self._problem)

    @ray.method(concurrency_group="control")
    def describe(self) -> dict[str, str]:
        """What its predictions depend on."""
        return self._rank.numerics
