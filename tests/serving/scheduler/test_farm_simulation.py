"""The real policy on simulated gangs keeps what theory promises of any schedule that leaves no gang idle."""

import random

import pytest

from serving.scheduler.state import TenantSpec
from simulation.farm import Job, Simulation
from simulation.jobs import draw_latents, new_spec


@pytest.mark.parametrize("seed", range(4))
def test_the_makespan_is_within_graham_s_bound(seed: int) -> None:
    """Graham 1969: with m gangs at most work / m + (1 - 1/m) * longest path, however the order."""
    rng = random.Random(seed)
    num_gangs = rng.randint(2, 30)
    simulation = Simulation(seed=seed, slots=1, spread=0.3, check_every=500)
    for index in range(3):
        simulation.add_tenant(TenantSpec(f"t{index}", weight=1.0 + index))
    for _ in range(num_gangs):
        simulation.add_gang()
    jobs = []
    for index in range(12):
        latents = [min(120, draw_latents(rng)) for _ in range(rng.randint(1, 4))]
        jobs.append(Job(new_spec(f"j{index}", f"t{index % 3}", latents, created_at=float(index)), latents, index))
        simulation.submit(jobs[-1])
    totals = simulation.run()
    longest = max(take.path_s for job in jobs for take in job.takes)
    assert totals.ended_at <= totals.work_s / num_gangs + (1 - 1 / num_gangs) * longest + 1e-6
    assert totals.full_checks > 0


def test_a_film_alone_on_many_gangs_is_done_in_little_more_than_the_least_time() -> None:
    """Twenty takes of one chunk on eight gangs: in the order of the film alone, four takes would be left to the end."""
    simulation = Simulation(seed=5, spread=0.0)
    for _ in range(8):
        simulation.add_gang()
    latents = [21] * 20
    job = Job(new_spec("film", "t", latents, created_at=0.0), latents, 0)
    simulation.submit(job)
    totals = simulation.run()
    assert totals.ended_at <= 1.07 * totals.work_s / 8


def test_calls_that_fail_by_chance_fail_no_job() -> None:
    simulation = Simulation(seed=6, check_every=200)
    simulation.raises_every = 50
    for _ in range(6):
        simulation.add_gang()
    jobs = [Job(new_spec(f"j{n}", "t", [60, 9], created_at=float(n)), [60, 9], n) for n in range(8)]
    for job in jobs:
        simulation.submit(job)
    simulation.run()
    assert all(job.finished_at is not None for job in jobs)
