"""An installed wheel has all that the commands read beside code."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling: pip install -e '.[dev]'")
def test_an_installed_farm_finds_prometheus_rules(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "from serving.local_farm import prometheus; print(prometheus.__file__); print(*prometheus.RULES.glob('*'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=site, capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()
    assert told[0].startswith(str(site))
    assert told[1] == str(site / "serving" / "local_farm" / "rules" / "longtake.yaml")
    assert Path(told[1]).read_bytes() == (ROOT / "helm" / "longtake" / "rules" / "longtake.yaml").read_bytes()
