"""How well is attention shared out among the ranks of a gang? On a CPU, one thread a rank, gloo between them.

For each shape, in one run and in turn: our attention over ranks, diffusers' own context parallelism of the same shape
around the same kernel, and plain: each rank multiplies as much, for itself, and exchanges nothing. Efficiency is plain
over ours; what a rank sends to others stands beside the least that the method can send; what is resident while a block
is computed stands beside all keys and values.

    python -m benchmarks.attention [--tokens 4096 8190] [--heads 12] [--width 128] [--repeats 7]
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks.attention_ranks import measure
from sharding.gang_shape import GangShape
from testkit.ranks import Worlds

SHAPES = ("ulysses=2", "ring=2", "ulysses=2 x ring=2")
METHODS = ("ours", "diffusers", "plain")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args(arguments)
    cores = psutil.cpu_count(logical=False) or 1
    worlds = Worlds()
    print(
        "| tokens | shape | one rank s | plain s | ours s | diffusers s | efficiency | ours / diffusers"
        " | sent MB (least) | diffusers | resident MB (all K, V) | diffusers |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    try:
        for tokens in given.tokens:
            what = (tokens, given.heads, given.width, given.repeats)
            [alone] = worlds[1].run(measure, GangShape(), ["ours"], *what)
            one = statistics.median(alone["ours"]["seconds"])
            for text in SHAPES:
                shape = GangShape.parse(text)
                answers = worlds[shape.ranks].run(measure, shape, METHODS, *what)
                print(_row(shape, answers, one=one, tokens=tokens, given=given), flush=True)
    finally:
        for world in worlds.values():
            world.close()
    print(f"\nMedians of {given.repeats}, the slowest rank each time. {cores} cores, which more ranks share.")
    return 0


def _row(
    shape: GangShape,
    answers: Sequence[dict[str, dict[str, Any]]],
    *,
    one: float,
    tokens: int,
    given: argparse.Namespace,
) -> str:
    times = {
        method: statistics.median(map(max, zip(*(answer[method]["seconds"] for answer in answers), strict=True)))
        for method in METHODS
    }
    of = {method: answers[0][method] for method in METHODS}
    megabyte = 1e6
    block = tokens // shape.ranks * given.heads * given.width * 4
    # Of queries, keys, values and results all but one's own heads; of keys and values every block but one's own.
    ulysses = 4 * block * (shape.ulysses - 1) / shape.ulysses
    ring = 2 * block * (shape.ring - 1)
    cells = (
        tokens,
        shape,
        f"{one:.3f}",
        f"{times['plain']:.3f}",
        f"{times['ours']:.3f}",
        f"{times['diffusers']:.3f}",
        f"{times['plain'] / times['ours']:.3f}",
        f"{times['ours'] / times['diffusers']:.3f}",
        f"{of['ours']['sent'] / megabyte:.1f} ({(ulysses + ring) / megabyte:.1f})",
        f"{of['diffusers']['sent'] / megabyte:.1f}",
        f"{of['ours']['resident'] / megabyte:.1f} ({2 * block * shape.ranks / megabyte:.1f})",
        f"{of['diffusers']['resident'] / megabyte:.1f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
