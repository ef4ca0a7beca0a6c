"""Each class of the farm and of the cluster's programs has a name of its own, so that a name says which is meant."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "serving" / "api"
WIRE = (API / "wire", API / "problem_document.py")
"""What the API reads and answers is called as the thing that it shows."""

OF_BOTH = {"FarmClient", "Finding", "NotFound", "PlainLines"}
"""Of `longtake` and of `longtake cluster`, which share no code but the contract."""


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(set)
    for room in ("serving", "cluster"):
        for path in (ROOT / room).rglob("*.py"):
            if not any(path.is_relative_to(wire) for wire in WIRE):
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        places[node.name].add(str(path.relative_to(ROOT)))
    shared = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in OF_BOTH} == {}
    assert shared.keys() == OF_BOTH
