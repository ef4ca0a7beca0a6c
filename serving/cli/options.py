"""Arguments and options that more than one command takes."""

from pathlib import Path
from typing import Annotated

import typer

from serving.settings import MAX_SEED, MAX_STEPS

StoryboardPath = Annotated[Path, typer.Argument(metavar="STORYBOARD", help="A storyboard, YAML or JSON.")]

Model = Annotated[str | None, typer.Option(help="pocket, a folder or a hub id, instead of the storyboard's model.")]

Seed = Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Seed instead of the storyboard's.")]

Steps = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps instead of those of the storyboard's quality.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or the last letters of it.")]
