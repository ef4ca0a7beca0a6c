"""Names takes and prompts by what they depend on, so that equal work is done once and found again.

A take's content key covers all that its latents and frames are made from, and whose it is, unless all of the farm share
takes. Two versions of a storyboard share every take whose key is the same; a change of weights, gang shape or library
gives new keys.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from serving.planning.plan import FilmPlan, TakePlan
from sharding.stitching import JOINT

RECIPE = 1
"""Rises when the code that turns a plan into latents or frames changes what comes out."""


def content_key(plan: FilmPlan, take: TakePlan, *, numerics: Mapping[str, str], owner: str = "") -> str:
    """sha256, hexadecimal, of everything that the frames of a take depend on. `numerics` holds the weights' hash.

    `owner`: the tenant who alone may find the take; empty if the whole farm may. The frames do not depend on it.
    """
    parts: dict[str, Any] = {
        "recipe": RECIPE,
        "numerics": dict(sorted(numerics.items())),
        "size": [plan.width, plan.height],
        "fps": plan.fps,
        "steps": plan.steps,
        "identity": plan.identity,
        "storyboard_seed": plan.seed,
        "take_seed": take.seed,
        "take_key": take.key,
        "latents": take.latents,
        "frames": take.frames - take.surplus,
        "prompts": [[prompt.text, prompt.negative, prompt.start_latent] for prompt in take.prompts],
    }
    if take.stitching != JOINT:
        parts["stitching"] = list(asdict(take.stitching).items())
    if take.assets:
        parts["pictures"] = [[picture.asset, picture.latent, picture.strength] for picture in take.pictures]
        parts["references"] = list(take.references)
        parts["fitting"] = [plan.fitting.fit, plan.fitting.background]
        parts["pillow"] = importlib.metadata.version("pillow")  # reads and resamples them
    if owner:
        parts["owner"] = owner
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def take_texts(take: TakePlan) -> tuple[str, ...]:
    """Every prompt and negative of a take, each once."""
    return tuple(sorted({text for prompt in take.prompts for text in (prompt.text, prompt.negative)}))
