"""Without a barrier gangs stay busy, and a long take finishes its head early: simulated on the real timeline."""

import heapq
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from sharding.solver import EulerSolver, flow_sigmas
from sharding.stitching import JOINT, Schedule, Stitching, schedule
from sharding.timeline import Call, Recipe, Timeline, head_first

GANGS = 4
STEPS = 24


def simulate(
    schedules: Sequence[Schedule],
    key: Callable[[Schedule, int, Call], tuple[int, ...]],
    *,
    barrier: bool = False,
    seed: int = 0,
) -> tuple[float, float]:
    """(utilisation of the gangs, share of the total time at which the first latent of the first take was finished)."""
    timelines = [Timeline(torch.zeros(_latents(plan), 1, 1, 1), _recipe(plan)) for plan in schedules]
    rng = random.Random(seed)
    now = busy = first = 0.0
    running: list[tuple[float, int, Call]] = []
    while not all(timeline.done for timeline in timelines):
        taken = {(index, call) for _, index, call in running}
        ready = [(index, call) for index, timeline in enumerate(timelines) for call in timeline.ready()]
        waiting = sorted(
            (one for one in ready if one not in taken), key=lambda one: key(schedules[one[0]], one[0], one[1])
        )
        if barrier:
            behind = min(step for timeline in timelines for step in timeline.latent_steps())
            waiting = [one for one in waiting if one[1].step == behind]
        for index, call in waiting[: GANGS - len(running)]:
            seconds = len(call.reads) * rng.uniform(0.7, 1.3)
            busy += seconds
            heapq.heappush(running, (now + seconds, index, call))
        now, index, call = heapq.heappop(running)
        timelines[index].accept(call, torch.zeros(len(call.reads), 1, 1, 1))
        if timelines[0].finished_head and not first:
            first = now
    return busy / (GANGS * now), first / now


def _latents(plan: Schedule) -> int:
    return plan.cover(0)[-1].stop


def _recipe(plan: Schedule) -> Recipe:
    return Recipe.of(
        plan,
        solver_of=lambda count: EulerSolver(flow_sigmas(count, shift=5)),
        step_noise=lambda n, step: torch.zeros(1, 1, 1),
    )


def planned(num_latents: int, window: int, stitching: Stitching = JOINT) -> Schedule:
    given = range(0, num_latents, 2 * window) if stitching.kind == "keyed" else ()
    return schedule(stitching, num_latents=num_latents, window=window, steps=STEPS, given=given)


def by_step(plan: Schedule, index: int, call: Call) -> tuple[int, ...]:
    return call.step, index, call.chunk


def by_head(plan: Schedule, index: int, call: Call) -> tuple[int, ...]:
    return index, *head_first(call)


def by_path(plan: Schedule, index: int, call: Call) -> tuple[int, ...]:
    return -plan.calls_left(call.step, call.span), index, *head_first(call)


def test_four_gangs_are_98_percent_busy_without_a_barrier() -> None:
    free = [simulate([planned(193, 21)], by_step, seed=seed)[0] for seed in range(3)]
    held = [simulate([planned(193, 21)], by_step, barrier=True, seed=seed)[0] for seed in range(3)]
    assert min(free) >= 0.98, free
    assert max(held) <= 0.92, held


def test_head_first_finishes_the_first_latents_within_35_percent_of_the_time() -> None:
    for seed in range(3):
        utilisation, first = simulate([planned(400, 16)], by_head, seed=seed)
        assert first <= 0.35
        assert utilisation >= 0.98


STITCHINGS = (
    JOINT,
    Stitching("joint", sweeps=10 / 24),
    Stitching("chained"),
    Stitching("drafted"),
    Stitching("keyed"),
)


@pytest.mark.parametrize("stitching", STITCHINGS, ids=lambda one: f"{one.kind}-{one.sweeps:.1f}")
def test_four_gangs_and_four_takes_are_97_percent_busy_whatever_the_stitching(stitching: Stitching) -> None:
    takes = [planned(241, 12, stitching)] * 4
    busy = [simulate(takes, by_path, seed=seed)[0] for seed in range(1)]
    assert min(busy) >= 0.97, busy


def test_one_long_drafted_take_keeps_four_gangs_80_percent_busy() -> None:
    busy = [simulate([planned(241, 8, Stitching("drafted"))], by_path, seed=seed)[0] for seed in range(3)]
    assert min(busy) >= 0.8, busy
