"""What only directs, leads or answers imports no torch: it would take seconds of each such process, and 200 MiB."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["serving.app", "serving.api.app", "serving.actors.director", "serving.actors.gangs", "serving.actors.workers"],
)
def test_a_process_that_computes_nothing_imports_no_torch(module: str) -> None:
    program = (
        f"import sys, {module}; print([m for m in ('torch', 'diffusers', 'transformers', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_a_rank_and_its_leader_need_no_serve_to_be_told_apart() -> None:
    program = "import sys, serving.actors.ranks; print([m for m in ('torch', 'ray.serve') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
