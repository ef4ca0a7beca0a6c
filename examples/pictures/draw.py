"""Draws the pictures of this folder: frames of pocket's world, so that its small model knows what is in them.

python examples/pictures/draw.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from serving.models.pocket.world import Clip, render

HERE = Path(__file__).parent

BALL = Clip("red", "ball", "right", "day", phase=0.2)

PICTURES = {
    "open.png": (BALL, 0),
    "middle.png": (BALL, 24),
    "close.png": (BALL, 44),
    "star.png": (Clip("white", "star", "falling", "night", phase=0.25), 0),
    "box.png": (Clip("blue", "box", "circling", "sunset", phase=0.6), 0),
}
"""Name -> clip and frame."""


def draw() -> None:
    """Write every picture beside this file."""
    for name, (clip, frame) in PICTURES.items():
        pixels = render(clip, frame + 1)[:, frame].permute(1, 2, 0).numpy()
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(HERE / name, optimize=True)


if __name__ == "__main__":
    draw()
