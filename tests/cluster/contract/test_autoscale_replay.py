"""The planner with the real scheduler, on small days: benchmarks/autoscale_replay.py."""

import io
from dataclasses import replace

import pytest

from benchmarks.autoscale_replay import RECORDED_DAY, best_queue, main, play, smallest_fleets
from cluster.contract.planner import ScalingTargets
from cluster.contract.pools_and_nodes import PoolDemand, PoolSupply
from simulation.autoscaled_farm import COLD_START_S, NODE_IDLE_S, AutoscaledFarm, Planner, QueueLength
from simulation.day import DayJob, draw_day, read_day, write_day

HOUR_S = 3600.0


def small_day() -> list[DayJob]:
    """The people's jobs of two hours."""
    return [
        DayJob(job.arrives_at_s - 9 * HOUR_S, job.priority, job.due_at_s and job.due_at_s - 9 * HOUR_S, job.latents)
        for job in draw_day(1)
        if 9 * HOUR_S <= job.arrives_at_s < 11 * HOUR_S and sum(job.latents) < 200
    ]


def test_the_recorded_day_is_the_one_that_the_program_draws() -> None:
    drawn = io.StringIO()
    write_day(draw_day(1), drawn)
    assert drawn.getvalue() == RECORDED_DAY.read_text(encoding="utf-8")


def test_a_day_is_read_as_it_was_written() -> None:
    whole = [replace(job, arrives_at_s=round(job.arrives_at_s), due_at_s=job.due_at_s and round(job.due_at_s))
             for job in draw_day(3)]  # fmt: skip
    file = io.StringIO()
    write_day(whole, file)
    file.seek(0)
    assert sorted(read_day(file), key=repr) == sorted(whole, key=repr)


@pytest.mark.parametrize("line", ["1,50,,a b", "x,50,,1", "1,50", "1,50,soon,1"])
def test_a_line_that_is_no_job_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: .* is not a job with the columns arrives_at_s, priority"):
        read_day(io.StringIO(f"arrives_at_s,priority,due_at_s,latents\n{line}\n"))


@pytest.mark.slow
def test_the_planner_costs_less_than_a_fixed_fleet_that_misses_no_more() -> None:
    jobs = small_day()
    ours = play("ours", jobs, 1, scaler=Planner(ScalingTargets()))
    fleet, as_fast = smallest_fleets(jobs, 1, ours)
    assert ours.due > 5
    assert fleet.missed <= ours.missed
    assert as_fast.missed <= ours.missed
    assert as_fast.wait_mean_s <= ours.wait_mean_s
    assert as_fast.gang_hours >= fleet.gang_hours
    assert ours.gang_hours <= 0.7 * fleet.gang_hours
    assert ours == play("ours", jobs, 1, scaler=Planner(ScalingTargets()))  # the same day, the same outcome


def test_a_job_alone_costs_its_work_a_start_and_the_time_for_which_gangs_are_kept() -> None:
    farm = AutoscaledFarm(seed=1, scaler=Planner(ScalingTargets()))
    farm.play([DayJob(100.0, 50, None, (21,))])
    path_s = farm.totals.work_s
    kept_s = 1.25 * COLD_START_S + NODE_IDLE_S
    assert farm.most_gangs == 1
    assert farm.jobs["job-00000"].finished_at == pytest.approx(100.0 + COLD_START_S + path_s, abs=0.35 * COLD_START_S)
    assert path_s + 0.8 * COLD_START_S < farm.gang_s < path_s + 1.3 * COLD_START_S + kept_s + 60
    assert farm.changes == 2
    assert farm.busy_victims == 0


def test_queue_length_keeps_its_highest_answer_for_a_while() -> None:
    queue = QueueLength(2, counts_running=True, window_s=300)
    demand = PoolDemand(
        measured_at=0, backlog_gpu_s=1, gpus_per_gang=1, calls_ready=5, calls_running=2, oldest_wait_s=0,
        required_gangs=0,
    )  # fmt: skip
    supply = PoolSupply(ready=0, idle=0, starting=0, draining=0, cold_start_s=0)
    assert queue(demand, supply, 0) == 4
    none = demand.model_copy(update={"calls_ready": 0, "calls_running": 0})
    assert queue(none, supply, 300) == 4
    assert queue(none, supply, 310) == 0


def test_the_best_queue_misses_the_fewest_and_then_costs_the_least() -> None:
    jobs = small_day()[:3]
    one = play("one", jobs, 1, scaler=QueueLength(1, counts_running=True))
    cheap = replace(one, name="cheap", gang_hours=1.0, missed=2)
    cheaper = replace(one, name="cheaper", gang_hours=0.5, missed=3)
    assert best_queue([cheaper, cheap, one], at_most_missed=2).name == "cheap"
    assert best_queue([cheaper, cheap], at_most_missed=0).name == "cheap"


@pytest.mark.slow
def test_the_program_prints_a_table(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("day") / "day.csv"
    with path.open("w", encoding="utf-8") as file:
        write_day(small_day()[:5], file)
    assert main(["--day", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "| planner |" in printed
    assert "| fixed fleet of" in printed
    assert "(goal <= 0.7)" in printed
