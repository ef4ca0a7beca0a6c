"""`longtake schema`: the JSON Schema of a storyboard, for editors and other programs."""

import json


def schema() -> None:
    """Print the JSON Schema of a storyboard."""
    from serving.storyboard import storyboard_schema

    print(json.dumps(storyboard_schema(), indent=2))
