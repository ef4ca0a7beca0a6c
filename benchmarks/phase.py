"""Do the chunks of a long take agree on the movement? Every stitching on the same takes of pocket, in one run.

The detector of benchmarks.movement is checked on rendered clips first; single chunks show what the model does by
itself. Then each stitching renders the same takes over all motions. Intervals are 95 % bootstraps over the takes.
A stitching is chosen on the takes of one set and reported on those of another.

    python -m benchmarks.phase [--set choose|report] [--takes 12] [--seconds 10] [--long 60] [--steps 24]
                               [--methods "NAME;..."] [--checkpoint DIR] [--processes 2]

Legend: N latents of a take, W window; F frames, H height, W width in pixels.
"""

import argparse
import multiprocessing
import os
import random
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks.adherence import detect
from benchmarks.movement import Faults, find_faults
from benchmarks.stitching import frames_between
from benchmarks.takes import Take, TakeDenoiser
from serving.models.pocket import world
from sharding.chunks import ChunkLimits, plan_chunks, static_chunks
from sharding.fusion import Profile, weigh
from sharding.noise import unit_normal
from sharding.seams import FrameStatistics, measure_seam
from sharding.spans import Frames, FrameSpan, LatentSpan
from sharding.stitching import Row, Schedule, Stitching, Visit, schedule
from sharding.timeline import Recipe

RESAMPLES = 2000
SINGLE_CHUNKS = 5
"""Chunks of one window that are judged together as a take, each with noise of its own."""
WIDE_WINDOWS = 2
"""Windows in a wide chunk."""
WIDE_STEPS = 0.25
"""Share of the steps that wide chunks are used for."""


@dataclass(frozen=True)
class Case:
    """One take: what it shows, and its seed."""

    clip: world.Clip
    seed: int

    @property
    def prompt(self) -> str:
        return f"a {self.clip.colour} {self.clip.shape} {_MOTION_WORDS[self.clip.motion]}, {self.clip.backdrop}"


_MOTION_WORDS = {
    "right": "moving right", "left": "moving left", "bouncing": "bouncing", "circling": "circling",
    "falling": "falling",
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A way to stitch: its schedule from (N, W, steps), and how predictions are weighed."""

    plan: Callable[[int, int, int], Schedule]
    profile: Profile = "smoothstep"
    alone: bool = False
    """Single chunks instead of a take."""


@dataclass(frozen=True)
class Seen:
    """How one take came out."""

    bad: float
    several: float
    missing: float
    """Shares of its frames."""
    slips: float
    """Share of its steps in phase."""
    faults: float
    """In 10 seconds."""
    jumps: float
    """In 10 seconds."""
    motion: bool
    """It moves as prompted."""
    work: float
    """Latents evaluated, for each latent of the take."""
    calls: int
    longest_chain: int
    seconds: float
    worst_seam: float
    colour_drift: float


def _stitched(stitching: Stitching, num_latents: int, window: int, steps: int) -> Schedule:
    return schedule(stitching, num_latents=num_latents, window=window, steps=steps)


def _covered(
    cover: Callable[[int, int], tuple[LatentSpan, ...]], num_latents: int, window: int, steps: int
) -> Schedule:
    visits = tuple(Visit(steps, i) for i in range(steps))
    return Schedule(visits, lambda step: Row(cover(num_latents, window)))


def _wide(stitching: Stitching, num_latents: int, window: int, steps: int) -> Schedule:
    """Chunks of several windows for the first steps."""
    narrow = _stitched(stitching, num_latents, window, steps)
    limits = ChunkLimits(WIDE_WINDOWS * window)
    return replace(
        narrow,
        row=lambda step: (
            Row(plan_chunks(num_latents, limits, step, steps)) if step < WIDE_STEPS * steps else narrow.row(step)
        ),
    )


def _ours(**settings: object) -> Method:
    return Method(partial(_stitched, Stitching(**settings)))  # type: ignore[arg-type]


SWEEPS = 10 / 24
METHODS = {
    "single chunks": Method(partial(_covered, lambda n, w: (LatentSpan(0, n),)), alone=True),
    "joint": _ours(),
    "static, pyramid": Method(partial(_covered, lambda n, w: static_chunks(n, window=w, overlap=w // 3)), "pyramid"),
    "monolithic": Method(partial(_covered, lambda n, w: (LatentSpan(0, n),)), "flat"),
    "joint, overlap 2 early": _ours(overlap_early=2),
    "joint, new noise above .75": _ours(renew_above=0.75),
    "joint, sweeps": _ours(sweeps=SWEEPS),
    "joint, sweeps, new noise above .75": _ours(sweeps=SWEEPS, renew_above=0.75),
    "joint, wide at first": Method(partial(_wide, Stitching())),
    "joint, wide at first, sweeps": Method(partial(_wide, Stitching(sweeps=SWEEPS))),
    "chained, 1": _ours(kind="chained", context=1),
    "chained, 2": _ours(kind="chained", context=2),
    "drafted": _ours(kind="drafted"),
    "drafted, from 30 %": _ours(kind="drafted", draft_kept=0.3),
}


def draw_cases(count: int, *, which: str) -> list[Case]:
    """Takes of a set: every motion in turn, everything else drawn."""
    rng = random.Random(f"phase {which}")
    cases = []
    for k in range(count):
        clip = replace(world.draw_clip(rng), motion=world.MOTIONS[k % len(world.MOTIONS)], pan=False)
        cases.append(Case(clip, rng.randrange(10_000)))
    return cases


LONG_CASE = Case(world.Clip("blue", "box", "circling", "sunset"), 60)


# ---------------------------------------------------------------------------------------------- one take

_denoiser: TakeDenoiser | None = None
"""Of this process."""


def _open(checkpoint: str) -> None:
    global _denoiser
    torch.set_num_threads(1)
    _denoiser = TakeDenoiser(checkpoint)


def render_and_judge(name: str, case: Case, *, seconds: float, steps: int) -> Seen:
    """One take of one method, in this process."""
    assert _denoiser is not None
    method, model = METHODS[name], _denoiser.model
    grid = model.capabilities.grid
    num_latents = grid.latents_for(Frames(round(seconds * model.capabilities.fps)))
    if method.alone:
        return _judge_chunks(_denoiser, method, case, steps)
    plan = method.plan(num_latents, _denoiser.window, steps)
    take = _denoise(_denoiser, plan, method, case, num_latents)
    frames = _denoiser.decode(take.latents_NChw)
    seams = frames_between(plan.cover(steps - 1), grid)
    measured = FrameStatistics()
    for frame in frames:
        measured.add(frame)
    whole, second = FrameSpan(0, len(frames)), model.capabilities.fps
    drift = np.mean(measured.colours[-second:], 0) - np.mean(measured.colours[:second], 0)
    return _seen(
        [find_faults(frames, case.clip)],
        take,
        plan,
        motion=detect(frames).motion == case.clip.motion,
        worst_seam=max((measure_seam(measured, seam, take=whole, seams=seams).jump_ratio for seam in seams), default=1),
        colour_drift=float(np.linalg.norm(drift)),
    )


def _denoise(
    denoiser: TakeDenoiser, plan: Schedule, method: Method, case: Case, num_latents: int, *, part: int = 0
) -> Take:
    shape = denoiser.model.capabilities.latent_shape(width=world.WIDTH, height=world.HEIGHT)
    key = f"{case.prompt} {part}"
    recipe = Recipe.of(
        plan,
        solver_of=denoiser.model.solver,
        step_noise=lambda n, step: unit_normal(shape, "step", case.seed, key, n, step),
    )
    recipe = replace(recipe, weigh_spans=partial(weigh, profile=method.profile))
    return denoiser.denoise(recipe, case.prompt, denoiser.noise(num_latents, key=key, seed=case.seed))


def _judge_chunks(denoiser: TakeDenoiser, method: Method, case: Case, steps: int) -> Seen:
    window = denoiser.window
    plan = method.plan(window, window, steps)
    takes = [_denoise(denoiser, plan, method, case, window, part=part) for part in range(SINGLE_CHUNKS)]
    films = [denoiser.decode(take.latents_NChw) for take in takes]
    right = [detect(film).motion == case.clip.motion for film in films]
    seen = _seen([find_faults(film, case.clip) for film in films], takes[0], plan, motion=all(right), worst_seam=1.0)
    return replace(seen, seconds=sum(take.seconds for take in takes))


def _seen(
    faults: Sequence[Faults], take: Take, plan: Schedule, *, motion: bool, worst_seam: float, colour_drift: float = 0.0
) -> Seen:
    ten_seconds = sum(len(one.bad) for one in faults) / (10 * world.FPS)
    return Seen(
        bad=float(np.concatenate([one.bad for one in faults]).mean()),
        several=float(np.concatenate([one.several for one in faults]).mean()),
        missing=float(np.concatenate([one.missing for one in faults]).mean()),
        slips=float(np.concatenate([one.slips for one in faults]).mean()),
        faults=sum(one.events for one in faults) / ten_seconds,
        jumps=sum(int(one.jumps.sum()) for one in faults) / ten_seconds,
        motion=motion,
        work=take.latents_evaluated / len(take.latents_NChw),
        calls=take.calls,
        longest_chain=plan.longest_chain,
        seconds=take.seconds,
        worst_seam=worst_seam,
        colour_drift=colour_drift,
    )


def judge_truth(case: Case, *, seconds: float) -> Faults:
    """What the detector sees in a rendered clip: it should be nothing."""
    clip = replace(case.clip, phase=random.Random(case.seed).random())
    return find_faults(world.render(clip, round(seconds * world.FPS)).permute(1, 2, 3, 0), clip)


# ---------------------------------------------------------------------------------------------- the table


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of the means of takes drawn with replacement."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(drawn.mean(1), (2.5, 97.5))
    return float(low), float(high)


COLUMNS = (
    "stitching", "work", "calls", "longest chain", "CPU s", "bad frames", "several", "missing", "jumps in 10 s",
    "faults in 10 s", "slips", "motion right", "worst seam", "colour drift",
)  # fmt: skip


def _row(name: str, seen: Sequence[Seen]) -> str:
    def mean(of: Callable[[Seen], float]) -> float:
        return statistics.mean(of(one) for one in seen)

    def share(of: Callable[[Seen], float]) -> str:
        low, high = interval([of(one) for one in seen])
        return f"{mean(of):.1%} [{100 * low:.1f}, {100 * high:.1f}]"

    faults = interval([one.faults for one in seen])
    cells = (
        name, f"{mean(lambda one: one.work):.1f}", f"{mean(lambda one: one.calls):.0f}",
        f"{mean(lambda one: one.longest_chain):.0f}", f"{mean(lambda one: one.seconds):.1f}",
        share(lambda one: one.bad), f"{mean(lambda one: one.several):.1%}", f"{mean(lambda one: one.missing):.1%}",
        f"{mean(lambda one: one.jumps):.2f}",
        f"{mean(lambda one: one.faults):.2f} [{faults[0]:.2f}, {faults[1]:.2f}]", share(lambda one: one.slips),
        f"{sum(one.motion for one in seen)} of {len(seen)}", f"{max(one.worst_seam for one in seen):.2f}",
        f"{mean(lambda one: one.colour_drift):.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="pocket")
    parser.add_argument("--set", default="report", choices=("choose", "report"))
    parser.add_argument("--takes", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--long", type=float, default=60.0, help="seconds of one circling take more; 0: none")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--methods", help="names of METHODS, separated by semicolons; without it all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    names = list(METHODS) if options.methods is None else options.methods.split(";")
    cases = draw_cases(options.takes, which=options.set)
    truth = [judge_truth(case, seconds=options.seconds) for case in cases]
    bad, slips = (float(np.concatenate(flags).mean()) for flags in ([t.bad for t in truth], [t.slips for t in truth]))
    print(
        f"{len(cases)} takes of {options.seconds:g} s, {options.steps} steps, {options.checkpoint}, set {options.set}"
    )
    print(f"rendered truth: bad frames {bad:.2%}, slips {slips:.2%}\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    with ProcessPoolExecutor(
        options.processes, multiprocessing.get_context("spawn"), initializer=_open, initargs=(options.checkpoint,)
    ) as pool:
        for name in names:
            judge = partial(render_and_judge, name, steps=options.steps)
            print(_row(name, list(pool.map(partial(judge, seconds=options.seconds), cases))), flush=True)
        if options.long > 0:
            print(f"\nOne take of {options.long:g} s: {LONG_CASE.prompt}\n")
            print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
            judge_long = partial(render_and_judge, case=LONG_CASE, seconds=options.long, steps=options.steps)
            takes = [name for name in names if not METHODS[name].alone]
            for name, seen in zip(takes, pool.map(judge_long, takes), strict=True):
                print(_row(name, [seen]), flush=True)


if __name__ == "__main__":
    main()
