"""A planned take as a timeline, and its calls as what a gang is sent."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from serving.planning.plan import FilmPlan, TakePlan
from serving.render.messages import Array, CallInput, Part
from sharding.capabilities import Capabilities
from sharding.noise import initial_noise, renewed_noise
from sharding.prompts import prompt_weights
from sharding.solver import Solver
from sharding.spans import FrameSpan, Grid, Latents
from sharding.timeline import Call, Recipe, Timeline


def open_timeline(
    plan: FilmPlan,
    take: TakePlan,
    *,
    capabilities: Capabilities,
    recipe: Recipe,
    given: Mapping[int, Array] | None = None,
) -> Timeline:
    """The take at its first step: its own noise, and what it is denoised by. `given` are the clean latents that its
    pictures became, float32 [C, h, w] each: as many as have a share below 1 of the noise.
    """
    noise = initial_noise(
        capabilities.latent_shape(width=plan.width, height=plan.height),
        num_latents=take.latents,
        storyboard_seed=plan.seed,
        take_seed=take.seed,
        take_key=take.key,
        window=capabilities.window,
        identity=plan.identity,
    )
    for n, latent in (given or {}).items():
        share = take.shares[n]
        noise[n] = (1 - share) * torch.from_numpy(latent) + share * noise[n]
    return Timeline(noise, recipe)


def open_recipe(
    plan: FilmPlan, take: TakePlan, *, capabilities: Capabilities, solver_of: Callable[[int], Solver]
) -> Recipe:
    """What the take is denoised by; with it a timeline can be restored. `solver_of` gives the model's solver of so many
    steps."""
    shape = capabilities.latent_shape(width=plan.width, height=plan.height)

    def step_noise(n: int, step: int) -> Tensor:
        return renewed_noise(
            shape, n, step, storyboard_seed=plan.seed, take_seed=take.seed, take_key=take.key,
            window=capabilities.window, identity=plan.identity,
        )  # fmt: skip

    return Recipe.of(take.schedule(plan.steps), solver_of=solver_of, step_noise=step_noise, shares=take.shares)


def call_input(timeline: Timeline, call: Call, *, take: TakePlan) -> CallInput:
    """What a gang needs for a ready call."""
    shares = timeline.shares_of(call)
    weighed = prompt_weights(take.prompt_changes, call.reads)
    parts = [
        Part(take.prompts[k].text, take.prompts[k].negative, np.array(weights, np.float32)) for k, weights in weighed
    ]
    return CallInput(
        latents_nChw=np.ascontiguousarray(timeline.input_of(call).numpy()),
        timestep=timeline.solver.timestep(call.step),
        parts=tuple(parts),
        start=call.reads.start,
        shares=shares if any(share != 1 for share in shares) else (),
    )


def seam_regions(plan: FilmPlan, take: TakePlan, *, grid: Grid) -> list[FrameSpan]:
    """Where the chunks of the last step met, in frames of the film: seams made before it heal, these stay.

    Only what a viewer sees of a region is returned; one that lies in handles or surplus is left out.
    """
    spans = take.schedule(plan.steps).cover(plan.steps - 1)
    film = FrameSpan(take.shots[0].film.start, take.shots[-1].film.stop)
    offset = film.start - take.head
    regions = []
    for before, after in itertools.pairwise(spans):
        first = grid.frames_in(Latents(min(after.start, before.stop - 1)))
        last = grid.frames_in(Latents(max(after.start, before.stop - 1)))
        start, stop = max(film.start, first.start + offset), min(film.stop, last.stop + offset + 1)
        if start < stop:
            regions.append(FrameSpan(start, stop))
    return regions
