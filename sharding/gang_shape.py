"""The shape of a gang: how many ranks share one call, and by what. Pure arithmetic; no process is started here.

A call can be shared three ways, and they multiply. `cfg`: the two guidance branches on different ranks. `ulysses`: each
rank attends all tokens with a part of the heads (DeepSpeed Ulysses, arXiv 2309.14509). `ring`: each rank attends with
all heads, keys and values go round (Ring Attention, arXiv 2310.01889). Both of the latter split everything else by
tokens; together they are the hybrid of USP (arXiv 2405.07719).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CFG = 2
"""Guidance has two branches."""

_PART = re.compile(r"(cfg|ulysses|ring|threads)\s*=\s*(\d{1,4})")


def split_sizes(total: int, parts: int) -> tuple[int, ...]:
    """Sizes of `parts` consecutive parts of `total`, the larger ones first; parts beyond the total are empty.

    As torch.tensor_split has it. Nothing is padded to divide evenly.
    """
    least, extra = divmod(total, parts)
    return tuple(least + (part < extra) for part in range(parts))


@dataclass(frozen=True)
class Coordinates:
    """Where a rank is in its gang."""

    cfg: int
    """Which guidance branch it predicts: 0 the prompted one, 1 the negative."""
    ring: int
    ulysses: int


@dataclass(frozen=True)
class Workload:
    """What a gang's calls are made of, as far as its shape depends on it."""

    heads: int
    """Attention heads of the model."""
    tokens: int
    """Tokens of one chunk, after patching."""
    guided: bool
    """Whether the model is guided, so that each call has two branches."""


@dataclass(frozen=True)
class GangShape:
    """cfg x ulysses x ring ranks. `threads` are those of each rank on a CPU. Raises ValueError below one."""

    cfg: int = 1
    ulysses: int = 1
    ring: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if min(self.cfg, self.ulysses, self.ring, self.threads) < 1:
            raise ValueError(f"every part of a gang's shape is at least 1, not {self}")
        if self.cfg > MAX_CFG:
            raise ValueError(f"cfg is 1 or {MAX_CFG}, for guidance has two branches; not {self.cfg}")

    @classmethod
    def parse(cls, text: str) -> "GangShape":
        """Read `1`, `ulysses=2`, `cfg=2 x ulysses=4 x ring=2`, in any order. Raises ValueError for anything else."""
        parts = [part.strip() for part in re.split(r"[x,]", text.strip().lower())]
        if parts == ["1"]:
            return cls()
        matches = [_PART.fullmatch(part) for part in parts]
        found = {match[1]: int(match[2]) for match in matches if match}
        if len(found) != len(parts):
            raise ValueError(f"{text!r} is no gang shape; write 1, ulysses=2, cfg=2 x ulysses=4 or ulysses=2 x ring=2")
        return cls(**found)

    def __str__(self) -> str:
        named = [("cfg", self.cfg), ("ulysses", self.ulysses), ("ring", self.ring), ("threads", self.threads)]
        return " x ".join(f"{name}={degree}" for name, degree in named if degree != 1) or "1"

    @property
    def ranks(self) -> int:
        """Processes, and GPUs if there are any."""
        return self.cfg * self.sequence

    @property
    def sequence(self) -> int:
        """Parts that the tokens of a chunk are split into."""
        return self.ulysses * self.ring

    def coordinates(self, rank: int) -> Coordinates:
        """Ulysses is innermost: its ranks exchange most, and neighbouring ranks are the closest."""
        if not 0 <= rank < self.ranks:
            raise ValueError(f"a gang of {self.ranks} ranks has no rank {rank}")
        return Coordinates(
            cfg=rank // self.sequence, ring=rank // self.ulysses % self.ring, ulysses=rank % self.ulysses
        )

    def sequence_index(self, rank: int) -> int:
        """Which part of the tokens a rank holds."""
        return rank % self.sequence

    def check(self, work: Workload) -> None:
        """Raises ValueError, saying what would work, if this shape cannot share the work out."""
        problems = list(self._problems(work))
        if problems:
            others = [str(shape) for shape in shapes_of(self.ranks, work)]
            instead = f"with {self.ranks} ranks {' or '.join(others[:4])} would work" if others else "fewer ranks would"
            raise ValueError(f"gang shape {self}: {'; '.join(problems)}; {instead}")

    def is_valid(self, work: Workload) -> bool:
        return next(self._problems(work), None) is None

    def largest_share(self, work: Workload) -> float:
        """Part of a call's attention that its busiest rank does, 0..1; 1 / ranks if all have the same."""
        heads = max(split_sizes(work.heads, self.ulysses)) / work.heads
        tokens = split_sizes(work.tokens, self.sequence)
        blocks = [sum(tokens[at : at + self.ulysses]) for at in range(0, self.sequence, self.ulysses)]
        return heads * max(blocks) / work.tokens / self.cfg

    def _problems(self, work: Workload) -> Iterator[str]:
        if self.cfg > 1 and not work.guided:
            yield f"cfg={self.cfg} has nothing to do, for the model is not guided"
        if self.ulysses > work.heads:
            yield f"ulysses={self.ulysses} shares out {work.heads} heads, so at most ulysses={work.heads}"
        if self.sequence > work.tokens:
            yield f"{self.sequence} parts of {work.tokens} tokens leave ranks without any"


def shapes_of(ranks: int, work: Workload, *, gpus_per_node: int | None = None) -> list[GangShape]:
    """Every valid shape of this many ranks, the best first: the least work on the busiest rank, then CFG before Ulysses
    before ring.

    CFG exchanges only the prediction, Ulysses each layer's activations once, a ring the keys and values of all others.
    Measured by others on Wan and Flux (SGLang's and diffusers' documentation): in this order. Where `gpus_per_node` is
    given, Ulysses stays inside a node, and only rings cross it.
    """
    found = []
    for cfg in range(1, min(MAX_CFG, ranks) + 1):
        for ulysses in _divisors(ranks // cfg) if ranks % cfg == 0 else ():
            shape = GangShape(cfg, ulysses, ranks // cfg // ulysses)
            crosses = gpus_per_node is not None and gpus_per_node % ulysses != 0 and ranks > gpus_per_node
            if shape.is_valid(work) and not crosses:
                found.append(shape)
    return sorted(found, key=lambda shape: (round(shape.largest_share(work), 3), -shape.cfg, shape.ring))


def fewest_ranks(*, tokens: int, bytes_per_token: int, weights_bytes: int, gpu_bytes: int) -> int:
    """The fewest ranks that the tokens must be split over so that each rank's share fits beside the weights.

    Weights are whole on every rank; activations, keys and values are split. Raises ValueError if the weights alone
    do not fit.
    """
    room = gpu_bytes - weights_bytes
    if room < bytes_per_token:
        raise ValueError(f"weights of {weights_bytes} bytes leave no room on a GPU of {gpu_bytes} bytes")
    return math.ceil(tokens * bytes_per_token / (room - room % bytes_per_token))


def choose_shape(
    work: Workload,
    *,
    gpus_per_node: int,
    bytes_per_token: int,
    weights_bytes: int,
    gpu_bytes: int,
) -> GangShape:
    """The smallest shape that the memory allows. More chunks at once on small gangs lose nothing to communication, so a
    gang grows only if one GPU cannot hold a chunk; whoever must be faster than that names a shape.

    Raises ValueError if no shape would work.
    """
    parts = fewest_ranks(
        tokens=work.tokens, bytes_per_token=bytes_per_token, weights_bytes=weights_bytes, gpu_bytes=gpu_bytes
    )
    for ranks in range(parts, work.tokens + 1):
        # CFG does not split the tokens, so only shapes with enough parts hold them.
        fitting = [shape for shape in shapes_of(ranks, work, gpus_per_node=gpus_per_node) if shape.sequence >= parts]
        if fitting:
            return fitting[0]
    raise ValueError(f"no gang can hold {work.tokens} tokens with {work.heads} heads on GPUs of {gpu_bytes} bytes")


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]
