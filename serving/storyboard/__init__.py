"""The storyboard: what a user sends. Read from YAML or JSON, checked as a whole, every problem told at once.

It knows no model: what depends on one (the size grid, dissolves in frames) is checked by serving.planning.compile,
which reports the same problems with the same lines.
"""

from serving.storyboard.loading import STDIN, check_document, load_storyboard, parse_storyboard
from serving.storyboard.schema import Dissolve, Shot, Storyboard, Video, storyboard_hash, storyboard_schema
from serving.storyboard.yaml_writer import write_yaml

__all__ = [
    "STDIN",
    "Dissolve",
    "Shot",
    "Storyboard",
    "Video",
    "check_document",
    "load_storyboard",
    "parse_storyboard",
    "storyboard_hash",
    "storyboard_schema",
    "write_yaml",
]
