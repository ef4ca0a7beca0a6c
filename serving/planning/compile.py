"""Storyboard to plan: takes, lengths, prompts, chunks and what they cost. Pure; it renders nothing and opens no model.

A shot is rounded to whole frames. A take renders the smallest length on the model's grid that holds its shots and its
handles. A dissolve of d frames is centred on its cut: floor(d/2) frames before it, the rest after.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serving.documents.places import Place
from serving.errors import Problem, StoryboardError
from serving.planning.pictures import Pictures
from serving.planning.plan import FilmPlan, ShotPlan, TakePicture, TakePlan, TakePrompt, given_latents
from serving.planning.prompt_fitting import FittedPrompt, TokenCounter, fit_prompt
from serving.planning.stitching import choose_stitching, refused_stitching
from serving.settings import QUALITY_STEPS
from serving.storyboard.schema import Dissolve, Storyboard, storyboard_hash
from sharding.capabilities import Capabilities
from sharding.prompts import count_prompts
from sharding.spans import Frames, FrameSpan, Grid, Latents, LatentSpan
from sharding.stitching import Schedule, StitchingKind, schedule

MAX_FRAME_PIXELS = 3840 * 2160
"""Pixels of one frame, width times height."""


__all__ = ["FilmPlan", "ShotPlan", "TakePlan", "TakePrompt", "compile_storyboard", "round_to_frames"]


@dataclass(frozen=True)
class _Draft:
    """A take before it meets the model's grid: its shots between two dissolves, both in frames."""

    seed: int
    shots: tuple[ShotPlan, ...]
    dissolve_in: int
    dissolve_out: int
    pictures: tuple[TakePicture, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return self.head + sum(shot.frames for shot in self.shots) + self.tail

    @property
    def head(self) -> int:
        return self.dissolve_in // 2

    @property
    def tail(self) -> int:
        return self.dissolve_out - self.dissolve_out // 2


@dataclass(frozen=True)
class _Work:
    """What the chunk schedule of one take amounts to."""

    chunks_per_step: tuple[int, ...]
    evaluations: int
    latents_evaluated: int
    latents_predicted: int
    """Latents over all calls, each call counted once."""
    longest_chain: int
    ready_calls: int
    calls_at_once: int


def compile_storyboard(
    storyboard: Storyboard,
    *,
    model_name: str,
    capabilities: Capabilities,
    tokens: TokenCounter | None = None,
    steps: int | None = None,
) -> FilmPlan:
    """The plan of a film on a model. `tokens` counts those of its prompts, `steps` overrides what the storyboard's
    quality stands for.

    Raises StoryboardError if the storyboard asks for what the model cannot do.
    """
    width = storyboard.video.width or capabilities.width
    height = storyboard.video.height or capabilities.height
    fps = storyboard.video.fps or capabilities.fps
    num_steps = QUALITY_STEPS[storyboard.quality] if steps is None else steps
    shots, warnings = _plan_shots(storyboard, fps, tokens)
    pictures = Pictures(storyboard, capabilities.pictures, capabilities.grid, model_name=model_name)
    groups = _split_takes(shots)
    dissolves = [round_to_frames(seconds, fps) if (seconds := group[0].dissolve_seconds) else 0 for group in groups]
    problems = [
        *_size_problems(storyboard, capabilities, width=width, height=height),
        *_dissolve_problems(storyboard, groups, dissolves, fps=fps),
        *refused_stitching(storyboard, capabilities, model_name=model_name),
    ]
    if problems:
        raise StoryboardError(problems)
    seeds = {shot.id: shot.seed for shot in storyboard.shots}
    planned: list[tuple[TakePlan, _Work]] = []
    for group, into, out_of in zip(groups, dissolves, [*dissolves[1:], 0], strict=True):
        own_seed = seeds[group[0].id]
        seed = storyboard.seed if own_seed is None else own_seed
        draft = _Draft(seed=seed, shots=tuple(group), dissolve_in=into, dissolve_out=out_of)
        latents = capabilities.grid.latents_for(Frames(draft.frames))
        landed, unfit = pictures.of_take(group, head=draft.head, latents=latents, fps=fps)
        references, too_many = pictures.references(group)
        problems += [*unfit, *too_many]
        draft = replace(draft, pictures=landed, references=references)
        asked = storyboard.stitching
        planned.append(_plan_take(draft, latents, capabilities=capabilities, steps=num_steps, asked=asked))
    if problems:
        raise StoryboardError(problems)
    takes = tuple(take for take, _ in planned)
    warnings += _unseen_prompts(storyboard, takes, capabilities)
    latent_steps = num_steps * sum(take.latents for take in takes)
    return FilmPlan(
        title=storyboard.title,
        model=model_name,
        width=width,
        height=height,
        fps=fps,
        steps=num_steps,
        identity=storyboard.identity,
        seed=storyboard.seed,
        takes=takes,
        frames=sum(take.shot_frames for take in takes),
        calls=sum(take.calls for take in takes),
        evaluations=sum(take.evaluations for take in takes),
        latents_evaluated=sum(take.latents_evaluated for take in takes),
        overlap_waste=sum(work.latents_predicted for _, work in planned) / latent_steps - 1,
        storyboard_hash=storyboard_hash(storyboard),
        fitting=storyboard.video.fitting,
        warnings=tuple(warnings),
    )


def round_to_frames(seconds: float, fps: int) -> int:
    """Whole frames nearest to a length, halves up, at least one."""
    return max(1, math.floor(seconds * fps + 0.5))


def _plan_shots(storyboard: Storyboard, fps: int, tokens: TokenCounter | None) -> tuple[list[ShotPlan], list[Problem]]:
    """The shots, their prompts cut to what the model reads, and what is lost by that."""
    plans: list[ShotPlan] = []
    warnings: list[Problem] = []
    start = 0
    for index, shot in enumerate(storyboard.shots):
        frames = round_to_frames(shot.seconds, fps)
        prompt = fit_prompt(storyboard.written_prompt(shot), storyboard.style, tokens)
        negative = fit_prompt(storyboard.negative if shot.negative is None else shot.negative, "", tokens)
        warnings += _lost_words(storyboard, index, prompt, negative, tokens)
        plans.append(
            ShotPlan(
                id=shot.id,
                prompt=prompt.text,
                negative=negative.text,
                seconds=shot.seconds,
                frames=frames,
                film=FrameSpan(start, start + frames),
                transition="dissolve" if isinstance(shot.transition, Dissolve) else shot.transition,
                dissolve_seconds=shot.transition.dissolve if isinstance(shot.transition, Dissolve) else None,
            )
        )
        start += frames
    return plans, list(dict.fromkeys(warnings))


def _lost_words(
    storyboard: Storyboard, index: int, prompt: FittedPrompt, negative: FittedPrompt, tokens: TokenCounter | None
) -> Iterator[Problem]:
    """Warnings of texts of a shot that were cut."""
    own_negative = storyboard.shots[index].negative is not None
    lost: list[tuple[Place, str]] = [
        (("shots", index, "prompt"), prompt.lost_prompt),
        (("style",), prompt.lost_style),
        (("shots", index, "negative") if own_negative else ("negative",), negative.lost_prompt),
    ]
    for place, words in lost:
        if words:
            limit = tokens.limit if tokens is not None else 0
            message = f"the model reads {limit} tokens of a prompt and its style; left out: {_shorten(words)!r}"
            yield storyboard.lines.problem(place, message)


def _unseen_prompts(storyboard: Storyboard, takes: Sequence[TakePlan], capabilities: Capabilities) -> Iterator[Problem]:
    """Warnings of prompts that no latent shows: of shots that are over before their first latent begins."""
    index = {shot.id: i for i, shot in enumerate(storyboard.shots)}
    for take in takes:
        shown = {(prompt.text, prompt.negative) for prompt in take.prompts}
        for shot in take.shots:
            if (shot.prompt, shot.negative) not in shown:
                frames = capabilities.grid.frames_per_latent
                message = (
                    f"is never shown: the shot has {shot.frames} of the {frames} frames of a latent, and the shot that"
                    " continues it begins in the same latent"
                )
                yield storyboard.lines.problem(("shots", index[shot.id], "prompt"), message)


def _shorten(words: str) -> str:
    return words if len(words) <= 200 else words[:197] + "..."


def _split_takes(shots: Sequence[ShotPlan]) -> list[list[ShotPlan]]:
    takes: list[list[ShotPlan]] = []
    for shot in shots:
        if shot.transition == "continue":
            takes[-1].append(shot)
        else:
            takes.append([shot])
    return takes


def _plan_take(
    draft: _Draft, latents: Latents, *, capabilities: Capabilities, steps: int, asked: StitchingKind | None
) -> tuple[TakePlan, _Work]:
    grid = capabilities.grid
    prompts = _plan_prompts(draft, grid)
    support = capabilities.pictures
    shares = _plan_shares(draft.pictures, latents) if support.given else ()
    # A window behind the first picture is shown it in a latent of its own, which takes the place of another.
    shown = 1 if draft.pictures and support.shown and latents > capabilities.window else 0
    window = capabilities.window - shown
    changes = [prompt.start_latent for prompt in prompts[1:]]
    extra = _Extra(each=len(draft.references), later=shown)
    stitching, reason = choose_stitching(asked, capabilities, latents=latents, window=window, steps=steps)
    given = given_latents(shares)
    steps_of_take = schedule(stitching, num_latents=latents, window=window, steps=steps, given=given)
    work = _plan_work(changes, shares, schedule=steps_of_take, extra=extra)
    take = TakePlan(
        key=draft.shots[0].id,
        seed=draft.seed,
        shots=draft.shots,
        latents=latents,
        frames=grid.frames_of(latents),
        head=draft.head,
        tail=draft.tail,
        dissolve_in=draft.dissolve_in,
        prompts=prompts,
        pictures=draft.pictures,
        references=draft.references,
        conditioned=bool(draft.pictures or draft.references) or support.always,
        shares=shares,
        window=window,
        stitching=stitching,
        stitching_reason=reason,
        chunks_per_step=work.chunks_per_step,
        calls=sum(work.chunks_per_step),
        evaluations=work.evaluations,
        latents_evaluated=work.latents_evaluated,
        longest_chain=work.longest_chain,
        ready_calls=work.ready_calls,
        calls_at_once=work.calls_at_once,
    )
    return take, work


def _plan_prompts(draft: _Draft, grid: Grid) -> tuple[TakePrompt, ...]:
    """One prompt per shot; equal neighbours are one, and of several that begin in the same latent the last is kept."""
    prompts: list[TakePrompt] = []
    frame = draft.head
    for shot in draft.shots:
        start = grid.latent_at(Frames(frame)) if prompts else 0
        if prompts and prompts[-1].start_latent == start:
            prompts.pop()
        if not prompts or (prompts[-1].text, prompts[-1].negative) != (shot.prompt, shot.negative):
            prompts.append(TakePrompt(shot.prompt, shot.negative, start))
        frame += shot.frames
    return tuple(prompts)


def _plan_shares(pictures: Sequence[TakePicture], latents: int) -> tuple[float, ...]:
    share = {picture.latent: 1 - picture.strength for picture in pictures}
    return tuple(share.get(n, 1.0) for n in range(latents)) if pictures else ()


@dataclass(frozen=True)
class _Extra:
    """Latents that windows are shown beside their own."""

    each: int
    later: int
    """Only those behind a take's first latent."""


def _plan_work(changes: Sequence[int], shares: Sequence[float], *, schedule: Schedule, extra: _Extra) -> _Work:
    waits = [not shares or shares[n] > 0 for n in range(schedule.cover(0)[-1].stop)]
    rows = [
        [span for span in schedule.cover(step) if any(waits[n] for n in span)] for step in range(schedule.num_steps)
    ]
    spans = [_read_span(schedule, step, span) for step, row in enumerate(rows) for span in row]  # given needs no call
    parts = [count_prompts(changes, span) for span in spans]
    lengths = [len(span) + extra.each + (extra.later if span.start else 0) for span in spans]
    return _Work(
        chunks_per_step=tuple(len(row) for row in rows),
        evaluations=sum(parts),
        latents_evaluated=sum(num * length for num, length in zip(parts, lengths, strict=True)),
        latents_predicted=sum(lengths),
        longest_chain=max((schedule.calls_left(0, span) for span in rows[0]), default=0),
        ready_calls=sum(not any(waits[n] and n not in span for n in _read_span(schedule, 0, span)) for span in rows[0]),
        calls_at_once=max(schedule.at_once(step, row) for step, row in enumerate(rows)),
    )


def _read_span(schedule: Schedule, step: int, span: LatentSpan) -> LatentSpan:
    context = schedule.context(step, span)
    return LatentSpan(span.start - context.before, span.stop + context.after)


def _size_problems(storyboard: Storyboard, capabilities: Capabilities, *, width: int, height: int) -> Iterator[Problem]:
    multiple = capabilities.size_multiple
    sides = ("width", width, capabilities.max_width), ("height", height, capabilities.max_height)
    for name, pixels, most in sides:
        if most is not None and pixels > most:
            message = f"must be at most {most} pixels for this model, which has no positions beyond"
            yield storyboard.lines.problem(("video", name), message, value=str(pixels))
        elif pixels % multiple:
            nearest = max(multiple, round(pixels / multiple) * multiple)
            message = f"must be a multiple of {multiple} pixels for this model"
            yield storyboard.lines.problem(("video", name), message, value=str(pixels), nearest=str(nearest))
    if width * height > MAX_FRAME_PIXELS:
        message = f"width times height must be at most {MAX_FRAME_PIXELS} pixels"
        yield storyboard.lines.problem(("video",), message, value=f"{width} x {height}")


def _dissolve_problems(
    storyboard: Storyboard, groups: Sequence[Sequence[ShotPlan]], dissolves: Sequence[int], *, fps: int
) -> Iterator[Problem]:
    """No dissolve may be longer than a take beside it: then those at its two ends never overlap."""
    index = {shot.id: i for i, shot in enumerate(storyboard.shots)}
    lengths = [sum(shot.frames for shot in group) for group in groups]
    for take in range(1, len(groups)):
        most = min(lengths[take - 1], lengths[take])
        if dissolves[take] > most:
            place = ("shots", index[groups[take][0].id], "transition", "dissolve")
            message = f"must be no longer than the shots beside it: at most {most / fps:g} seconds here"
            yield storyboard.lines.problem(place, message, value=f"{groups[take][0].dissolve_seconds:g} seconds")
