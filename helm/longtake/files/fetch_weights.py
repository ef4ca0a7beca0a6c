"""Fetches models at pinned revisions into HF_HOME and makes each the version that is opened offline.

Runs before Ray starts, as `fetch_weights.py org/name@revision ...`. Twice it changes nothing. Only safetensors, JSON
and tokenizer files are asked for, as the farm itself does it.
"""

import os
import sys
import tempfile
from pathlib import Path

PATTERNS = ["*.json", "*/*.json", "*/*.safetensors", "*/*.model", "*/*.txt"]


def fetch(repository: str, revision: str) -> None:
    """Fetch what is missing of one model."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=PATTERNS))
    pin(folder.parent.parent, folder.name)
    print(f"{repository} is at {revision}", flush=True)


def pin(model: Path, revision: str) -> None:
    """Let the model's main branch stand for this revision, in one move: others may be reading it."""
    refs = model / "refs"
    refs.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(dir=refs)
    with os.fdopen(handle, "w") as file:
        file.write(revision)
    Path(name).replace(refs / "main")


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        fetch(*wanted.rsplit("@", 1))
