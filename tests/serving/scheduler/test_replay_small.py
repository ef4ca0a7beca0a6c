"""The real policy drains a small farm and lives through a day of a small one: benchmarks/farm_replay.py, made small."""

import random

import pytest
import torch

from benchmarks.farm_replay import SMALL, Size, day, drain
from sharding.chunks import ChunkLimits, plan_chunks
from sharding.solver import EulerSolver, flow_sigmas
from sharding.spans import LatentSpan
from sharding.timeline import Recipe, Timeline
from simulation.farm import WINDOW, Job, Take, shape_of
from simulation.jobs import new_spec


def test_a_small_farm_is_drained_in_little_more_than_the_least_time() -> None:
    drained = drain(SMALL, 1)
    bound = max(drained.path_s, drained.totals.work_s / SMALL.drain_gangs)
    assert drained.totals.ended_at <= 1.05 * bound
    assert drained.fair_error <= 0.05
    assert drained.totals.lost_calls == 0


def test_a_small_farm_keeps_more_due_times_than_first_come_first_served() -> None:
    ours, first_come = day(SMALL, 1)
    assert ours.due == first_come.due
    assert first_come.missed.total() > 20  # else there is nothing to compare
    assert ours.missed.total() <= first_come.missed.total() / 3
    assert 0 < ours.hopeless <= ours.missed.total()
    assert ours.fair_error is not None
    assert ours.fair_error <= 0.05
    assert ours.totals.full_checks > 0


def test_a_trace_is_replayed_alike() -> None:
    small = Size(drain_gangs=8, drain_takes=30)
    first, second = drain(small, 3), drain(small, 3)
    assert (first.totals.placements, first.totals.ended_at) == (second.totals.placements, second.totals.ended_at)


@pytest.mark.parametrize("latents", [1, 21, 22, 97])
def test_simulated_takes_become_ready_as_timelines_do(latents: int) -> None:
    steps, limits, rng = 5, ChunkLimits(WINDOW), random.Random(latents)
    recipe = Recipe(EulerSolver(flow_sigmas(steps, shift=1.0)), lambda step: plan_chunks(latents, limits, step, steps))
    timeline = Timeline(torch.zeros(latents, 1, 1, 1), recipe)
    shape = shape_of(latents, WINDOW, steps)
    take = Take(Job(new_spec("j", "t", [latents], created_at=0.0), [], seed=0), 0, shape)
    while take.left:
        ready = {(call.step, call.chunk): call for call in timeline.ready()}
        assert {shape.calls[number][:2] for number in take.open} == set(ready)
        step, chunk, start, length = shape.calls[number := rng.choice(sorted(take.open))]
        assert ready[step, chunk].span == LatentSpan(start, start + length)
        assert timeline.accept(ready[step, chunk], torch.zeros(length, 1, 1, 1))
        take.finish(number, 1.0)
    assert timeline.done
