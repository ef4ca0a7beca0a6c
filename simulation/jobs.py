"""Jobs for simulated farms: how long takes are, and what the scheduler is told of a job beforehand."""

import random

from serving.scheduler.state import JobSpec
from simulation.farm import POOL, STEPS, TRUE_CURVE, WINDOW

FULL_CALL_S = TRUE_CURVE.seconds(WINDOW)
"""Seconds of a call over a full window."""


def draw_latents(rng: random.Random) -> int:
    """Of 100 takes 50 are one chunk (up to 5 s at 4 latents a second), 30 up to 20 s, 15 up to 60 s, 5 up to 2 min."""
    low, high = rng.choices([(5, 21), (22, 80), (81, 240), (241, 480)], weights=[50, 30, 15, 5])[0]
    return rng.randint(low, high)


def work_s(latents: list[int]) -> float:
    """Gang-seconds of takes, as well as anyone knows beforehand: full chunks, 15 % redundant work."""
    return sum(STEPS * FULL_CALL_S * max(n / WINDOW * 1.15, n / WINDOW if n <= WINDOW else 1) for n in latents)


def path_s(latents: list[int]) -> float:
    """Seconds of the longest path through a job: its longest take, its calls one after another."""
    return STEPS * TRUE_CURVE.seconds(min(WINDOW, max(latents)))


def new_spec(name: str, tenant: str, latents: list[int], created_at: float) -> JobSpec:
    """A job whose takes have these latents, with estimates of its work and its longest path."""
    return JobSpec(
        id=name,
        tenant=tenant,
        pool=POOL,
        priority=50,
        due_at=None,
        created_at=created_at,
        cost_key="cost",
        work_s=work_s(latents),
        path_s=path_s(latents),
    )
