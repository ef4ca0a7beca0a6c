"""What the Director asks of the processes that it directs: small interfaces that actors, and tests, provide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serving.render.farm_messages import (
    Assembled,
    AssembleOrder,
    CallReport,
    ConditionOrder,
    Decoded,
    DecodeOrder,
    TakeId,
    TakeOpened,
    TakeOrder,
)


class HostPort(Protocol):
    """A timeline host; see TimelineHost. Every method may raise HostLost, and NotHeld after a restart."""

    async def open_take(self, order: TakeOrder) -> TakeOpened: ...

    async def close_take(self, take_id: TakeId, token: int, *, save: bool) -> None: ...

    async def run_call(
        self, take_id: TakeId, token: int, *, step: int, chunk: int, gang: str, handle: Any, timeout_s: float
    ) -> CallReport: ...

    async def finish_take(self, take_id: TakeId, token: int) -> str: ...

    async def feed_decoder(self, take_id: TakeId, token: int, *, start: int) -> Decoded: ...

    async def where(self) -> str:
        """Id of the node that it is on."""
        ...

    async def restart(self) -> None:
        """End it, to come back on another node; what it holds is lost. It may be asked for again at once."""
        ...


@dataclass(frozen=True)
class ClusterNode:
    """A machine of the cluster."""

    id: str
    address: str
    name: str
    labels: Mapping[str, str]
    state: Literal["alive", "draining", "dead"]
    is_head: bool
    """The farm ends with it."""
    takes_hosts: bool
    """Timeline hosts may be on it."""
    until: float | None
    """Unix seconds at which it may be gone, where it drains; 0 if that was not told."""


class NodesPort(Protocol):
    """The cluster. Every method blocks for one answer."""

    def nodes(self) -> Sequence[ClusterNode]: ...

    def draining(self) -> Mapping[str, float]:
        """Ids of the nodes that are about to go, and until when they stay, in Unix seconds; 0 if it is not known."""
        ...

    def drain(self, node: str, *, reason: str, until: float) -> None:
        """Raises Fault if it is refused."""
        ...


class EncoderPort(Protocol):
    """What turns prompts and pictures into what models read."""

    async def encode(self, model: str, weights: str, texts: Sequence[str]) -> None:
        """Keep the embedding of each text among the artifacts."""
        ...

    async def encode_pictures(self, order: ConditionOrder) -> None:
        """Keep what the pictures of a take become among the artifacts."""
        ...


class DecoderPort(Protocol):
    """A decoder, for takes that no host holds any more and for whole films."""

    async def decode_stored(self, order: DecodeOrder) -> Decoded:
        """Decode a take from its durable latents."""
        ...

    async def forget(self, content_key: str) -> None:
        """Let go of a take that was decoded in part."""
        ...

    async def assemble(self, order: AssembleOrder) -> Assembled:
        """Join decoded takes into the job's film."""
        ...
