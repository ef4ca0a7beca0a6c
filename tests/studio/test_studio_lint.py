"""The linter of serving/web finds what would break the page, so a silent run of it means something."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OXLINT = Path(sysconfig.get_path("scripts")) / "oxlint"

FAULTS = {
    "no-undef": "export const shown = misspelt;",
    "no-unused-vars": 'import { say } from "./words.js";',
    "import(named)": 'import { sayy } from "./words.js";\nexport const said = sayy();',
    "eqeqeq": "export const isOne = (n) => n == 1;",
    "no-fallthrough": "export function act(n) {\n  switch (n) {\n    case 1:\n      n();\n    default:\n  }\n}",
    "rules-of-hooks": 'import { useState } from "./words.js";\nexport const View = ({ on }) => on && useState(1);',
}


@pytest.mark.parametrize("rule", FAULTS)
def test_the_linter_finds(tmp_path: Path, rule: str) -> None:
    (tmp_path / "words.js").write_text("export const say = String;\nexport const useState = Number;\n")
    (tmp_path / "view.js").write_text(FAULTS[rule] + "\n")
    command = [str(OXLINT), "--config", ".oxlintrc.json", "--format=unix", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 1
    assert rule in done.stdout
