"""Without a barrier gangs stay busy, and a long take finishes its head early: simulated on the real timeline."""

import heapq
import random
from collections.abc import Callable

import torch

from sharding.chunks import ChunkLimits, plan_chunks
from sharding.solver import EulerSolver, flow_sigmas
from sharding.timeline import Call, Recipe, Timeline, head_first

GANGS = 4
STEPS = 24


def simulate(
    num_latents: int, window: int, key: Callable[[Call], tuple[int, ...]], *, barrier: bool = False, seed: int = 0
) -> tuple[float, float]:
    """(utilisation of the gangs, share of the total time at which the first latent was finished)."""
    limits = ChunkLimits(window)
    recipe = Recipe(
        solver=EulerSolver(flow_sigmas(STEPS, shift=5)),
        cover=lambda step: plan_chunks(num_latents, limits, step, STEPS),
    )
    timeline = Timeline(torch.zeros(num_latents, 1, 1, 1), recipe)
    rng = random.Random(seed)
    now = busy = first = 0.0
    running: list[tuple[float, Call]] = []
    while not timeline.done:
        taken = {call for _, call in running}
        waiting = sorted((call for call in timeline.ready() if call not in taken), key=key)
        if barrier:
            behind = min(timeline.latent_steps())
            waiting = [call for call in waiting if call.step == behind]
        for call in waiting[: GANGS - len(running)]:
            seconds = len(call.span) * rng.uniform(0.7, 1.3)
            busy += seconds
            heapq.heappush(running, (now + seconds, call))
        now, call = heapq.heappop(running)
        timeline.accept(call, torch.zeros(len(call.reads), 1, 1, 1))
        if timeline.finished_head and not first:
            first = now
    return busy / (GANGS * now), first / now


def by_step(call: Call) -> tuple[int, ...]:
    return call.step, call.chunk


def test_four_gangs_are_98_percent_busy_without_a_barrier() -> None:
    free = [simulate(193, 21, by_step, seed=seed)[0] for seed in range(3)]
    held = [simulate(193, 21, by_step, barrier=True, seed=seed)[0] for seed in range(3)]
    assert min(free) >= 0.98, free
    assert max(held) <= 0.92, held


def test_head_first_finishes_the_first_latents_within_35_percent_of_the_time() -> None:
    for seed in range(3):
        utilisation, first = simulate(400, 16, head_first, seed=seed)
        assert first <= 0.35
        assert utilisation >= 0.98
