"""A storyboard as YAML, for a person to edit and send back: read again, it is the same storyboard."""

from typing import Any

import yaml

from serving.documents.yaml_reader import is_text
from serving.storyboard.schema import Storyboard


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader would not take for text; PyYAML's own rules are those of YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if is_text(text) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def write_yaml(storyboard: Storyboard) -> str:
    """Without what is as it would be anyway."""
    plain = storyboard.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
