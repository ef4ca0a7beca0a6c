"""Every bound that serving keeps, with its unit, and the only place where the environment is read.

A bound is a constant with a docstring. Nothing here decides anything; it only says how much is too much.
"""

import os
from pathlib import Path

import platformdirs

# ---------------------------------------------------------------------------------------------- storyboard file

MAX_FILE_BYTES = 1 << 20
"""Bytes of a storyboard file. A thousand shots with long prompts fit in half of it."""

MAX_DEPTH = 8
"""Levels of nesting in a storyboard file; the deepest storyboard has four."""

MAX_VALUES = 20_000
"""Values in a storyboard file after aliases are expanded; a thousand full shots hold about ten thousand."""

MAX_PROBLEMS = 50
"""Problems reported at once; more would bury the first."""

# ---------------------------------------------------------------------------------------------- storyboard

MAX_SHOTS = 1000
"""Shots of one storyboard."""

MAX_SHOT_S = 600.0
"""Seconds of one shot."""

MAX_FILM_S = 3600.0
"""Seconds of one film."""

MAX_DISSOLVE_S = 10.0
"""Seconds of one dissolve."""

MAX_PROMPT_CHARS = 2000
"""Characters of one prompt, as written and again with its characters and the style written out."""

MAX_WORDS_CHARS = 500
"""Characters of a style, a negative prompt or the description of a character."""

MAX_TITLE_CHARS = 200
"""Characters of a title."""

MAX_MODEL_CHARS = 500
"""Characters of a model's name or path."""

MAX_CHARACTERS = 100
"""Characters (people and things, not letters) that one storyboard may describe."""

MAX_SEED = 2**53 - 1
"""The largest seed: the largest whole number that every JSON reader keeps exactly."""

MIN_SIDE_PIXELS = 16
"""Pixels; the least width or height of a film."""

MAX_SIDE_PIXELS = 4096
"""Pixels; the greatest width or height of a film."""

MAX_FRAME_PIXELS = 3840 * 2160
"""Pixels of one frame, width times height."""

MAX_FPS = 60
"""Frames per second of a film; the least is 1."""

QUALITY_STEPS = {"draft": 8, "standard": 24, "final": 40}
"""Denoising steps that each quality stands for."""

MAX_STEPS = 200
"""Denoising steps that `--steps` may ask for."""

# ---------------------------------------------------------------------------------------------- command line

MAX_GANGS = 64
"""Worker processes that `--gangs` may ask for on one machine."""

PLAIN_PROGRESS_S = 5.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""

MIN_FREE_DISK_BYTES = 1 << 30
"""Bytes; `longtake doctor` warns where less disk space than this is free."""


def debug() -> bool:
    """True where LONGTAKE_DEBUG asks for tracebacks on the terminal."""
    return os.environ.get("LONGTAKE_DEBUG", "") not in ("", "0")


# ---------------------------------------------------------------------------------------------- rendering

MAX_GANG_DEATHS = 3
"""Gang processes that may die in one render before it is given up."""


MAX_FINISHER_BATCH_LATENTS = 16
"""Latents sent to the finisher at once; more would only make the next wait longer to be seen."""


def home() -> Path:
    """Where Longtake keeps what it learns about this machine: LONGTAKE_HOME, else the user's data folder."""
    set_by_user = os.environ.get("LONGTAKE_HOME")
    return Path(set_by_user) if set_by_user else Path(platformdirs.user_data_dir("longtake"))
