"""The bounds that several modules of serving share, with their units, and what the environment says.

A bound that one module alone keeps stands in that module. Nothing here decides anything.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

# ---------------------------------------------------------------------------------------------- environment

VARIABLES = {
    "LONGTAKE_HOME": "the folder of the farm of this machine, and of what is known about it",
    "LONGTAKE_URL": "the farm that client commands talk to",
    "LONGTAKE_API_KEY": "the key that they show it",
    "LONGTAKE_LOG": "the form of log lines: json or text",
    "LONGTAKE_DEBUG": "tracebacks on the terminal",
    "LONGTAKE_CRDS": "tests: a folder of CustomResourceDefinitions to check",
    "LONGTAKE_KUBECONFIG": "tests: a Kubernetes cluster to run against",
}
"""Every LONGTAKE_ variable that is neither a key of farm.yaml nor a setting of the controller on Kubernetes."""


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Longtake keeps what it learns about this machine: LONGTAKE_HOME, else the user's data folder."""
    set_by_user = environ.get("LONGTAKE_HOME")
    return expand(set_by_user) if set_by_user else Path(platformdirs.user_data_dir("longtake"))


def expand(path: str) -> Path:
    """A path as a user writes it: `~` is the home folder, also where no shell has replaced it."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


def farm_url() -> str | None:
    """The farm that LONGTAKE_URL names."""
    return os.environ.get("LONGTAKE_URL") or None


def api_key() -> str | None:
    """The key in LONGTAKE_API_KEY."""
    return os.environ.get("LONGTAKE_API_KEY") or None


def ray_auth_is_off() -> bool:
    """True if RAY_AUTH_MODE opens the farm's Ray to whoever reaches its ports."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() == "disabled"


RAY_OF_MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable; with 0 its processes have the address 127.0.0.1 and listen there alone, on any system."""


def ray_is_local() -> bool:
    """True if the farm's Ray is of this machine alone, as that of `longtake up` is."""
    return os.environ.get(RAY_OF_MANY_MACHINES) == "0"


def debug() -> bool:
    """True if LONGTAKE_DEBUG asks for tracebacks on the terminal."""
    return os.environ.get("LONGTAKE_DEBUG", "") not in ("", "0")


def log_form() -> str:
    """What LONGTAKE_LOG asks log lines to be: json or text; empty if that depends on where they go."""
    return os.environ.get("LONGTAKE_LOG", "")


# ---------------------------------------------------------------------------------------------- storyboard file

MAX_FILE_BYTES = 1 << 20
"""Bytes of a storyboard file. A thousand shots with long prompts fit in half of it."""

MAX_PROBLEMS = 50
"""Problems reported at once; more would bury the first."""

# ---------------------------------------------------------------------------------------------- storyboard

MAX_SHOTS = 1000
"""Shots of one storyboard."""

MAX_SHOT_S = 600.0
"""Seconds of one shot."""

MAX_PROMPT_CHARS = 2000
"""Characters of one prompt, as written and again with its characters and the style written out."""

MAX_TITLE_CHARS = 200
"""Characters of a title."""

MAX_MODEL_CHARS = 500
"""Characters of a model's name or path."""

MAX_CHARACTERS = 100
"""Characters (people and things, not letters) that one storyboard may describe."""

MAX_SEED = 2**53 - 1
"""The largest seed: the largest whole number that every JSON reader keeps exactly."""

QUALITY_STEPS = {"draft": 8, "standard": 24, "final": 40}
"""Denoising steps that each quality stands for."""

MAX_STEPS = 200
"""Denoising steps that `--steps` may ask for."""

# ---------------------------------------------------------------------------------------------- command line

MAX_GANGS = 64
"""Worker processes that `--gangs` may ask for on one machine."""

PLAIN_PROGRESS_S = 5.0
"""Seconds between two lines of progress if there is no terminal to draw a bar on."""

# ---------------------------------------------------------------------------------------------- rendering

MAX_FINISHER_BATCH_LATENTS = 16
"""Latents sent to the finisher at once; more would only make the next wait longer to be seen."""

# ---------------------------------------------------------------------------------------------- farm configuration

MAX_POOL_GANGS = 2048
"""Gangs of one pool."""

# ---------------------------------------------------------------------------------------------- gangs and timelines

DECODE_PRUNE_S = 20.0
"""Seconds after which a decoder asks whether a take that no latents came for was decoded elsewhere."""

# ---------------------------------------------------------------------------------------------- artifacts

ARTIFACT_PART_BYTES = 8 << 20
"""Bytes of one part of a large upload or download, and so what either holds in memory."""

UNUSED_ARTIFACTS_S = 30 * 86_400.0
"""Seconds that the frames, latents and checkpoints of a take are kept after the last job that used it has ended."""

# ---------------------------------------------------------------------------------------------- store

MAX_PAGE = 500
"""Jobs or events that one query may return."""

MAX_BATCH = 500
"""Values that one query may name, and rows that one may remove: more are taken in several."""

EVENTS_KEPT_S = 30 * 86_400.0
"""Seconds that events are kept; a reader that comes back later starts from the state as it is."""

MAX_LOG_CHARS = 2000
"""Characters kept of one line's message."""

# ---------------------------------------------------------------------------------------------- director

BUDGET_WARNING = 0.8
"""Part of a job's budget at which its owner is told."""

COLD_START_S = 60.0
"""Seconds that a gang is expected to take to start before any was measured."""

# ---------------------------------------------------------------------------------------------- scheduling

SEND_AHEAD_S = 2.0
"""Seconds before a gang should be done with what it has at which it is sent its next call: enough for the tensors to
travel, and little for a call that presses to wait behind."""

DUE_REVIEW_S = 5.0
"""Interval, in seconds, of reviewing which due times press and which cannot be kept."""

FIRST_GUESS_S = 0.02
"""Seconds per latent if nothing is known; pocket takes about 0.005 on one core, large models seconds."""

DIRECTOR_CALL_S = 5.0
"""Seconds that the API waits for the Director; it accepts jobs without it."""

DRAIN_S = 60.0
"""Seconds that a gang is given to finish its calls when it is asked to go."""

# ---------------------------------------------------------------------------------------------- HTTP API

MAX_LIST = 100
"""Objects on one page of a list."""

MAX_LOG_LIST = 499
"""Log lines on one page; one more is looked for, and MAX_PAGE is what a query may return."""

MAX_IDEMPOTENCY_KEY_CHARS = 255
"""Characters of an Idempotency-Key."""

# ---------------------------------------------------------------------------------------------- up and down

FARM_START_S = 300.0
"""Seconds that a farm may take until it is ready."""

CONTROL_RESOURCE = "longtake_control"
"""Custom Ray resource that marks nodes for the Director and timeline hosts; never set it on spot nodes."""

FARM_DRAIN_S = 30.0
"""Seconds that a farm may take to put its work down when it is ended; what is not saved by then is rendered again."""

RAY_SHUTDOWN_S = 15.0
"""Seconds that Ray may take to end its own processes before they are killed."""

KILLED_S = 10.0
"""Seconds that a killed process may take to be gone."""

LOG_TAIL_LINES = 20
"""Lines of the farm's log that are shown if it could not start."""

# ---------------------------------------------------------------------------------------------- client commands

CLIENT_PATIENCE_S = 300.0
"""Seconds for which a command that watches or downloads waits for a farm that has stopped answering."""
