"""How many gangs, case by case; test_planner_properties.py has what holds for all."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.contract.planner import MAX_HOLD_S, PlannerMemory, ScalingTargets, plan_gangs
from cluster.contract.pools_and_nodes import PoolDecision, PoolDemand, PoolSupply, PoolTerms

START = 1_000_000.0
TARGETS = ScalingTargets(drain_within_s=600, stale_after_s=60, hold_s=300, idle_for_s=60, due_margin=1.25)
MANY = PoolTerms(max_gangs=100)


def demand(backlog_gpu_s: float = 0.0, **changes: Any) -> PoolDemand:
    plain = PoolDemand(
        measured_at=START,
        backlog_gpu_s=backlog_gpu_s,
        gpus_per_gang=1,
        calls_ready=1000,
        calls_running=0,
        oldest_wait_s=0.0,
        required_gangs=0.0,
    )
    return plain.model_copy(update=changes)


def supply(ready: int = 0, idle: int = 0, **changes: Any) -> PoolSupply:
    plain = PoolSupply(ready=ready, idle=idle, starting=0, draining=0, cold_start_s=120.0)
    return plain.model_copy(update=changes)


class Asking:
    """Asks the planner every ten seconds, as the policy does."""

    def __init__(self, terms: PoolTerms = MANY, targets: ScalingTargets = TARGETS) -> None:
        self.terms, self.targets = terms, targets
        self.memory, self.now = PlannerMemory(), START

    def ask(self, demand: PoolDemand | None, supply: PoolSupply, *, after_s: float = 0.0) -> PoolDecision:
        """The decision after so many seconds in which everything stayed like this. Demand is measured each time."""
        end = self.now + after_s
        while True:
            fresh = None if demand is None else demand.model_copy(update={"measured_at": self.now})
            decision = self.ask_once(fresh, supply)
            if self.now >= end:
                return decision
            self.now = min(end, self.now + 10)

    def ask_once(self, demand: PoolDemand | None, supply: PoolSupply) -> PoolDecision:
        decision, self.memory = plan_gangs(
            terms=self.terms,
            demand=demand,
            supply=supply,
            targets=self.targets,
            memory=self.memory,
            now=self.now,
        )
        return decision


def first(demand: PoolDemand | None, supply: PoolSupply, *, terms: PoolTerms = MANY) -> PoolDecision:
    return Asking(terms).ask(demand, supply)


# ---------------------------------------------------------------------------------------------------- what is needed


@pytest.mark.parametrize(
    ("backlog_gpu_s", "gpus_per_gang", "gangs"),
    [(0, 1, 0), (0.5, 1, 1), (600, 1, 1), (600.5, 1, 2), (3120, 1, 6), (4800, 4, 2), (4801, 4, 3)],
)
def test_whole_gangs_drain_the_backlog_in_time(backlog_gpu_s: float, gpus_per_gang: int, gangs: int) -> None:
    assert first(demand(backlog_gpu_s, gpus_per_gang=gpus_per_gang), supply()).gangs == gangs


def test_rounding_of_floats_costs_no_gang() -> None:
    assert first(demand(600 * (0.1 + 0.2) * 10), supply()).gangs == 3


def test_due_times_set_a_floor_with_a_margin() -> None:
    decision = first(demand(3120, required_gangs=5.4, due_slack_s=310.0), supply())
    assert decision.gangs == 7
    assert decision.reason == (
        "7 gangs: 3,120 GPU-seconds of backlog within 600 s need 6; due times need 7, the tightest with 310 s to spare"
    )


def test_it_says_when_a_due_time_comes_before_a_gang_could() -> None:
    assert "takes longer to start (120 s)" in first(demand(60, required_gangs=1, due_slack_s=30.0), supply()).reason
    assert "takes longer" not in first(demand(60, required_gangs=1, due_slack_s=30.0), supply(ready=2, idle=2)).reason


def test_no_more_gangs_than_calls_that_can_run_at_once() -> None:
    decision = first(demand(36_000, calls_ready=2, calls_running=1), supply(ready=1))
    assert decision.gangs == 3
    assert "no more than 3 calls can run at once" in decision.reason


def test_work_of_which_no_call_is_ready_yet_is_worth_one_gang() -> None:
    assert first(demand(36_000, calls_ready=0), supply()).gangs == 1


def test_calls_that_wait_too_long_bring_a_quarter_more_once_all_have_come() -> None:
    late = demand(1200, oldest_wait_s=700.0, calls_running=8)
    assert first(late, supply(ready=8)).gangs == 10
    assert "a call has waited 700 s, so 10 instead of 8" in first(late, supply(ready=8)).reason
    asking = Asking()
    asking.ask(demand(1200), supply(ready=8))
    assert asking.ask(late, supply(ready=8, starting=1), after_s=100).gangs == 8
    assert asking.ask(late, supply(ready=8)).gangs == 10
    assert first(late, supply(ready=8, idle=1)).gangs == 8  # it does not wait for a gang
    assert first(demand(1200, oldest_wait_s=599.0), supply(ready=8)).gangs == 8


# ---------------------------------------------------------------------------------------------------- up


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    asking = Asking()
    assert asking.ask(demand(6000), supply()).gangs == 10
    decision = asking.ask(demand(6000), supply(starting=10), after_s=110)
    assert decision.gangs == 10
    assert decision.reason.endswith("; 10 on their way")
    assert asking.ask(demand(6000), supply(ready=4, starting=6)).gangs == 10


def test_due_times_that_come_nearer_do_not_ask_again_for_what_is_on_its_way() -> None:
    asking = Asking()
    assert asking.ask(demand(60, required_gangs=4.0), supply()).gangs == 5
    assert asking.ask(demand(60, required_gangs=5.0), supply(starting=5), after_s=110).gangs == 5
    assert asking.ask(demand(60, required_gangs=5.1), supply(starting=5)).gangs == 7


def test_a_draining_gang_is_no_capacity() -> None:
    assert first(demand(1200), supply(ready=1, draining=1)).gangs == 2


# ---------------------------------------------------------------------------------------------------- down


def test_gangs_are_kept_for_a_while_after_they_were_needed() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    decision = asking.ask(demand(), supply(ready=10, idle=10), after_s=300)
    assert decision.gangs == 10
    assert decision.reason == "10 gangs: nothing to do; 10 were needed in the last 300 s"
    assert asking.ask(demand(), supply(ready=10, idle=10), after_s=10).gangs == 0


def test_they_are_kept_longer_than_the_cold_start_but_not_for_ever() -> None:
    slow = supply(ready=10, idle=10, cold_start_s=1000.0)
    asking = Asking()
    asking.ask(demand(6000), slow)
    assert asking.ask(demand(), slow, after_s=1250).gangs == 10
    assert asking.ask(demand(), slow, after_s=10).gangs == 0
    slower = slow.model_copy(update={"cold_start_s": 1e9})
    asking.ask(demand(6000), slower)
    assert asking.ask(demand(), slower, after_s=MAX_HOLD_S + 10).gangs == 0
    asking.ask(demand(6000), slow)
    assert asking.ask(demand(), slow.model_copy(update={"cold_start_s": math.nan}), after_s=310).gangs == 0


def test_only_gangs_that_are_idle_are_let_go() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    decision = asking.ask(demand(60), supply(ready=10, idle=3), after_s=1000)
    assert decision.gangs == 7
    assert decision.reason.endswith("need 1; 7 had calls in the last 60 s")


def test_a_pause_between_two_calls_is_not_idleness() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.ask(demand(60), supply(ready=10), after_s=1000)
    assert asking.ask(demand(60), supply(ready=10, idle=10), after_s=50).gangs == 10
    asking.now += 10
    assert asking.ask(demand(60), supply(ready=10)).gangs == 10
    asking.now += 10
    assert asking.ask(demand(60), supply(ready=10, idle=10), after_s=50).gangs == 10
    assert asking.ask(demand(60), supply(ready=10, idle=10), after_s=20).gangs == 1


def test_gangs_that_never_come_are_given_up_when_nobody_needs_them() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    assert asking.ask(demand(), supply(starting=10), after_s=300).gangs == 10
    assert asking.ask(demand(), supply(starting=10), after_s=10).gangs == 0


def test_what_was_needed_a_while_ago_never_brings_gangs_back() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.terms = PoolTerms(max_gangs=4)
    assert asking.ask(demand(60), supply(ready=10, idle=9)).gangs == 4
    asking.terms = MANY
    assert asking.ask(demand(60), supply(ready=4, idle=3), after_s=50).gangs == 4


def test_a_planner_that_remembers_nothing_lets_nothing_go() -> None:
    asking = Asking()
    assert asking.ask(demand(), supply(ready=5, idle=5, starting=1), after_s=300).gangs == 6
    assert asking.ask(demand(), supply(ready=6, idle=6), after_s=10).gangs == 0


# ---------------------------------------------------------------------------------------------------- limits


def test_limits_win_and_are_named() -> None:
    least = first(demand(), supply(), terms=PoolTerms(min_gangs=2, max_gangs=9))
    assert (least.gangs, least.reason) == (2, "2 gangs: nothing to do; min_gangs is 2")
    most = first(demand(60_000), supply(ready=12), terms=PoolTerms(max_gangs=9))  # 12 of them busy
    assert most.gangs == 9
    assert most.reason.endswith("need 100; max_gangs is 9")


def test_the_quota_wins_over_the_least_number() -> None:
    asking = Asking(PoolTerms(min_gangs=5, max_gangs=9), replace(TARGETS, quota_gangs=3))
    decision = asking.ask(demand(), supply())
    assert (decision.gangs, decision.reason) == (3, "3 gangs: nothing to do; min_gangs is 5; the quota is 3")
    asking.targets = replace(TARGETS, quota_gangs=0)
    assert asking.ask(demand(6000), supply()).gangs == 0


def test_limits_hold_while_nothing_is_known() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.terms = PoolTerms(max_gangs=4)
    assert asking.ask(None, supply(ready=10)).gangs == 4


# ---------------------------------------------------------------------------------------------------- no measurement


def test_without_a_measurement_the_last_decision_holds_and_says_so() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    decision = asking.ask(None, supply(ready=10, idle=10), after_s=3600)
    assert decision.gangs == 10
    assert decision.reason == "10 gangs: as before, since what there is to do has not been measured"


def test_without_any_measurement_ever_what_is_there_stays() -> None:
    assert first(None, supply(ready=3, idle=3, starting=1)).gangs == 4


def test_an_old_measurement_holds_the_last_decision() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    old = demand(0)
    for _ in range(7):
        asking.now += 10
        decision = asking.ask_once(old, supply(ready=10, idle=10))
    assert decision.gangs == 10
    assert "last measured 70 s ago, more than 60 s" in decision.reason


def test_a_measurement_that_is_old_when_it_is_first_seen_counts_as_none() -> None:
    assert Asking().ask_once(demand(6000, measured_at=START - 60), supply(ready=3)).gangs == 10
    assert Asking().ask_once(demand(6000, measured_at=START - 61), supply(ready=3)).gangs == 3


def test_the_time_without_measurements_does_not_count_as_idle() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.ask(None, supply(ready=10, idle=10), after_s=3600)
    assert asking.ask(demand(), supply(ready=10, idle=10), after_s=300).gangs == 10
    assert asking.ask(demand(), supply(ready=10, idle=10), after_s=10).gangs == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"backlog_gpu_s": math.nan},
        {"backlog_gpu_s": math.inf},
        {"required_gangs": math.inf},
        {"oldest_wait_s": math.nan},
        {"measured_at": math.nan},
        {"due_slack_s": math.nan},
        {"gpus_per_gang": 0},
    ],
)
def test_a_measurement_that_makes_no_sense_counts_as_none(broken: dict[str, float]) -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.now += 10
    decision = asking.ask_once(
        demand(**{"measured_at": asking.now, "backlog_gpu_s": 60.0, **broken}), supply(starting=10)
    )
    assert decision.gangs == 10
    assert "makes no sense" in decision.reason


# ---------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_goes_back_lets_nothing_go_and_stops_nothing() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.now -= 7200
    assert asking.ask(demand(), supply(ready=10, idle=10), after_s=300).gangs == 10
    assert asking.ask(demand(), supply(ready=10, idle=10), after_s=10).gangs == 0


def test_a_clock_that_leaps_ahead_lets_nothing_go() -> None:
    asking = Asking()
    asking.ask(demand(6000), supply())
    asking.now += 7200
    assert asking.ask(demand(), supply(ready=10, idle=10)).gangs == 10


def test_measurements_by_a_clock_that_is_ahead_become_old_all_the_same() -> None:
    asking = Asking()
    ahead = demand(6000, measured_at=START + 7200)
    asking.ask_once(ahead, supply())
    asking.ask_once(ahead.model_copy(update={"measured_at": START + 7201, "backlog_gpu_s": 0.0}), supply(starting=10))
    for _ in range(7):
        asking.now += 10
        decision = asking.ask_once(ahead.model_copy(update={"measured_at": START + 7201}), supply(starting=10))
    assert "last measured 70 s ago" in decision.reason


# ---------------------------------------------------------------------------------------------------- external mode


def external(replicas: int | None, **limits: Any) -> PoolTerms:
    return PoolTerms(mode="external", replicas=replicas, **{"max_gangs": 20, **limits})


def test_in_external_mode_replicas_count_inside_the_limits() -> None:
    assert first(None, supply(), terms=external(7)).gangs == 7
    assert first(demand(60_000), supply(), terms=external(7)).reason == "7 gangs: replicas is 7"
    assert first(None, supply(), terms=external(7, max_gangs=5)).gangs == 5
    assert first(None, supply(), terms=external(0, min_gangs=2)).gangs == 2
    asking = Asking(external(7), replace(TARGETS, quota_gangs=3))
    assert asking.ask(None, supply()).gangs == 3


def test_in_external_mode_idle_gangs_go_at_once_and_busy_ones_are_waited_for() -> None:
    asking = Asking(external(10))
    asking.ask(None, supply(ready=10, idle=0))
    asking.terms = external(2)
    decision = asking.ask(None, supply(ready=10, idle=4))
    assert decision.gangs == 6
    assert decision.reason == "6 gangs: replicas is 2; 6 have calls and are waited for, 300 s at most"
    assert asking.ask(None, supply(ready=6, idle=0), after_s=290).gangs == 6
    assert asking.ask(None, supply(ready=6, idle=0), after_s=20).gangs == 2


def test_external_mode_without_replicas_changes_nothing() -> None:
    decision = first(None, supply(ready=3), terms=external(None))
    assert decision.gangs == 3
    assert "nobody has set replicas" in decision.reason


# ---------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"drain_within_s": 0}, r"drain_within_s: 0 is not a finite number of at least 1"),
        ({"hold_s": -1.0}, r"hold_s: -1.0 is not a finite number of at least 0"),
        ({"stale_after_s": math.inf}, r"stale_after_s: inf is not a finite number of at least 1"),
        ({"due_margin": 0.9}, r"due_margin: 0.9 is not a finite number of at least 1"),
        ({"quota_gangs": -1}, r"quota_gangs: -1 is not a whole number of at least 0"),
        ({"quota_gangs": 2.5}, r"quota_gangs: 2.5 is not a whole number"),
        ({"idle_for_s": "60"}, r"idle_for_s: '60' is not a finite number"),
    ],
)
def test_targets_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScalingTargets(**wrong)


# ---------------------------------------------------------------------------------------------------- documentation

EXAMPLE = Path(__file__).parents[3] / "docs" / "autoscaling.md"


def test_the_worked_example_of_the_documentation_is_what_the_planner_says() -> None:
    film = demand(21_600, gpus_per_gang=4, calls_ready=48)
    measured = {
        0: film.model_copy(update={"required_gangs": 5.4, "due_slack_s": 1900.0}),
        120: film.model_copy(update={"required_gangs": 5.9, "due_slack_s": 1780.0}),
        240: film.model_copy(update={"required_gangs": 6.5, "due_slack_s": 1660.0}),
        300: film.model_copy(update={"backlog_gpu_s": 20_400.0, "required_gangs": 6.1, "due_slack_s": 1600.0}),
        900: film.model_copy(update={"backlog_gpu_s": 2000.0, "required_gangs": 0.8, "due_slack_s": 1000.0}),
        1200: film.model_copy(update={"backlog_gpu_s": 240.0, "required_gangs": 0.1, "due_slack_s": 900.0}),
        1400: demand(0, gpus_per_gang=4),
    }
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (.*) \|$", EXAMPLE.read_text(encoding="utf-8"), re.M)
    told = {int(after_s): (int(ready), int(idle), int(starting), said) for after_s, ready, idle, starting, said in rows}
    assert len(told) == 9
    asking = Asking(PoolTerms(max_gangs=12), ScalingTargets())
    for after_s in range(0, 1701, 10):
        asking.now = START + after_s
        now = measured[max(when for when in measured if when <= after_s)]
        ready, idle, starting, said = told[max(when for when in told if when <= after_s)]
        there = supply(ready, idle, starting=starting, cold_start_s=240.0)
        decision = asking.ask_once(now.model_copy(update={"measured_at": asking.now}), there)
        if after_s in told:
            assert (after_s, decision.reason) == (after_s, said)
