"""`longtake render`: a storyboard becomes a film. What can be refused is refused before anything heavy is loaded."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.film_plan import plan_film, read_storyboard
from serving.cli.options import AsJson, Model, Seed, Steps, StoryboardPath
from serving.cli.output.film_file import STDOUT, check_film, check_latents_folder, check_room, open_film
from serving.cli.output.terminal import print_json, print_line
from serving.cli.pictures import load_pictures, read_pictures
from serving.errors import UserError
from serving.settings import MAX_GANGS

FILM_BYTES_PER_PIXEL = 0.05
"""Bytes that a film takes at least for each pixel of each frame; the examples, rendered by pocket, take 0.10."""

if TYPE_CHECKING:
    from serving.models.wan import WanModel
    from serving.planning.plan import FilmPlan
    from sharding.gang_shape import GangShape


def render(
    storyboard: StoryboardPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The film to write, ending with .mp4.")],
    model: Model = None,
    seed: Seed = None,
    steps: Steps = None,
    gangs: Annotated[
        int | None, typer.Option(min=1, max=MAX_GANGS, help="Worker processes; the film does not depend on it.")
    ] = None,
    gang: Annotated[
        str, typer.Option("--gang", metavar="SHAPE", help="Ranks of each gang: auto, 1, ulysses=2, cfg=2 x ring=2.")
    ] = "1",
    keep_latents: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep each take's latents here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Render a storyboard into a film."""
    board, files = read_pictures(read_storyboard(storyboard, model=model, seed=seed), storyboard, local=True)
    check_film(out, reads=[storyboard, *files.values()], with_manifest=True, as_json=as_json)
    plan, opened = plan_film(board, storyboard, steps=steps, model_given=model is not None)
    shape = read_shape(gang, plan, opened)
    _check_places(plan, opened, out=out, latents=keep_latents)

    from serving.cli.output.progress import watch
    from serving.render.local.film import render_film

    with open_film(out) as path, watch(fps=plan.fps) as on_progress:
        manifest = render_film(
            plan, model=opened, out=path, gangs=gangs, shape=shape, keep_latents=keep_latents,
            pictures=load_pictures(files), on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        print_json(manifest)
    elif out != STDOUT:
        print_line(f"{out}: {plan.frames} frames, {plan.frames / plan.fps:.1f} seconds, {plan.width}x{plan.height}")


def read_shape(text: str, plan: "FilmPlan", model: "WanModel") -> "GangShape":
    """Raises UserError for what is no shape, or one that cannot share out the film's calls."""
    from serving.config.farm import AUTO
    from sharding.gang_shape import GangShape

    try:
        if text.strip().lower() == AUTO:
            return _fitting_shape(plan, model)
        shape = GangShape.parse(text)
        shape.check(model.workload(width=plan.width, height=plan.height))
    except ValueError as error:
        raise UserError(f"--gang: {error}") from error
    return shape


def _fitting_shape(plan: "FilmPlan", model: "WanModel") -> "GangShape":
    """The smallest that the film's longest call fits into on this machine's GPUs; one rank if there are none. Raises
    ValueError."""
    import torch

    from serving.config.gang_shapes import GIB, choose_gang
    from sharding.gang_shape import GangShape

    if not torch.cuda.is_available():
        return GangShape()
    latents = min(model.capabilities.window, max(take.latents for take in plan.takes))
    memory_gib = torch.cuda.get_device_properties(0).total_memory / GIB
    return choose_gang(
        model, width=plan.width, height=plan.height, latents=latents,
        gpus_per_node=torch.cuda.device_count(), gpu_gib=memory_gib,
    )  # fmt: skip


def _check_places(plan: "FilmPlan", model: "WanModel", *, out: Path, latents: Path | None) -> None:
    """Raises UserError or OutOfSpace for a disk without room for the film, or a folder that cannot take its latents."""
    folder = out.parent if out != STDOUT else Path(tempfile.gettempdir())
    needed = {folder: int(FILM_BYTES_PER_PIXEL * plan.frames * plan.width * plan.height)}
    if latents is not None:
        from serving.render.local.kept_latents import file_names

        check_latents_folder(latents, file_names(len(plan.takes)))
        channels, height, width = model.capabilities.latent_shape(width=plan.width, height=plan.height)
        needed[latents] = needed.get(latents, 0) + 4 * plan.latents * channels * height * width
    check_room(needed)
