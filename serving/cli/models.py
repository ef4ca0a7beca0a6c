"""`longtake models`: the models known by name."""

import json
from dataclasses import asdict

from serving.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models known by name; any folder or hub id with a Wan checkpoint works too."""
    from serving.models.registry import known_models

    known = known_models()
    if as_json:
        print(json.dumps([asdict(model) for model in known], indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "here", "what it is"):
        table.add_column(heading)
    for model in known:
        table.add_row(model.name, "yes" if model.is_local else "no", model.description)
    console = Console(highlight=False)
    console.print(table)
    console.print("Any other Wan checkpoint opens by its folder (./my-model) or hub id (organisation/model).")
