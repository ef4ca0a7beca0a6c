"""`longtake models`: the models known by name."""

from dataclasses import asdict

from serving.cli.options import AsJson
from serving.cli.output.terminal import open_table, print_json, print_line, print_table


def models(as_json: AsJson = False) -> None:
    """List the models known by name; any folder or hub id with a Wan checkpoint works too."""
    from serving.models.registry import known_models

    known = known_models()
    if as_json:
        print_json([asdict(model) for model in known])
        return
    table = open_table("model", "here", "what it is")
    for model in known:
        table.add_row(model.name, "yes" if model.is_local else "no", model.description)
    print_table(table)
    print_line("Any other Wan checkpoint opens by its folder (./my-model) or hub id (organisation/model).")
