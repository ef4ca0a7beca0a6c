"""`longtake plan`: what a storyboard would take to render, without rendering it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.film_plan import plan_film, read_storyboard
from serving.cli.options import AsJson, Model, Steps, StoryboardPath
from serving.cli.output.terminal import open_table, print_json, print_line, print_table
from serving.cli.pictures import read_pictures
from serving.errors import UserError
from serving.settings import MAX_POOL_GANGS

if TYPE_CHECKING:
    from rich.table import Table

    from serving.models.wan import WanModel
    from serving.planning.plan import FilmPlan, ShotPlan
    from serving.render.local.call_cost import Estimate
    from sharding.advice import Advice


def plan(
    storyboard: StoryboardPath,
    model: Model = None,
    steps: Steps = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, max=MAX_POOL_GANGS, help="Say how to lay gangs out on so many GPUs.")
    ] = None,
    gpu_gib: Annotated[float, typer.Option(min=1, help="Memory of each of these GPUs.")] = 80.0,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="How many of them share a node.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Show the takes, chunks, calls, time and memory that a storyboard takes."""
    board, _ = read_pictures(read_storyboard(storyboard, model=model, seed=None), storyboard, local=True)
    film, opened = plan_film(board, storyboard, steps=steps, model_given=model is not None)

    from serving.planning.plan import plan_json

    advice = None if gpus is None else _advise(film, opened, gpus=gpus, gpu_gib=gpu_gib, gpus_per_node=gpus_per_node)
    expected = _estimate(film, opened)
    if as_json:
        print_json(
            {
                **plan_json(film),
                "estimate": asdict(expected) if expected else None,
                "advice": {**asdict(advice), "shape": str(advice.shape)} if advice else None,
            }
        )
        return
    print_line(_headline(film))
    print_table(_shot_table(film))
    print_table(_take_table(film))
    if any(take.assets for take in film.takes):
        print_table(_picture_table(film))
    for line in _stitchings(film):
        print_line(line)
    print_line(_totals(film))
    print_line(_describe_estimate(expected))
    if advice is not None:
        gangs = "1 gang" if advice.gangs == 1 else f"{advice.gangs} gangs"
        print_line(f"on {gpus} GPUs: {gangs} of shape {advice.shape}")
        for reason in advice.reasons:
            print_line(f"  - {reason}")


def _advise(film: "FilmPlan", model: "WanModel", *, gpus: int, gpu_gib: float, gpus_per_node: int) -> "Advice":
    """Raises UserError if the film does not fit these GPUs."""
    from serving.config.gang_shapes import parts_to_fit
    from sharding.advice import advise

    latents = min(model.capabilities.window, max(take.latents for take in film.takes))
    work = model.workload(width=film.width, height=film.height, latents=latents)
    try:
        parts = parts_to_fit(model, tokens=work.tokens, gpu_gib=gpu_gib)
        calls = sum(take.calls_at_once for take in film.takes)
        return advise(work, gpus=gpus, calls_at_once=calls, parts=parts, gpus_per_node=gpus_per_node)
    except ValueError as error:
        raise UserError(f"--gpus: {error}") from error


def _estimate(film: "FilmPlan", model: "WanModel") -> "Estimate | None":
    """Time and memory with one gang per core, or None for a model from a hub: a plan must not fetch its weights."""
    if model.checkpoint.snapshot is not None:
        return None
    import psutil

    from serving.render.local.call_cost import estimate

    return estimate(film, model=model, gangs=psutil.cpu_count() or 1)


def _describe_estimate(expected: "Estimate | None") -> str:
    if expected is None:
        return "time and memory: not estimated, since that would fetch the model's weights"
    return (
        f"about {expected.seconds:.0f} seconds here"
        f" ({expected.per_latent_s * 1000:.0f} ms per latent, {expected.source}),"
        f" {_mib(expected.weights_bytes)} of weights per gang, {_mib(expected.timeline_bytes)} of latents"
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.3g} MiB"


def _headline(film: "FilmPlan") -> str:
    return (
        f"{film.title}: {film.frames} frames, {film.frames / film.fps:.2f} seconds"
        f" at {film.width}x{film.height}, {film.fps} fps, {film.steps} steps, {film.model}"
    )


def _shot_table(film: "FilmPlan") -> "Table":
    table = open_table("shot", "begins", "asked s>", "real s>", "frames>")
    for take in film.takes:
        for shot in take.shots:
            real = f"{shot.frames / film.fps:.4g}"
            table.add_row(shot.id, _begins(shot), f"{shot.seconds:.6g}", real, str(shot.frames))
    return table


def _take_table(film: "FilmPlan") -> "Table":
    table = open_table(
        "take", "latents>", "frames>", "handles>", "stitching", "chunks\nper step>", "calls>", "evaluations>"
    )
    for take in film.takes:
        fewest, most = min(take.chunks_per_step), max(take.chunks_per_step)
        table.add_row(
            take.key,
            str(take.latents),
            str(take.frames),
            f"{take.head}+{take.tail}",
            take.stitching.kind,
            str(most) if fewest == most else f"{fewest}-{most}",
            str(take.calls),
            str(take.evaluations),
        )
    return table


def _picture_table(film: "FilmPlan") -> "Table":
    """When each picture is asked for and where it lands, in seconds of the film; those of characters have no time."""
    table = open_table("picture", "shot", "place", "asked s>", "real s>", "latent>", "strength>")
    for take in film.takes:
        start = take.shots[0].film.start - take.head
        for picture in take.pictures:
            asked, real = ((start + frame) / film.fps for frame in (picture.frame, picture.real_frame))
            place = (picture.asset[:12], picture.shot, picture.place.replace("keyframe", "at"))
            table.add_row(*place, f"{asked:.4g}", f"{real:.4g}", str(picture.latent), f"{picture.strength:g}")
        for asset in take.references:
            table.add_row(asset[:12], take.key, "character", *[""] * 4)
    return table


def _stitchings(film: "FilmPlan") -> list[str]:
    """Each stitching of the film, why, and how many calls come one after another at most."""
    chosen: dict[tuple[str, str], int] = {}
    for take in film.takes:
        why = take.stitching.kind, take.stitching_reason
        chosen[why] = max(chosen.get(why, 0), take.longest_chain)
    return [f"{kind}, because {reason}; at most {calls} calls in a row" for (kind, reason), calls in chosen.items()]


def _totals(film: "FilmPlan") -> str:
    return (
        f"{film.calls} calls, {film.evaluations} evaluations (calls with two prompts count twice),"
        f" overlap waste {film.overlap_waste:.1%}"
    )


def _begins(shot: "ShotPlan") -> str:
    return shot.transition if shot.dissolve_seconds is None else f"dissolve {shot.dissolve_seconds:g} s"
