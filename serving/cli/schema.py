"""`longtake schema`: the JSON Schema of a storyboard, for editors and other programs."""

from serving.cli.output.terminal import print_json


def schema() -> None:
    """Print the JSON Schema of a storyboard."""
    from serving.storyboard import storyboard_schema

    print_json(storyboard_schema())
