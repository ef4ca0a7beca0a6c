"""Does pocket show what the prompt says? An analytic detector and the table of its answers.

`detect` reads colour, shape, motion and backdrop from pixels alone; it knows the world's palette, outlines and paths,
not the model. It is checked first against rendered clips. Then 60 prompts, one for each combination that was held out
of training, are rendered by diffusers' own WanPipeline as one chunk and judged.

    python -m benchmarks.adherence [--checkpoint DIR] [--steps 24] [--guidance 3] [--prompts 60]

Legend: F frames, H height, W width (pixels), K outlines.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from serving.models.pocket import world

CHECKPOINT = Path(world.__file__).parent / "checkpoint"
WINDOW_FRAMES = 29
"""Frames that are judged together for motion; longer clips are judged in half-overlapping windows and vote."""
PHASES = 96
"""Phases tried for each motion."""
MOTION_TOLERANCE = 7.0
"""Mean distance in pixels from the best-fitting path above which a window counts as no known motion."""
MISSING_PENALTY = 20.0
"""Pixels charged for a frame in which the object is seen and should not be, or the other way round."""
SEEN_SIMILARITY = 0.55
SEEN_SHARE = 0.35
"""An object counts as seen in a frame when it resembles an outline this much and covers this share of its area."""
REACH = 20
"""Half the size in pixels of the outline templates; objects may be centred this far outside the frame."""

Frames = npt.NDArray[np.uint8] | npt.NDArray[np.float32] | Tensor


@dataclass(frozen=True)
class Detection:
    """What a clip shows; a name is "none" if nothing fits.

    `track` holds the object's centre (x, y) in pixels for each frame, nan if it isn't seen; `motion_error` is its
    mean distance in pixels from the best path of `motion`; `similarity` the mean resemblance (0..1) to `shape`.
    """

    colour: str
    shape: str
    motion: str
    backdrop: str
    track: npt.NDArray[np.float32]
    motion_error: float
    similarity: float


def detect(frames: Frames) -> Detection:
    """Judge a clip [F, H, W, 3], uint8 or float in 0..1, of any length."""
    pixels_FHWC = _as_float(frames)
    backdrop = _nearest_backdrop(pixels_FHWC)
    behind_FHWC = _backdrop_pixels(pixels_FHWC, backdrop)
    colour = _nearest_colour(pixels_FHWC, behind_FHWC)
    cover_FHW = _object_cover(pixels_FHWC, behind_FHWC, colour)
    shape, similarity, track = _match_outlines(cover_FHW)
    motion, error = _fit_motion(track)
    return Detection(colour, shape, motion, backdrop, track.numpy(), error, similarity)


def object_cover(frames: Frames, *, colour: str, backdrop: str) -> Tensor:
    """How much of each pixel an object of this colour covers before this backdrop, float32 [F, H, W] in 0..1."""
    pixels_FHWC = _as_float(frames)
    return _object_cover(pixels_FHWC, _backdrop_pixels(pixels_FHWC, backdrop), colour)


def render_truth(num_clips: int, *, frames: int, seed: int) -> list[tuple[world.Clip, npt.NDArray[np.float32]]]:
    """Rendered clips of the world, [F, H, W, 3] each."""
    rng = random.Random(seed)
    clips = [world.draw_clip(rng) for _ in range(num_clips)]
    return [(clip, world.render(clip, frames).permute(1, 2, 3, 0).numpy()) for clip in clips]


def held_out_prompts(*, seed: int = 0) -> list[tuple[world.Clip, str]]:
    """One sentence for each held-out combination; none of them can occur in training."""
    rng = random.Random(seed)
    return [(clip, world.caption(clip, rng)) for clip in world.held_out_clips()]


def score(pairs: Sequence[tuple[world.Clip, Detection]]) -> dict[str, float]:
    """Share of clips, 0..1, whose colour, backdrop, motion and shape were detected as asked for."""
    aspects = ("colour", "backdrop", "motion", "shape")
    return {
        aspect: sum(getattr(clip, aspect) == getattr(seen, aspect) for clip, seen in pairs) / len(pairs)
        for aspect in aspects
    }


# ---------------------------------------------------------------------------------------------- detector


def _as_float(frames: Frames) -> Tensor:
    tensor = torch.as_tensor(frames)
    scaled = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    if scaled.ndim != 4 or tuple(scaled.shape[1:]) != (world.HEIGHT, world.WIDTH, 3):
        raise ValueError(f"frames have shape {tuple(scaled.shape)}, expected [F, {world.HEIGHT}, {world.WIDTH}, 3]")
    return scaled


def _sky(backdrop: world.Backdrop) -> Tensor:
    k = torch.linspace(0, 1, world.HEIGHT).unsqueeze(1)
    return torch.tensor(backdrop.top) * (1 - k) + torch.tensor(backdrop.bottom) * k


def _backdrop_pixels(pixels_FHWC: Tensor, name: str) -> Tensor:
    """The backdrop behind each pixel: sky, or in the hills' rows the mix of sky and hills nearest to the pixel."""
    backdrop = world.BACKDROPS[name]
    sky = _sky(backdrop).view(1, world.HEIGHT, 1, 3).expand_as(pixels_FHWC).clone()
    rows = slice(world.HEIGHT - 14, None)  # hill tops reach 13 pixels up
    towards = torch.tensor(backdrop.hills) - sky[:, rows]
    share = ((pixels_FHWC[:, rows] - sky[:, rows]) * towards).sum(-1, keepdim=True) / towards.square().sum(
        -1, keepdim=True
    )
    sky[:, rows] += share.clamp(0, 1) * towards
    return sky


def _nearest_backdrop(pixels_FHWC: Tensor) -> str:
    """The backdrop with the smallest median error; an object covers less than half of the frame."""
    errors = {
        name: (pixels_FHWC - _backdrop_pixels(pixels_FHWC, name)).abs().sum(-1).median().item()
        for name in world.BACKDROPS
    }
    return min(errors, key=lambda name: errors[name])


def _nearest_colour(pixels_FHWC: Tensor, behind_FHWC: Tensor) -> str:
    """The palette colour that is nearest to the most pixels, pixels nearer to the backdrop left out."""
    palette = torch.tensor(list(world.COLOURS.values()))
    distance = (pixels_FHWC.unsqueeze(-2) - palette).square().sum(-1)
    nearest = distance.argmin(-1)
    is_object = distance.amin(-1) < (pixels_FHWC - behind_FHWC).square().sum(-1)
    votes = torch.bincount(nearest[is_object], minlength=len(palette))
    return list(world.COLOURS)[int(votes.argmax())] if votes.sum() > 0 else "none"


def _object_cover(pixels_FHWC: Tensor, behind_FHWC: Tensor, colour: str) -> Tensor:
    """How far each pixel lies on the way from the backdrop to the object's colour, 0..1 [F, H, W]."""
    if colour == "none":
        return torch.zeros(pixels_FHWC.shape[:3])
    towards = torch.tensor(world.COLOURS[colour]) - behind_FHWC
    cover = ((pixels_FHWC - behind_FHWC) * towards).sum(-1) / towards.square().sum(-1)
    return torch.where(cover < 0.25, 0.0, cover.clamp(0, 1))  # what is less is noise of the decoder


def _outlines() -> Tensor:
    """The four shapes as templates [K, 1, 2 * REACH + 1, 2 * REACH + 1]."""
    y, x = torch.meshgrid(*(torch.arange(-REACH, REACH + 1, dtype=torch.float32),) * 2, indexing="ij")
    return torch.stack([(0.5 - world.outline_distance(shape, x, y)).clamp(0, 1) for shape in world.SHAPES]).unsqueeze(1)


def _match_outlines(cover_FHW: Tensor) -> tuple[str, float, Tensor]:
    """Best shape, mean similarity to it, and the object's centre [F, 2], from normalised correlation with outlines."""
    outlines = _outlines()
    pad = REACH + REACH // 2  # centres up to half a template outside the frame
    cover = functional.pad(cover_FHW.unsqueeze(1), (pad,) * 4)
    inside = functional.pad(torch.ones(1, 1, *cover_FHW.shape[1:]), (pad,) * 4)
    visible = functional.conv2d(inside, outlines.square())
    overlap = functional.conv2d(cover, outlines)
    size = cover_FHW.square().sum((1, 2)).clamp(min=1e-6).view(-1, 1, 1, 1)
    similarity = overlap / (visible.clamp(min=1e-6) * size).sqrt()
    enough = visible > SEEN_SHARE * outlines.square().sum((1, 2, 3)).view(1, -1, 1, 1)
    similarity = torch.where(enough, similarity, 0.0)
    best, place = similarity.flatten(2).max(-1)
    whole = (visible.flatten(2) > 0.98 * visible.amax((2, 3)).unsqueeze(-1)).expand(len(best), -1, -1)
    is_whole = whole.gather(2, place.unsqueeze(-1)).squeeze(-1).all(1) & (best.amax(1) > SEEN_SIMILARITY)
    judged = best[is_whole] if is_whole.any() else best
    kind = int(judged.mean(0).argmax())
    width = similarity.shape[-1]
    x, y = place[:, kind] % width, place[:, kind] // width
    centre = torch.stack((x, y), -1).float() - REACH // 2
    big_enough = size.flatten() > SEEN_SHARE * outlines[kind].square().sum()
    centre[(best[:, kind] < SEEN_SIMILARITY) | ~big_enough] = torch.nan
    name = world.SHAPES[kind] if judged[:, kind].mean() > SEEN_SIMILARITY else "none"
    return name, float(judged[:, kind].mean()), centre


def _fit_motion(track: Tensor) -> tuple[str, float]:
    """The motion that most windows of the track fit best, and the mean error of its windows in pixels."""
    step = WINDOW_FRAMES // 2
    starts = range(0, max(1, len(track) - WINDOW_FRAMES + step), step)
    fits = [_fit_window(track[start : start + WINDOW_FRAMES]) for start in starts]
    names = [name for name, _ in fits]
    winner = max(sorted(set(names)), key=names.count)
    errors = [error for name, error in fits if name == winner]
    return winner, sum(errors) / len(errors)


def _fit_window(track: Tensor) -> tuple[str, float]:
    """The motion and phase whose path lies nearest to the track [F, 2]."""
    seen = ~track[:, 0].isnan()
    errors = {}
    for motion in world.MOTIONS:
        paths = [
            torch.stack(world.object_path(world.Clip("red", "ball", motion, "day", phase=p / PHASES), len(track)), -1)
            for p in range(PHASES)
        ]
        path = torch.stack(paths)
        expected = (_share_in_frame(path[..., 0], world.WIDTH) * _share_in_frame(path[..., 1], world.HEIGHT)) > 0.5
        apart = (path - track.nan_to_num(0.0)).norm(dim=-1).clamp(max=MISSING_PENALTY)
        charged = torch.where(seen & expected, apart, torch.where(seen == expected, 0.0, MISSING_PENALTY))
        # Barely visible objects may or may not be found: such frames count little either way.
        barely = ~expected & (
            (_share_in_frame(path[..., 0], world.WIDTH) * _share_in_frame(path[..., 1], world.HEIGHT)) > 0
        )
        weight = torch.where(barely, 0.1, 1.0)
        errors[motion] = float(((charged * weight).sum(-1) / weight.sum(-1)).min())
    best = min(errors, key=lambda motion: errors[motion])
    return (best if errors[best] < MOTION_TOLERANCE and seen.any() else "none"), errors[best]


def _share_in_frame(centre: Tensor, size: int) -> Tensor:
    """Share of an object's extent that lies inside 0..size along one dimension."""
    low, high = (centre - world.RADIUS).clamp(0, size), (centre + world.RADIUS).clamp(0, size)
    return (high - low) / (2 * world.RADIUS)


# ---------------------------------------------------------------------------------------------- benchmark


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the detector's accuracy on truth and pocket's adherence on held-out prompts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--frames", type=int, default=WINDOW_FRAMES)
    parser.add_argument("--truth", type=int, default=200, help="rendered clips to check the detector on")
    parser.add_argument("--json", type=Path, help="also write every answer to this file")
    options = parser.parse_args(arguments)
    truth = [(clip, detect(pixels)) for clip, pixels in render_truth(options.truth, frames=options.frames, seed=1)]
    _print_row("detector on truth", score(truth), seconds=0.0)
    asked = held_out_prompts()[:: max(1, 60 // options.prompts)][: options.prompts]
    started = time.monotonic()
    films = render_prompts(
        options.checkpoint,
        [prompt for _, prompt in asked],
        steps=options.steps,
        guidance=options.guidance,
        frames=options.frames,
    )
    seen = [(clip, detect(film)) for (clip, _), film in zip(asked, films, strict=True)]
    _print_row(f"pocket, {options.steps} steps", score(seen), seconds=time.monotonic() - started)
    for (clip, prompt), (_, found) in zip(asked, seen, strict=True):
        wrong = [a for a in ("colour", "backdrop", "motion", "shape") if getattr(clip, a) != getattr(found, a)]
        if wrong:
            print(f"  {prompt!r}: " + ", ".join(f"{a} {getattr(found, a)}" for a in wrong))
    if options.json is not None:
        rows = [
            {"prompt": prompt, "asked": asdict(clip), "seen": {**asdict(found), "track": found.track.tolist()}}
            for (clip, prompt), (_, found) in zip(asked, seen, strict=True)
        ]
        options.json.write_text(json.dumps({"scores": score(seen), "prompts": rows}, indent=1))


def render_prompts(
    checkpoint: Path, prompts: Sequence[str], *, steps: int, guidance: float, frames: int
) -> list[npt.NDArray[np.float32]]:
    """One chunk [F, H, W, 3] in 0..1 for each prompt, by diffusers' WanPipeline; the seed is the prompt's number."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    films = []
    for number, prompt in enumerate(prompts):
        film = pipeline(
            prompt,
            negative_prompt="",
            height=world.HEIGHT,
            width=world.WIDTH,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(number),
        ).frames[0]
        films.append(np.asarray(film, dtype=np.float32))
    return films


def _print_row(name: str, scores: dict[str, float], *, seconds: float) -> None:
    cells = "  ".join(f"{aspect} {share:6.1%}" for aspect, share in scores.items())
    print(f"{name:24s} {cells}  {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
