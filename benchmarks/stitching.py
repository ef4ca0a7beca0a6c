"""How should chunks of a long take be joined? The usual ways and ours on pocket, in one run.

Each method renders the same takes through the same timeline engine, one process and one thread each, so that CPU time
and peak memory compare, also on a machine that does other work. Seams are measured where the chunks of the last step
met; for the monolithic take, which has none, where the static chunks would meet.

    python -m benchmarks.stitching [--seconds 10] [--steps 24] [--lengths 10,20,40,80] [--model pocket]

Legend: N latents, C channels, h and w height and width of a latent; F frames, H and W in pixels.
"""

import argparse
import itertools
import multiprocessing
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.adherence import Detection, detect
from benchmarks.takes import Take, TakeDenoiser
from sharding.chunks import ChunkLimits, Cover, plan_chunks, shifted_chunks, static_chunks
from sharding.fusion import Profile, weigh
from sharding.seams import FrameStatistics, measure_seam
from sharding.spans import Frames, FrameSpan, Grid, Latents, LatentSpan
from sharding.timeline import Recipe

PROMPTS = (
    ("a red ball moving right, day", ("red", "ball", "right", "day")),
    ("a yellow star bouncing, night", ("yellow", "star", "bouncing", "night")),
    ("a blue box circling, sunset", ("blue", "box", "circling", "sunset")),
    ("a green triangle falling, plain", ("green", "triangle", "falling", "plain")),
)
"""What the takes show, and what the detector should see."""

WRAP_PIXELS = 16.0
"""A step of the object's centre beyond this is it leaving the frame and coming back, not a jerk."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Method:
    """One way to join chunks."""

    cover: Callable[[int, int, int, int], tuple[LatentSpan, ...]]
    """Spans from (N, W, step, steps)."""
    profile: Profile = "smoothstep"
    independent: bool = False
    """Each chunk is denoised alone from noise of its own, and the finished latents are crossfaded."""
    has_seams: bool = True


@dataclass(frozen=True)
class Row:
    """What one method came to over all takes."""

    calls: int
    waste: float
    jump: float
    worst_jump: float
    jerk_at_seams: float
    jerk_elsewhere: float
    colour_drift: float
    adherence: float
    seconds: float
    peak_mib: float


def _static(n: int, window: int, step: int, steps: int) -> tuple[LatentSpan, ...]:
    return static_chunks(n, window=window, overlap=window // 3)


def _shifted(n: int, window: int, step: int, steps: int) -> tuple[LatentSpan, ...]:
    return shifted_chunks(n, window=window, overlap=window // 3, step=step)


def _constant(n: int, window: int, step: int, steps: int) -> tuple[LatentSpan, ...]:
    overlap = max(1, window // 4)
    return plan_chunks(n, ChunkLimits(window, overlap_early=overlap, overlap_late=overlap), step, steps)


def _growing(n: int, window: int, step: int, steps: int) -> tuple[LatentSpan, ...]:
    return plan_chunks(n, ChunkLimits(window), step, steps)


def _whole(n: int, window: int, step: int, steps: int) -> tuple[LatentSpan, ...]:
    return (LatentSpan(0, n),)


METHODS = {
    "independent + crossfade": Method(_static, "linear", independent=True),
    "static, pyramid": Method(_static, "pyramid"),
    "shifted full chunks": Method(_shifted, "linear"),
    "ours, constant overlap": Method(_constant),
    "ours, growing overlap": Method(_growing),
    "monolithic": Method(_whole, "flat", has_seams=False),
}


class Bench:
    """One model in this process, and the takes that it renders."""

    def __init__(self, model: str, steps: int) -> None:
        self.denoiser = TakeDenoiser(model)
        self.steps = steps
        self._solver = self.denoiser.model.solver(steps)

    def render(self, method: Method, prompt: str, num_latents: int) -> Take:
        """The take of a prompt, and what rendering it cost."""
        cover = partial(self._cover, method, num_latents)
        if method.independent:
            return self._render_apart(cover(0), prompt)
        return self._denoise(num_latents, cover, partial(weigh, profile=method.profile), prompt, prompt)

    def seams(self, method: Method, num_latents: int) -> list[FrameSpan]:
        """Frames in which the chunks of the last step met."""
        shown = method if method.has_seams else METHODS["static, pyramid"]
        spans = self._cover(shown, num_latents, self.steps - 1)
        return frames_between(spans, self.denoiser.model.capabilities.grid)

    def _cover(self, method: Method, num_latents: int, step: int) -> tuple[LatentSpan, ...]:
        return method.cover(num_latents, self.denoiser.window, step, self.steps)

    def _denoise(
        self,
        num_latents: int,
        cover: Cover,
        weigh_spans: Callable[[Sequence[LatentSpan]], Sequence[Tensor]],
        prompt: str,
        key: str,
    ) -> Take:
        noise = self.denoiser.noise(num_latents, key=key, seed=0)
        return self.denoiser.denoise(Recipe(self._solver, cover, weigh_spans), prompt, noise)

    def _render_apart(self, spans: tuple[LatentSpan, ...], prompt: str) -> Take:
        weights = weigh(spans, "linear")
        takes: list[Take] = []
        total: Tensor | None = None
        for span, weight in zip(spans, weights, strict=True):

            def whole(step: int, length: int = len(span)) -> tuple[LatentSpan, ...]:
                return (LatentSpan(0, length),)

            take = self._denoise(len(span), whole, weigh, prompt, f"{prompt} {span.start}")
            takes.append(take)
            latents = take.latents_NChw
            total = latents.new_zeros(spans[-1].stop, *latents.shape[1:]) if total is None else total
            total[span.start : span.stop] += weight.view(-1, 1, 1, 1) * latents
        assert total is not None
        return Take(
            total,
            calls=sum(take.calls for take in takes),
            latents_evaluated=sum(take.latents_evaluated for take in takes),
            seconds=sum(take.seconds for take in takes),
        )


def frames_between(spans: Sequence[LatentSpan], grid: Grid) -> list[FrameSpan]:
    """Frames in which neighbouring chunks met."""
    return [
        FrameSpan(grid.frames_in(Latents(b.start)).start, grid.frames_in(Latents(a.stop - 1)).stop + 1)
        for a, b in itertools.pairwise(spans)
    ]


def jerk(detection: Detection, seams: Sequence[FrameSpan]) -> tuple[float, float]:
    """Mean third difference of the path (pixels per frame^3) at seams and elsewhere; nan if no object is seen."""
    track = detection.track
    jumps = np.linalg.norm(np.diff(track, axis=0), axis=1) > WRAP_PIXELS
    third = np.linalg.norm(np.diff(track, 3, axis=0), axis=1)
    third[jumps[:-2] | jumps[1:-1] | jumps[2:]] = np.nan
    at_seam = np.zeros(len(third), bool)
    for seam in seams:
        at_seam[max(0, seam.start - 3) : seam.stop] = True
    return float(np.nanmean(third[at_seam])), float(np.nanmean(third[~at_seam]))


def measure(method: Method, model_name: str, seconds: float, steps: int) -> Row:
    """All takes of one method, in this process."""
    torch.set_num_threads(1)
    bench = Bench(model_name, steps)
    capabilities = bench.denoiser.model.capabilities
    num_latents = capabilities.grid.latents_for(Frames(round(seconds * capabilities.fps)))
    jumps: list[float] = []
    jerks: list[tuple[float, float]] = []
    drifts: list[float] = []
    right = calls = evaluated = 0
    spent = 0.0
    seams = bench.seams(method, num_latents)
    for prompt, expected in PROMPTS:
        take = bench.render(method, prompt, num_latents)
        calls, evaluated, spent = calls + take.calls, evaluated + take.latents_evaluated, spent + take.seconds
        frames = bench.denoiser.decode(take.latents_NChw)
        measured = FrameStatistics()
        for frame in frames:
            measured.add(frame)
        whole = FrameSpan(0, len(frames))
        jumps += [measure_seam(measured, seam, take=whole, seams=seams).jump_ratio for seam in seams]
        second = capabilities.fps
        drifts.append(
            float(np.linalg.norm(np.mean(measured.colours[-second:], 0) - np.mean(measured.colours[:second], 0)))
        )
        seen = detect(frames)
        jerks.append(jerk(seen, seams))
        right += sum(
            a == b for a, b in zip((seen.colour, seen.shape, seen.motion, seen.backdrop), expected, strict=True)
        )
    return Row(
        calls=calls,
        waste=evaluated / (num_latents * steps * len(PROMPTS)) - 1,
        jump=statistics.mean(jumps),
        worst_jump=max(jumps),
        jerk_at_seams=float(np.nanmean([at for at, _ in jerks])),
        jerk_elsewhere=float(np.nanmean([elsewhere for _, elsewhere in jerks])),
        colour_drift=statistics.mean(drifts),
        adherence=right / (4 * len(PROMPTS)),
        seconds=spent,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def measure_cost(method: Method, model_name: str, seconds: float, steps: int) -> tuple[float, float, int]:
    """CPU seconds, peak MiB and calls of one take of the first prompt, denoised and decoded to nothing."""
    torch.set_num_threads(1)
    bench = Bench(model_name, steps)
    capabilities = bench.denoiser.model.capabilities
    take = bench.render(method, PROMPTS[0][0], capabilities.grid.latents_for(Frames(round(seconds * capabilities.fps))))
    return take.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, take.calls


def apart(work: Callable[[], Result]) -> Result:
    """Runs `work` in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, work))
    process.start()
    theirs.close()
    try:
        result: Result = ours.recv()
        return result
    finally:
        process.join()


def _answer(connection: Connection, work: Callable[[], object]) -> None:
    connection.send(work())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each of the four takes")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--lengths", default="10,20,40,80", help="seconds, for the table of cost against length")
    options = parser.parse_args()

    print(f"Four takes of {options.seconds:g} s, {options.steps} steps, {options.model}\n")
    print(
        "| method | calls | waste | jump mean | jump worst | jerk at seams / elsewhere | colour drift | adherence",
        end="",
    )
    print(" | CPU s | peak MiB |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, method in METHODS.items():
        row = apart(partial(measure, method, options.model, options.seconds, options.steps))
        print(
            f"| {name} | {row.calls} | {row.waste:.1%} | {row.jump:.2f} | {row.worst_jump:.2f}"
            f" | {row.jerk_at_seams:.2f} / {row.jerk_elsewhere:.2f} | {row.colour_drift:.2f} | {row.adherence:.0%}"
            f" | {row.seconds:.1f} | {row.peak_mib:.0f} |",
            flush=True,
        )
    lengths = [float(length) for length in options.lengths.split(",")]
    print("\nCost of one take against its length: CPU seconds (peak MiB)\n")
    print("| method | " + " | ".join(f"{length:g} s" for length in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for name in ("static, pyramid", "ours, growing overlap", "monolithic"):
        cells = []
        for length in lengths:
            seconds, peak, _ = apart(partial(measure_cost, METHODS[name], options.model, length, options.steps))
            cells.append(f"{seconds:.1f} ({peak:.0f})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
