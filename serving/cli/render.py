"""`longtake render`: a storyboard becomes a film. What can be refused is refused before anything heavy is loaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.film_plan import plan_film, read_storyboard
from serving.cli.options import AsJson, Model, Seed, Steps, StoryboardPath
from serving.cli.output.terminal import print_json, print_line
from serving.errors import UserError
from serving.settings import MAX_GANGS

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
    board = read_storyboard(storyboard, model=model, seed=seed)
    check_out(out)
    check_folder("--keep-latents", keep_latents)
    plan, opened = plan_film(board, storyboard, steps=steps, model_given=model is not None)
    shape = read_shape(gang, plan, opened)

    from serving.cli.output.progress import watch
    from serving.render.local.film import render_film

    with watch(fps=plan.fps) as on_progress:
        manifest = render_film(
            plan, model=opened, out=out, gangs=gangs, shape=shape, keep_latents=keep_latents, on_progress=on_progress
        )
    if as_json:
        print_json(manifest)
    else:
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
    """The smallest that the film's longest call fits into on this machine's GPUs; one rank where there are none. Raises
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


def check_out(out: Path) -> None:
    """Raises UserError where the film could not be written."""
    parent = out.parent
    if out.suffix.lower() != ".mp4":
        raise UserError(f"--out: the film's name must end with .mp4 (got {str(out)!r})")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file in it")
    if not parent.is_dir():
        raise UserError(f"--out: there is no folder {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--out: the folder {parent} cannot be written to")


def check_folder(option: str, folder: Path | None) -> None:
    """Raises UserError where the folder neither exists nor could be made."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option}: {folder} is a file, not a folder")
    if not folder.exists() and not folder.parent.is_dir():
        raise UserError(f"{option}: there is no folder {folder.parent}")
