"""The latents of a take depend on its noise, solver and cover: no order, repeat, loss or restart changes a bit."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharding.chunks import ChunkLimits, plan_chunks, shifted_chunks
from sharding.fusion import weigh
from sharding.noise import initial_noise, unit_normal
from sharding.solver import EulerSolver, History, Solver, TwoStepSolver, VisitingSolver, flow_sigmas
from sharding.spans import NO_CONTEXT, Context, LatentSpan
from sharding.timeline import Call, Recipe, Timeline, head_first

SHAPE = (2, 2, 3)


@dataclass(frozen=True)
class AncestralSolver(EulerSolver):
    """Euler with fresh noise at each step: what it adds must depend on the latent and step alone."""

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        assert noise is not None
        after, history = super().step(i, x, v, history, None)
        return after + 0.1 * self.sigmas[i + 1] * noise, history


def toy_prediction(x: Tensor, step: int) -> Tensor:
    """A nonlinear model in which every latent of the window bears on every other, and its place in the window too."""
    place = torch.linspace(-1, 1, len(x)).view(-1, 1, 1, 1)
    return torch.tanh(x * 1.3 + x.mean(0, keepdim=True) * place + 0.1 * step) + 0.2 * x.flip(0)


@dataclass(frozen=True)
class Case:
    noise: Tensor
    recipe: Recipe


def shares_for(num_latents: int) -> st.SearchStrategy[tuple[float, ...]]:
    """Nothing given, or any latents; often a few, sometimes nearly all."""
    some = st.lists(st.sampled_from([0.0, 0.0, 0.3, 1.0, 1.0, 1.0]), min_size=num_latents, max_size=num_latents)
    return st.one_of(st.just(()), some.map(tuple))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    window = draw(st.integers(3, 12))
    num_latents = draw(st.integers(1, 5 * window))
    num_steps = draw(st.integers(1, 9))
    sigmas = flow_sigmas(num_steps, shift=draw(st.sampled_from([1.0, 5.0])))
    solvers: list[Callable[[tuple[float, ...]], Solver]] = [EulerSolver, TwoStepSolver, AncestralSolver]
    solver = draw(st.sampled_from(solvers))(sigmas)
    limits = ChunkLimits(window)
    if draw(st.booleans()):
        limits = ChunkLimits(window, overlap_late=draw(st.integers(0, limits.shortest - 1)))

    def ours(step: int) -> tuple[LatentSpan, ...]:
        return plan_chunks(num_latents, limits, step, num_steps)

    def shifted(step: int) -> tuple[LatentSpan, ...]:
        return shifted_chunks(num_latents, window=window, overlap=min(2, window - 1), step=step)

    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    recipe = Recipe(
        solver=solver,
        cover=draw(st.sampled_from([ours, shifted])),
        weigh_spans=draw(st.sampled_from([weigh, lambda spans: weigh(spans, "pyramid")])),
        context=lambda step, span: Context(before, after, at=step),
        shares=draw(shares_for(num_latents)),
        renewed=draw(st.frozensets(st.integers(1, num_steps))),
        step_noise=lambda n, step: unit_normal(SHAPE, "step", n, step),
    )
    noise = initial_noise(
        SHAPE,
        num_latents=num_latents,
        storyboard_seed=1,
        take_seed=draw(st.integers(0, 5)),
        take_key="take",
        window=window,
        identity=0.3,
    )
    return Case(noise, recipe)


def synchronous_reference(case: Case, *, start: int = 0) -> Tensor:
    """The same mathematics, one step after the other from `start` on, without a timeline."""
    x, recipe = case.noise.clone(), case.recipe
    histories: list[History] = [()] * len(x)
    for i in range(start, recipe.solver.num_steps):
        x = torch.stack([entered(x[n], n, i, recipe) for n in range(len(x))])
        spans = recipe.cover(i)
        fused: list[Tensor | None] = [None] * len(x)
        for span, weights in zip(spans, recipe.weigh_spans(spans), strict=True):
            beside = recipe.context(i, span)
            left = max(0, span.start - beside.before)
            v = toy_prediction(x[left : span.stop + beside.after], i)[span.start - left :]
            for at, n in enumerate(span):
                part = weights[at] * v[at]
                before = fused[n]
                fused[n] = part if before is None else before + part
        for n in range(len(x)):
            v_n = fused[n]
            assert v_n is not None
            x[n], histories[n] = stepped(x[n], v_n, histories[n], n, i, recipe)
    return x


def share_of(n: int, recipe: Recipe) -> float:
    return recipe.shares[n] if recipe.shares else 1.0


def entered(x_n: Tensor, n: int, step: int, recipe: Recipe) -> Tensor:
    """Latent n as it begins a step."""
    share = share_of(n, recipe)
    if step not in recipe.renewed or share == 0:
        return x_n.clone()
    assert recipe.step_noise is not None
    level = share * recipe.solver.level(step)
    return (1 - level) * x_n + level * recipe.step_noise(n, step)


def stepped(x_n: Tensor, v_n: Tensor, history: History, n: int, step: int, recipe: Recipe) -> tuple[Tensor, History]:
    """Latent n after a step, from what it was as it began."""
    share = share_of(n, recipe)
    if share == 0:
        return x_n, history
    v_n = share * v_n if share < 1 else v_n
    if step + 1 in recipe.renewed:
        return recipe.solver.clean(step, x_n, v_n), ()
    noise = recipe.step_noise(n, step) if recipe.step_noise else None
    return recipe.solver.step(step, x_n.clone(), v_n, history, noise)


@st.composite
def chains(draw: st.DrawFn) -> Case:
    """Spans that do not overlap, each with finished latents beside it as context: of the one before, or of those on
    both its sides, between which it is filled in."""
    length, count = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    num_latents = length * count - draw(st.integers(0, length - 1))
    spans = tuple(LatentSpan(start, min(start + length, num_latents)) for start in range(0, num_latents, length))
    size, keyed = draw(st.integers(1, 2)), draw(st.booleans())

    def context(step: int, span: LatentSpan) -> Context:
        index = spans.index(span)
        if not keyed:
            return Context(before=size)
        return Context(before=size, after=size) if index % 2 else Context()

    solvers: list[Callable[[tuple[float, ...]], Solver]] = [EulerSolver, TwoStepSolver]
    recipe = Recipe(
        solver=draw(st.sampled_from(solvers))(flow_sigmas(draw(st.integers(1, 5)), shift=3.0)),
        cover=lambda step: spans,
        context=context,
        shares=draw(shares_for(num_latents)),
    )
    noise = torch.stack([unit_normal(SHAPE, "chain", n) for n in range(num_latents)])
    return Case(noise, recipe)


def chained_reference(case: Case) -> Tensor:
    """Span after span through all its steps, those without context first; no timeline."""
    x, recipe = case.noise.clone(), case.recipe
    for span in sorted(recipe.cover(0), key=lambda span: (recipe.context(0, span).after, span.start)):
        denoise_span(x, span, recipe, steps=recipe.solver.num_steps)
    return x


def denoise_span(x: Tensor, span: LatentSpan, recipe: Recipe, *, steps: int) -> None:
    """Take one span of x through its first steps, beside context that stays as it is."""
    beside = recipe.context(0, span)
    start, stop = max(0, span.start - beside.before), span.stop + beside.after
    histories: dict[int, History] = dict.fromkeys(span, ())
    for i in range(steps if any(share_of(n, recipe) > 0 for n in span) else 0):
        for n in span:
            x[n] = entered(x[n], n, i, recipe)
        v = toy_prediction(x[start:stop], i)
        for n in span:
            x[n], histories[n] = stepped(x[n], v[n - start], histories[n], n, i, recipe)


@st.composite
def drafts(draw: st.DrawFn) -> Case:
    """A chain of some steps, each span beside the draft of the one before it, and a joint refinement of new noise."""
    window = draw(st.integers(3, 8))
    size = draw(st.integers(1, window - 1))
    num_latents = draw(st.integers(1, 4 * window))
    draft, refine = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    starts = [0, *range(window, num_latents, window - size)]
    chain = tuple(
        LatentSpan(start, min(window if start == 0 else start + window - size, num_latents)) for start in starts
    )
    limits = ChunkLimits(window)
    first: Solver = EulerSolver(flow_sigmas(draft, shift=3.0))
    solvers: list[Callable[[tuple[float, ...]], Solver]] = [EulerSolver, TwoStepSolver]
    second = draw(st.sampled_from(solvers))(flow_sigmas(refine + 2, shift=3.0))
    recipe = Recipe(
        solver=VisitingSolver((*((first, i) for i in range(draft)), *((second, i + 2) for i in range(refine)))),
        cover=lambda step: chain if step < draft else plan_chunks(num_latents, limits, step, draft + refine),
        context=lambda step, span: Context(before=size, at=draft) if step < draft else NO_CONTEXT,
        shares=draw(shares_for(num_latents)),
        renewed=frozenset({draft}),
        step_noise=lambda n, step: unit_normal(SHAPE, "draft", n, step),
    )
    return Case(torch.stack([unit_normal(SHAPE, "first", n) for n in range(num_latents)]), recipe)


def drafted_reference(case: Case) -> Tensor:
    """The whole draft, then every step of the refinement; no timeline."""
    (draft,) = case.recipe.renewed
    x = case.noise.clone()
    for span in case.recipe.cover(0):
        denoise_span(x, span, case.recipe, steps=draft)
    return synchronous_reference(Case(x, case.recipe), start=draft)


def latents_of(timeline: Timeline) -> Tensor:
    return torch.stack([timeline.latent(n) for n in range(timeline.num_latents)])


def run(case: Case, order: random.Random) -> Tensor:
    """Finish the take with gangs that answer in random order, late, twice or not at all, and restarts in between."""
    timeline = Timeline(case.noise, case.recipe)
    in_flight: list[tuple[Call, Tensor]] = []
    answered: list[tuple[Call, Tensor]] = []
    while not timeline.done:
        ready = timeline.ready()
        if ready and (not in_flight or order.random() < 0.6):
            call = order.choice(ready)  # possibly one that is in flight already: a repeat
            in_flight.append((call, toy_prediction(timeline.input_of(call), call.step)))
        if in_flight and order.random() < 0.6:
            call, prediction = in_flight.pop(order.randrange(len(in_flight)))
            if order.random() < 0.2:
                continue  # dropped: the gang died
            timeline.accept(call, prediction)
            answered.append((call, prediction))
        if answered and order.random() < 0.2:  # a duplicate, possibly very late
            before = timeline.latent_steps()
            assert timeline.accept(*order.choice(answered)) is False
            assert timeline.latent_steps() == before
        if order.random() < 0.15:
            timeline = Timeline.restore(timeline.snapshot(), case.recipe)
    return latents_of(timeline)


@settings(max_examples=120)
@given(cases(), st.integers(0, 2**32).map(random.Random))
def test_any_order_with_losses_repeats_and_restarts_gives_the_same_bits(case: Case, order: random.Random) -> None:
    assert torch.equal(run(case, order), synchronous_reference(case))


@settings(max_examples=80)
@given(chains(), st.integers(0, 2**32).map(random.Random))
def test_chunks_that_wait_for_finished_context_give_the_same_bits_in_any_order(
    case: Case, order: random.Random
) -> None:
    assert torch.equal(run(case, order), chained_reference(case))


@settings(max_examples=80)
@given(drafts(), st.integers(0, 2**32).map(random.Random))
def test_a_draft_that_is_refined_while_it_goes_on_gives_the_same_bits_in_any_order(
    case: Case, order: random.Random
) -> None:
    assert torch.equal(run(case, order), drafted_reference(case))


def test_a_draft_is_read_clean_until_the_next_chunk_is_drafted_and_then_begins_with_new_noise() -> None:
    chain = (LatentSpan(0, 3), LatentSpan(3, 5))
    solver = EulerSolver((1.0, 0.5, 0.0))
    recipe = Recipe(
        VisitingSolver(((EulerSolver((1.0, 0.0)), 0), (solver, 1))),
        lambda step: (LatentSpan(0, 5),) if step else chain,
        context=lambda step, span: Context() if step else Context(before=1, at=1),
        renewed=frozenset({1}),
        step_noise=lambda n, step: torch.full(SHAPE, 8.0),
    )
    timeline = Timeline(torch.ones(5, *SHAPE), recipe)
    (first,) = timeline.ready()
    timeline.accept(first, torch.zeros(3, *SHAPE))
    (second,) = timeline.ready()
    assert timeline.shares_of(second) == (0.0, 1.0, 1.0)
    assert torch.equal(timeline.input_of(second), torch.ones(3, *SHAPE)), "no noise is added to context"
    timeline.accept(second, torch.zeros(3, *SHAPE))
    (refining,) = timeline.ready()
    assert torch.equal(timeline.input_of(refining), torch.full((5, *SHAPE), 0.5 * 1 + 0.5 * 8))
    assert timeline.shares_of(refining) == (1.0,) * 5


@settings(max_examples=40)
@given(cases())
def test_given_latents_are_finished_from_the_start_and_never_change(case: Case) -> None:
    timeline = Timeline(case.noise, case.recipe)
    given_latents = [n for n, share in enumerate(case.recipe.shares) if share == 0]
    assert timeline.num_finished == len(given_latents)
    while not timeline.done:
        call = timeline.ready()[0]
        shares = timeline.shares_of(call)
        assert [share == 0 for share in shares] == [n in given_latents for n in call.reads]
        timeline.accept(call, toy_prediction(timeline.input_of(call), call.step))
    assert all(torch.equal(timeline.latent(n), case.noise[n]) for n in given_latents)


def test_a_take_whose_every_latent_is_given_is_done_and_has_no_call() -> None:
    recipe = Recipe(EulerSolver(flow_sigmas(3, shift=1)), lambda step: (LatentSpan(0, 3),), shares=(0.0,) * 3)
    timeline = Timeline(torch.ones(3, *SHAPE), recipe)
    assert timeline.done
    assert timeline.ready() == ()
    assert timeline.num_reported() == 0


def test_finished_context_is_read_clean_and_what_is_denoised_is_not() -> None:
    spans = (LatentSpan(0, 3), LatentSpan(3, 6))
    recipe = Recipe(
        EulerSolver(flow_sigmas(2, shift=1)), lambda step: spans, context=lambda step, span: Context(before=2)
    )
    timeline = Timeline(torch.ones(6, *SHAPE), recipe)
    while (call := timeline.ready()[0]).span == spans[0]:
        assert timeline.shares_of(call) == (1.0, 1.0, 1.0)
        timeline.accept(call, torch.ones(3, *SHAPE))
    assert call == Call(0, 1, spans[1], LatentSpan(1, 6))
    assert timeline.shares_of(call) == (0.0, 0.0, 1.0, 1.0, 1.0)


@settings(max_examples=40)
@given(cases(), st.integers(0, 2**32).map(random.Random))
def test_counts_only_grow_and_end_at_all_latents(case: Case, order: random.Random) -> None:
    timeline = Timeline(case.noise, case.recipe)
    head, finished = timeline.finished_head, timeline.num_finished
    calls = 0
    while not timeline.done:
        call = order.choice(timeline.ready())
        assert timeline.accept(call, toy_prediction(timeline.input_of(call), call.step)) is True
        calls += 1
        assert timeline.finished_head >= head
        assert timeline.num_finished >= max(finished, timeline.finished_head)
        head, finished = timeline.finished_head, timeline.num_finished
    assert timeline.ready() == ()
    assert calls == timeline.num_reported()
    if not case.recipe.shares:
        assert calls == sum(len(case.recipe.cover(i)) for i in range(case.recipe.solver.num_steps))
    assert finished == timeline.num_latents
    assert timeline.snapshot().predictions == {}


@settings(max_examples=25)
@given(cases(), st.integers(0, 2**32).map(random.Random))
def test_a_latent_is_not_stepped_before_every_chunk_that_reads_it_has_reported(
    case: Case, order: random.Random
) -> None:
    timeline = Timeline(case.noise, case.recipe)
    while not timeline.done:
        call = order.choice(timeline.ready())
        given_before = timeline.input_of(call)
        others = [other for other in timeline.ready() if other != call]
        for other in others[:2]:
            timeline.accept(other, toy_prediction(timeline.input_of(other), other.step))
        assert torch.equal(timeline.input_of(call), given_before)
        timeline.accept(call, toy_prediction(given_before, call.step))


def small() -> tuple[Timeline, Call]:
    limits = ChunkLimits(4)
    recipe = Recipe(solver=EulerSolver(flow_sigmas(3, shift=1)), cover=lambda step: plan_chunks(10, limits, step, 3))
    timeline = Timeline(torch.zeros(10, *SHAPE), recipe)
    return timeline, timeline.ready()[0]


def test_an_input_and_a_snapshot_share_no_memory_with_the_timeline() -> None:
    timeline, call = small()
    snapshot = timeline.snapshot()
    timeline.input_of(call).fill_(9)
    snapshot.latents.fill_(9)
    assert torch.equal(latents_of(timeline), torch.zeros(10, *SHAPE))


@pytest.mark.parametrize("bad", ["shape", "dtype", "nan"])
def test_a_prediction_that_cannot_be_right_is_refused_and_changes_nothing(bad: str) -> None:
    timeline, call = small()
    prediction = torch.zeros(len(call.reads), *SHAPE)
    prediction = {"shape": prediction[:-1], "dtype": prediction.double(), "nan": prediction / 0}[bad]
    with pytest.raises(ValueError, match="prediction of Call"):
        timeline.accept(call, prediction)
    assert call in timeline.ready()


def test_a_call_that_is_not_ready_is_refused() -> None:
    timeline, call = small()
    later = Call(call.step + 1, call.chunk, call.span, call.reads)
    with pytest.raises(ValueError, match="is not ready"):
        timeline.accept(later, torch.zeros(len(call.reads), *SHAPE))
    with pytest.raises(ValueError, match="is not ready"):
        timeline.input_of(later)


def test_head_first_prefers_the_head_at_a_later_step_to_the_tail_at_an_earlier() -> None:
    head = Call(5, 0, LatentSpan(0, 4), LatentSpan(0, 4))
    tail = Call(2, 3, LatentSpan(9, 13), LatentSpan(9, 13))
    assert sorted([tail, head], key=head_first) == [head, tail]
