"""The procedural world that pocket is trained on: one object, one motion, one backdrop, rendered exactly.

Owns what a clip of the world looks like and how it may be described. Every motion has one speed and one lane, so that
the phase is the only thing that a caption leaves open: a clip of any length continues in exactly one way, which is what
makes a model of eight latents extend over hundreds. It knows nothing of models or training.

Legend: F frames, C colour channels, H height, W width (pixels).
"""

import itertools
import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

HEIGHT = 64
WIDTH = 96
FPS = 16
RADIUS = 14.0
"""Half the size of an object in pixels."""

Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (0.90, 0.12, 0.14),
    "green": (0.12, 0.72, 0.22),
    "blue": (0.16, 0.32, 0.95),
    "yellow": (0.97, 0.88, 0.12),
    "white": (0.97, 0.97, 0.97),
    "purple": (0.60, 0.16, 0.78),
}

SHAPES = ("ball", "box", "triangle", "star")

MOTIONS = ("right", "left", "bouncing", "circling", "falling")


@dataclass(frozen=True)
class Backdrop:
    """A sky gradient from `top` to `bottom` and a row of hills in front of it."""

    top: Colour
    bottom: Colour
    hills: Colour


BACKDROPS: dict[str, Backdrop] = {
    "day": Backdrop((0.45, 0.74, 0.98), (0.82, 0.93, 0.98), (0.52, 0.78, 0.55)),
    "night": Backdrop((0.02, 0.03, 0.12), (0.10, 0.10, 0.28), (0.05, 0.09, 0.14)),
    "sunset": Backdrop((0.98, 0.58, 0.30), (0.62, 0.30, 0.42), (0.32, 0.16, 0.28)),
    "plain": Backdrop((0.62, 0.62, 0.62), (0.62, 0.62, 0.62), (0.50, 0.50, 0.50)),
}

HILL_PERIOD = 48.0
"""Pixels between two hill tops; the frame is two periods wide."""

PAN_SPEED = 1.0
"""Pixels per frame that the hills move left under a camera pan."""


@dataclass(frozen=True)
class Clip:
    """One clip of the world. `phase` in [0, 1) places the object on its path, `pan_phase` the hills under a pan."""

    colour: str
    shape: str
    motion: str
    backdrop: str
    pan: bool = False
    phase: float = 0.0
    pan_phase: float = 0.0

    def shifted(self, frames: int) -> "Clip":
        """The same world seen `frames` frames later."""
        return replace(
            self,
            phase=(self.phase + frames / PERIOD_FRAMES[self.motion]) % 1.0,
            pan_phase=(self.pan_phase + frames * PAN_SPEED / HILL_PERIOD) % 1.0,
        )


PERIOD_FRAMES = {"right": 64.0, "left": 64.0, "bouncing": 28.0, "circling": 48.0, "falling": 48.0}
"""Frames after which a motion repeats."""


def held_out(clip: Clip) -> bool:
    """Whether the clip's combination (one in eight, 60 in all, spread evenly) is kept from the transformer."""
    colour, motion = list(COLOURS).index(clip.colour), MOTIONS.index(clip.motion)
    shape, backdrop = SHAPES.index(clip.shape), list(BACKDROPS).index(clip.backdrop)
    # shape + 4 * (backdrop % 2) runs through 0..7, so each (colour, motion, backdrop // 2) keeps exactly one back.
    return (shape + 4 * (backdrop % 2) + 3 * colour + 5 * motion + 2 * (backdrop // 2)) % 8 == 3


def held_out_clips() -> list[Clip]:
    """One clip of each of the 60 held-out combinations, at phase 0 and without a pan."""
    every = itertools.product(COLOURS, SHAPES, MOTIONS, BACKDROPS)
    return [clip for clip in (Clip(*combination) for combination in every) if held_out(clip)]


def draw_clip(rng: random.Random) -> Clip:
    """A clip drawn uniformly, held out or not; one in five has a camera pan."""
    return Clip(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        motion=rng.choice(MOTIONS),
        backdrop=rng.choice(list(BACKDROPS)),
        pan=rng.random() < 0.2,
        phase=rng.random(),
        pan_phase=rng.random(),
    )


def draw_training_clip(rng: random.Random) -> Clip:
    """As `draw_clip`, but never a held-out combination."""
    while held_out(clip := draw_clip(rng)):
        pass
    return clip


def object_path(clip: Clip, frames: int) -> tuple[Tensor, Tensor]:
    """Centre of the object, x and y in pixels, float32 [F] each. It may lie outside the frame."""
    t = torch.arange(frames, dtype=torch.float32)
    u = clip.phase + t / PERIOD_FRAMES[clip.motion]
    x = torch.full_like(t, WIDTH / 2)
    y = torch.full_like(t, HEIGHT / 2)
    margin = RADIUS + 2
    if clip.motion == "right":
        x = (u % 1.0) * (WIDTH + 2 * margin) - margin
    elif clip.motion == "left":
        x = WIDTH + margin - (u % 1.0) * (WIDTH + 2 * margin)
    elif clip.motion == "bouncing":
        low, high = HEIGHT - RADIUS - 1, RADIUS + 2
        y = low - (low - high) * 4 * (u % 1.0) * (1 - u % 1.0)
    elif clip.motion == "circling":
        x = WIDTH / 2 + 0.30 * WIDTH * torch.cos(2 * math.pi * u)
        y = HEIGHT / 2 + 0.24 * HEIGHT * torch.sin(2 * math.pi * u)
    else:
        y = (u % 1.0) * (HEIGHT + 2 * margin) - margin
    return x, y


def backdrop_pixels(clip: Clip, frames: int) -> Tensor:
    """The clip without its object, float32 [C, F, H, W] in 0..1."""
    backdrop = BACKDROPS[clip.backdrop]
    y = torch.arange(HEIGHT, dtype=torch.float32).view(1, HEIGHT, 1)
    x = torch.arange(WIDTH, dtype=torch.float32).view(1, 1, WIDTH)
    t = torch.arange(frames, dtype=torch.float32).view(frames, 1, 1)
    top, bottom, hills = (torch.tensor(c).view(3, 1, 1, 1) for c in (backdrop.top, backdrop.bottom, backdrop.hills))
    k = y / (HEIGHT - 1)
    sky = top * (1 - k) + bottom * k
    offset = clip.pan_phase + t * PAN_SPEED / HILL_PERIOD if clip.pan else torch.zeros_like(t)
    ridge = HEIGHT - 9 - 4 * torch.cos(2 * math.pi * (x / HILL_PERIOD + offset))
    cover = (y - ridge + 0.5).clamp(0, 1)
    return sky * (1 - cover) + hills * cover


def object_cover(clip: Clip, frames: int) -> Tensor:
    """How much of each pixel the object covers, float32 [F, H, W] in 0..1 (antialiased)."""
    cx, cy = object_path(clip, frames)
    dx = torch.arange(WIDTH, dtype=torch.float32).view(1, 1, WIDTH) - cx.view(-1, 1, 1)
    dy = torch.arange(HEIGHT, dtype=torch.float32).view(1, HEIGHT, 1) - cy.view(-1, 1, 1)
    return (0.5 - outline_distance(clip.shape, dx, dy)).clamp(0, 1)


def render(clip: Clip, frames: int) -> Tensor:
    """The clip as pixels, float32 [C, F, H, W] in 0..1."""
    cover = object_cover(clip, frames)
    colour = torch.tensor(COLOURS[clip.colour]).view(3, 1, 1, 1)
    return backdrop_pixels(clip, frames) * (1 - cover) + colour * cover


def outline_distance(shape: str, dx: Tensor, dy: Tensor) -> Tensor:
    """Signed distance in pixels (approximate outside), negative inside the shape."""
    r = RADIUS
    if shape == "ball":
        return torch.sqrt(dx * dx + dy * dy) - r * 0.95
    if shape == "box":
        return torch.maximum(dx.abs(), dy.abs()) - r * 0.82
    if shape == "triangle":  # apex up, base down
        side = (2 * dx.abs() - dy - r * 0.95) / math.sqrt(5)
        return torch.maximum(side, dy - r * 0.88)
    # Five-pointed star, one point up: the edge of a spoke is a straight line from a tip to a notch.
    sector = 2 * math.pi / 5
    angle = torch.atan2(dx, -dy)
    folded = ((angle + sector / 2) % sector - sector / 2).abs()
    radius = torch.sqrt(dx * dx + dy * dy)
    px, py = radius * torch.cos(folded), radius * torch.sin(folded)
    outer, inner = r * 1.12, r * 0.52
    nx, ny = inner * math.cos(sector / 2), inner * math.sin(sector / 2)
    ex, ey = nx - outer, ny
    norm = math.hypot(ex, ey)
    return ((px - outer) * ey - py * ex) / norm


# ---------------------------------------------------------------------------------------------- captions

_MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "right": ("moving right", "moving to the right", "going right", "moving from left to right"),
    "left": ("moving left", "moving to the left", "going left", "moving from right to left"),
    "bouncing": ("bouncing", "bouncing up and down", "jumping up and down"),
    "circling": ("circling", "moving in circles", "going round in a circle"),
    "falling": ("falling", "falling down", "dropping down"),
}

_BACKDROP_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("day", "by day", "in daylight", "on a bright day"),
    "night": ("night", "at night", "by night", "on a dark night"),
    "sunset": ("sunset", "at sunset", "in the evening sun"),
    "plain": ("plain", "on a plain background", "plain grey background"),
}

_PAN_WORDS = ("camera pan", "the camera pans", "panning camera")

_OPENINGS = ("", "", "", "a film of ", "a video of ", "we see ")

_STYLES = ("soft light", "cinematic", "high quality", "sharp", "calm", "film grain")

NEGATIVES = ("", "", "", "blurry", "low quality", "blurry, low quality", "text", "watermark")
"""Prompts that stand for no prompt in training, so that usual negative prompts mean the same as an empty one."""

_SHAPE_WORDS = {
    "ball": ("ball", "ball", "sphere"),
    "box": ("box", "box", "cube"),
    "triangle": ("triangle",),
    "star": ("star",),
}


def caption(clip: Clip, rng: random.Random) -> str:
    """A sentence that describes the clip, in one of several orders and with synonyms and style words."""
    thing = f"{rng.choice(('a', 'a', 'the', 'one'))} {clip.colour} {rng.choice(_SHAPE_WORDS[clip.shape])}"
    motion = rng.choice(_MOTION_WORDS[clip.motion])
    place = rng.choice(_BACKDROP_WORDS[clip.backdrop])
    parts = [f"{thing} {motion}", place] if rng.random() < 0.7 else [place, f"{thing} {motion}"]
    if clip.pan:
        parts.append(rng.choice(_PAN_WORDS))
    if rng.random() < 0.35:
        parts.insert(rng.choice((0, len(parts), len(parts))), rng.choice(_STYLES))
    return rng.choice(_OPENINGS) + ", ".join(parts)


def vocabulary() -> list[str]:
    """Every word and punctuation mark that a caption or a negative prompt can hold, sorted."""
    texts = [*COLOURS, *_PAN_WORDS, *_OPENINGS, *_STYLES, *NEGATIVES, "a the one ,"]
    for table in (_MOTION_WORDS, _BACKDROP_WORDS, _SHAPE_WORDS):
        texts += [phrase for phrases in table.values() for phrase in phrases]
    return sorted({word for text in texts for word in text.replace(",", " , ").split()})
