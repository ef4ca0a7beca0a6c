"""Never two leaders, and one before long: in simulated time, and with real threads against a real server."""

import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.kube.client import Kube, connect
from cluster.kube.election import Election
from cluster.kube.lease import Candidacy, Record, Timing, decide, granted, lease_spec, record_of, resigned, see
from cluster.kube.resources import LEASES
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import TIME_LIMIT_S, Ground, wait_for
from tests.cluster.kube.election_simulation import FINE, TIMING, Simulation, Weather

pytest_plugins = ["tests.cluster.fixtures"]

BAD_WEATHER = st.builds(
    Weather,
    slow_s=st.sampled_from([0.01, 1.0, 6.0]),
    very_slow=st.sampled_from([0.0, 0.1, 0.4]),
    lost=st.sampled_from([0.0, 0.05, 0.3]),
    pause=st.sampled_from([0.0, 0.05, 0.2]),
    crash=st.sampled_from([0.0, 0.02, 0.1]),
    resign=st.sampled_from([0.0, 0.02, 0.1]),
)
FAST = Timing(duration_s=2, renew_deadline_s=1.2, retry_s=0.1)


def record(holder: str, version: str = "1", **more: Any) -> Record:
    return replace(Record(holder=holder, duration_s=15, transitions=3, acquired="then", version=version), **more)


# ------------------------------------------------------------------------------------------------ decisions


def test_a_lease_that_is_not_there_is_created() -> None:
    assert decide(see(Candidacy("me"), None, 0.0), 0.0) == "create"


def test_a_lease_that_nobody_holds_is_taken_at_once() -> None:
    assert decide(see(Candidacy("me"), record(""), 0.0), 0.0) == "take"


def test_a_lease_of_another_is_taken_when_it_has_not_changed_for_its_duration() -> None:
    known = see(Candidacy("me"), record("other"), 100.0)
    for now in (100.0, 110.0, 114.9):
        known = see(known, record("other"), now)
        assert decide(known, now) == "wait"
    assert decide(known, 115.0) == "take"
    known = see(known, record("other", version="2"), 115.0)
    assert decide(known, 129.0) == "wait"


def test_ones_own_lease_is_renewed() -> None:
    assert decide(see(Candidacy("me"), record("me"), 0.0), 0.0) == "renew"


def test_leading_is_counted_from_before_the_renewal_was_sent() -> None:
    known = granted(Candidacy("me"), record("me"), sent_at=100.0, now=104.0)
    assert known.leads(109.9)
    assert not known.leads(110.0)


def test_who_sees_another_as_holder_stops_leading_at_once() -> None:
    known = granted(Candidacy("me"), record("me"), sent_at=100.0, now=100.0)
    assert see(known, record("me", version="2"), 101.0).leads(101.0)
    assert not see(known, record("other", version="3"), 101.0).leads(101.0)
    assert not see(known, None, 101.0).leads(101.0)
    assert not resigned(known).leads(101.0)


def test_taking_counts_a_transition_and_renewing_does_not() -> None:
    taken = lease_spec(see(Candidacy("me"), record("other"), 0.0), "take", wall_now=0.0)
    assert (taken["leaseTransitions"], taken["holderIdentity"]) == (4, "me")
    assert taken["acquireTime"] == taken["renewTime"] == "1970-01-01T00:00:00.000000Z"
    renewed = lease_spec(see(Candidacy("me"), record("me"), 0.0), "renew", wall_now=0.0)
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (3, "then")


def test_a_lease_without_a_duration_is_given_ours() -> None:
    lease = {"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": "other"}}
    assert record_of(lease, TIMING).duration_s == 15


@pytest.mark.parametrize("wrong", [(15, 15.0, 2.0), (15, 10.0, 10.0), (15, 10.0, 0.0)])
def test_times_that_cannot_work_are_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="retry_s < renew_deadline_s < duration_s"):
        Timing(*wrong)


# ------------------------------------------------------------------------------------------------ simulated time


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), candidates=st.integers(1, 5), weather=BAD_WEATHER)
def test_there_are_never_two_leaders_and_terms_rise(seed: int, candidates: int, weather: Weather) -> None:
    simulation = Simulation(Random(seed), candidates, weather)
    simulation.run(600.0)
    assert simulation.doubles == []
    assert simulation.terms == sorted(simulation.terms, key=lambda one: one[0])
    leaders: dict[int, str] = {}
    assert all(leaders.setdefault(term, leader) == leader for term, leader in simulation.terms)


@settings(max_examples=75)
@given(seed=st.integers(0, 2**32), candidates=st.integers(1, 5), weather=BAD_WEATHER)
def test_somebody_leads_soon_after_bad_weather(seed: int, candidates: int, weather: Weather) -> None:
    simulation = Simulation(Random(seed), candidates, weather)
    simulation.run(300.0)
    simulation.weather = FINE
    simulation.run(420.0)  # messages of up to 30 s and candidates of 60 s are still under way
    for moment in range(421, 480):
        simulation.run(float(moment))
        assert len(simulation.leaders()) == 1


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_a_crashed_leader_is_replaced_when_its_lease_has_run_out(seed: int) -> None:
    simulation = Simulation(Random(seed), 3, FINE)
    simulation.run(30.0)
    (leader,) = [seat for seat in simulation.seats if seat.known.me in simulation.leaders()]
    simulation.crash(leader)
    simulation.run(30.0 + TIMING.duration_s + 2 * TIMING.retry_s + 1.0)
    assert len(simulation.leaders()) == 1


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_a_leader_that_resigns_is_replaced_at_once(seed: int) -> None:
    simulation = Simulation(Random(seed), 3, FINE)
    simulation.run(30.0)
    (leader,) = [seat for seat in simulation.seats if seat.known.me in simulation.leaders()]
    simulation.resign(leader)
    simulation.run(30.0 + 1.5 * TIMING.retry_s)
    assert len(simulation.leaders()) == 1


def test_the_simulation_finds_out_a_leader_that_counts_from_the_answer() -> None:
    """Or it would prove nothing: a candidate that counts from when it heard, and up to the very end."""

    def wrong(known: Candidacy, record: Record, *, sent_at: float, now: float) -> Candidacy:
        right = granted(known, record, sent_at=sent_at, now=now)
        return replace(right, leads_until=now + known.timing.duration_s)

    weather = Weather(slow_s=6.0, pause=0.2, crash=0.02)
    found = [Simulation(Random(seed), 3, weather, grant=wrong) for seed in range(50)]
    for simulation in found:
        simulation.run(600.0)
    assert any(simulation.doubles for simulation in found)


# ------------------------------------------------------------------------------------------------ real threads


class Watchman:
    """Looks all the time whether two candidates lead, until it is asked."""

    def __init__(self, *elections: Election) -> None:
        self._elections, self._end, self.doubles = elections, threading.Event(), 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(0.002):
            self.doubles += sum(one.leads() for one in self._elections) > 1

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self.doubles


def candidate(kube: Kube, me: str, namespace: str = "default", timing: Timing = FAST, **more: Any) -> Election:
    return Election(kube, namespace=namespace, name="controller", me=me, random=Random(me), timing=timing, **more)


def test_two_candidates_lead_one_after_the_other(ground: Ground) -> None:
    told: list[bool] = []
    first = candidate(ground.kube, "a", ground.namespace, on_change=told.append)
    second = candidate(ground.kube, "b", ground.namespace)
    first.start()
    wait_for(first.leads)
    second.start()
    watchman = Watchman(first, second)
    wait_for(lambda: second.leader == "a")
    assert not second.leads()
    assert first.stop(TIME_LIMIT_S)
    assert not first.leads()
    wait_for(second.leads)
    assert second.term > first.term
    assert told == [True, False]
    assert second.stop(TIME_LIMIT_S)
    assert watchman.stop() == 0
    spec = ground.kube.get(LEASES, "controller", namespace=ground.namespace)["spec"]
    assert spec["holderIdentity"] == ""


def test_a_leader_that_is_cut_off_stops_before_another_begins(kube_server: KubeServer, tmp_path: Path) -> None:
    with kube_server.beside() as beside:
        first = candidate(connect(kubeconfig=kube_server.kubeconfig(tmp_path / "a")), "a")
        second = candidate(connect(kubeconfig=beside.kubeconfig(tmp_path / "b")), "b")
        first.start()
        wait_for(first.leads)
        second.start()
        watchman = Watchman(first, second)
        kube_server.stop()
        wait_for(lambda: not first.leads())
        wait_for(second.leads)
        kube_server.start()
        wait_for(lambda: first.leader == "b")
        assert not first.leads()
        assert first.stop(TIME_LIMIT_S)
        assert second.stop(TIME_LIMIT_S)
        assert watchman.stop() == 0


def test_leading_survives_a_server_that_fails_now_and_then(kube_server: KubeServer, kube: Kube) -> None:
    election = candidate(kube, "a", timing=Timing(duration_s=60, renew_deadline_s=40.0, retry_s=0.02))
    election.start()
    wait_for(election.leads)
    term = election.term
    kube_server.refuse("leases", times=3, code=500)
    kube_server.refuse("PUT .*leases", code=429, retry_after_s=1)
    kube_server.lose_answer("PUT .*leases", times=2)
    kube_server.lose_request("GET .*leases", times=2)
    wait_for(lambda: kube_server.faults.left == 0)
    before = len(kube_server.writes(plural="namespaces/default/leases"))
    wait_for(lambda: len(kube_server.writes(plural="namespaces/default/leases")) > before + 2)
    assert election.leads()
    assert election.term == term
    assert election.stop(TIME_LIMIT_S)


def test_a_candidate_that_may_not_leads_nothing_and_says_so(
    kube_server: KubeServer, kube: Kube, caplog: pytest.LogCaptureFixture
) -> None:
    kube_server.deny("create", "leases")
    election = candidate(kube, "a")
    election.start()
    wait_for(lambda: "forbidden" in caplog.text)
    assert not election.leads()
    kube_server.allow_all()
    wait_for(election.leads)
    assert election.stop(TIME_LIMIT_S)


def test_what_another_wrote_into_the_lease_stays(kube_server: KubeServer, kube: Kube) -> None:
    meta = {"name": "controller", "namespace": "default", "labels": {"team": "x"}}
    kube.create(LEASES, {"metadata": meta, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}})
    election = candidate(kube, "a")
    election.start()
    wait_for(election.leads)
    assert election.stop(TIME_LIMIT_S)
    stored = kube_server.get("leases", "controller", namespace="default", group="coordination.k8s.io")
    assert stored is not None
    assert stored["metadata"]["labels"] == {"team": "x"}
    assert stored["spec"]["holderIdentity"] == ""


def test_a_candidate_that_never_started_can_be_stopped(kube: Kube) -> None:
    assert candidate(kube, "a").stop(TIME_LIMIT_S)


def test_a_candidate_needs_a_name(kube: Kube) -> None:
    with pytest.raises(ValueError, match="name"):
        candidate(kube, "")
