"""What `plan` and `render` begin with: the storyboard, its model, and the plan that the two make together.

A problem is told with the file's name and its line, or with the option that brought it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serving.cli.output.terminal import warn
from serving.errors import ModelError, StoryboardError, UserError

if TYPE_CHECKING:
    from serving.models.wan import WanModel
    from serving.planning.plan import FilmPlan
    from serving.storyboard import Storyboard


def read_storyboard(path: Path, *, model: str | None, seed: int | None) -> "Storyboard":
    """The storyboard in a file, with the options put in place of its own keys. Raises UserError."""
    from serving.storyboard import load_storyboard

    with _naming(path):
        storyboard = load_storyboard(path)
    options = {"model": model, "seed": seed}
    return storyboard.model_copy(update={key: value for key, value in options.items() if value is not None})


def plan_film(
    storyboard: "Storyboard", path: Path, *, steps: int | None, model_given: bool
) -> "tuple[FilmPlan, WanModel]":
    """Opens the model (its weights are not loaded) and compiles the storyboard for it; warns on stderr of what the film
    will not show. Raises UserError."""
    from serving.models.registry import open_model
    from serving.planning.compile import compile_storyboard

    try:
        model = open_model(storyboard.model)
    except ModelError as error:
        if model_given:
            raise UserError(f"--model: {error}") from error
        problem = storyboard.lines.problem(("model",), str(error))
        raise UserError(f"{name_of(path)}: {problem}") from error
    with _naming(path):
        plan = compile_storyboard(
            storyboard,
            model_name=storyboard.model,
            capabilities=model.capabilities,
            tokens=model.prompt_tokens,
            steps=steps,
        )
    for warning in plan.warnings:
        warn(f"warning: {name_of(path)}: {warning}")
    return plan, model


def name_of(path: Path) -> str:
    """A storyboard's file as messages call it."""
    from serving.storyboard import STDIN

    return "stdin" if path == STDIN else str(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name before each problem."""
    name = name_of(path)
    try:
        yield
    except StoryboardError as error:
        raise UserError("\n".join(f"{name}: {problem}" for problem in error.problems)) from error
