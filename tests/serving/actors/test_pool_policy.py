"""The policy by which pools scale, without Ray: it never waits, outlives a Director that is away, says what stands."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.contract.planner import ScalingTargets
from cluster.contract.pools_and_nodes import PoolDemand, PoolSupply, PoolTerms
from serving.actors.pool_policy import SCALE_POLL_S, PoolScaler

TERMS = PoolTerms(min_gangs=0, max_gangs=5)
TARGETS = ScalingTargets(drain_within_s=10.0, hold_s=0.0, idle_for_s=0.0, stale_after_s=30.0)


@dataclass
class SlowAnswer:
    """A question that is answered when the test says so."""

    standing: Mapping[str, Any]
    answer: Any = None
    error: Exception | None = None
    is_there: bool = False

    def done(self) -> bool:
        return self.is_there

    def result(self) -> Any:
        assert self.is_there, "it must not wait"
        if self.error is not None:
            raise self.error
        return self.answer

    def give(self, answer: Any) -> None:
        self.answer, self.is_there = answer, True

    def fail(self, error: Exception) -> None:
        self.error, self.is_there = error, True


@dataclass
class Scene:
    """A scaler, its clock, and the questions that it has asked."""

    now: float = 1000.0
    questions: list[SlowAnswer] = field(default_factory=list)
    is_there: bool = True
    target: int = 0
    running: int = 0

    def __post_init__(self) -> None:
        self.scaler = PoolScaler(ask=self.ask, clock=lambda: self.now)

    def ask(self, standing: Mapping[str, Any]) -> SlowAnswer | None:
        if not self.is_there:
            return None
        self.questions.append(SlowAnswer(standing))
        return self.questions[-1]

    def step(self, passed_s: float = SCALE_POLL_S) -> int:
        """What Serve does at every tick: its target becomes the decision."""
        self.now += passed_s
        self.target = self.scaler.decide(target=self.target, running=self.running)
        return self.target

    def told(self, **answer: Any) -> int:
        """The Director answers the question that is out; two ticks later it is decided."""
        if not self.questions or self.questions[-1].is_there:
            self.step()
        self.questions[-1].give(inputs(self.now, **answer))
        return self.step()


def inputs(
    now: float,
    *,
    backlog: float = 0.0,
    calls: int = 100,
    ready: int = 0,
    idle: int = 0,
    draining: int = 0,
    cold_start_s: float = 0.0,
    terms: PoolTerms = TERMS,
) -> dict[str, Any]:
    demand = PoolDemand(
        measured_at=now, backlog_gpu_s=backlog, gpus_per_gang=1, calls_ready=calls if backlog else 0,
        calls_running=ready - idle, oldest_wait_s=0.0, required_gangs=0.0,
    )  # fmt: skip
    supply = PoolSupply(ready=ready, idle=idle, starting=0, draining=draining, cold_start_s=cold_start_s)
    parts = {"terms": terms, "demand": demand, "supply": supply}
    return {"targets": asdict(TARGETS), **{name: part.model_dump(mode="json") for name, part in parts.items()}}


def test_a_pool_grows_with_its_backlog_and_shrinks_to_nothing() -> None:
    scene = Scene()
    assert scene.told(backlog=35.0) == 4
    scene.running = 4
    assert scene.told(backlog=35.0, ready=4) == 4
    assert scene.told(backlog=0.0, ready=4, idle=4) == 0


def test_one_question_is_out_at_a_time_and_is_asked_no_more_often_than_stated() -> None:
    scene = Scene()
    for _ in range(50):
        scene.step(SCALE_POLL_S / 5)
    assert len(scene.questions) == 1, "it is not answered yet"
    scene.questions[0].give(inputs(scene.now))
    for _ in range(50):
        scene.step(SCALE_POLL_S / 5)
        if not scene.questions[-1].is_there:
            scene.questions[-1].give(inputs(scene.now))
    assert 8 <= len(scene.questions) <= 12


def test_each_question_carries_the_decision_that_stands() -> None:
    scene = Scene()
    scene.told(backlog=35.0)
    scene.told(backlog=35.0, ready=0)
    standing = scene.questions[-1].standing
    assert standing["target"] == 4
    assert standing["decision"]["gangs"] == 4
    assert "35" in standing["decision"]["reason"]


def test_without_a_director_the_gangs_that_are_there_stay() -> None:
    scene = Scene(is_there=False, target=3, running=3)
    assert [scene.step(10.0) for _ in range(20)] == [3] * 20
    scene.is_there = True
    scene.step()
    scene.questions[-1].give(None)  # it has not begun
    assert scene.step() == 3


@pytest.mark.parametrize("answer", [{}, {"terms": {}}, {**inputs(0.0), "demand": {"backlog_gpu_s": "many"}}])
def test_an_answer_that_is_not_understood_changes_nothing(answer: dict[str, Any]) -> None:
    scene = Scene()
    assert scene.told(backlog=35.0) == 4
    scene.step()
    scene.questions[-1].give(answer)
    assert scene.step() == 4


def test_a_director_that_dies_is_asked_again_and_what_it_said_holds() -> None:
    scene = Scene()
    assert scene.told(backlog=25.0) == 3
    scene.step()
    scene.questions[-1].fail(ConnectionError("it died"))
    assert scene.step() == 3
    for _ in range(200):  # longer than anything that was measured is believed
        assert scene.step() == 3
        if not scene.questions[-1].is_there:
            scene.questions[-1].fail(ConnectionError("it is dead"))
    assert scene.told(backlog=0.0, ready=3, idle=3) == 0


def test_terms_that_were_changed_hold_from_the_next_answer_on() -> None:
    scene = Scene()
    assert scene.told(backlog=100.0) == 5
    assert scene.told(backlog=100.0, ready=5, terms=PoolTerms(max_gangs=7)) == 7
    external = PoolTerms(max_gangs=7, mode="external", replicas=2)
    assert scene.told(backlog=100.0, ready=7, idle=7, terms=external) == 2


def test_a_gang_that_was_asked_to_go_and_still_says_that_it_is_ready_does_not_bring_another() -> None:
    scene = Scene()
    scene.told(backlog=25.0)
    scene.running = 3
    assert scene.told(backlog=15.0, ready=3, idle=1) == 2
    assert scene.told(backlog=15.0, ready=3, idle=0) == 2, "one of the three goes, whatever it still says"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answer", "silence", "none", "death"]),
            st.floats(0, 200),
            st.integers(0, 6),
            st.floats(0.01, 40),
        ),
        max_size=40,
    )
)
def test_whatever_is_answered_the_terms_are_kept_and_no_more_go_than_are_idle(
    events: list[tuple[str, float, int, float]],
) -> None:
    scene = Scene()
    standing = (0, 0)  # ready and idle, as answered last
    for kind, backlog, ready, passed_s in events:
        before = scene.target
        question = scene.questions[-1] if scene.questions and not scene.questions[-1].is_there else None
        if question is not None and kind == "answer":
            standing = (ready, ready // 2)
            question.give(inputs(scene.now, backlog=backlog, ready=ready, idle=ready // 2))
        elif question is not None and kind == "none":
            question.give(None)
        elif question is not None and kind == "death":
            question.fail(ConnectionError("gone"))
        after = scene.step(passed_s)
        there = min(standing[0], before)
        busy = there - min(standing[1], there)
        assert TERMS.min_gangs <= after <= TERMS.max_gangs
        assert after >= min(before, busy), "a gang that has calls is let go"
