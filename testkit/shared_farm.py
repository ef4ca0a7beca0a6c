"""One real farm for all tests that can share it: pools of three shapes, one that scales, and Prometheus if installed.

Its jobs, films and caches are those of every test before: a test says by a seed or a prompt of its own what is its own.
"""

import shutil
import time
from pathlib import Path

from testkit.farm_process import TIME_LIMIT_S, Farm, free_port

SHAPES = {"plain": "1", "split": "ulysses=2", "both": "cfg=2 x ring=2"}
"""Gang shapes by pool. A job that names no pool goes to the cheapest, which is `plain`."""

CONFIG = """
pools:
  - {name: plain, model: pocket, min_gangs: 1, max_gangs: 2, price_per_gpu_second: 0.0009,
     scaling: {drain_within_s: 20, hold_s: 20, idle_for_s: 5}}
  - {name: split, model: pocket, gang_shape: "ulysses=2", price_per_gpu_second: 0.0018}
  - {name: both, model: pocket, gang_shape: "cfg=2 x ring=2", price_per_gpu_second: 0.0018}
limits: {spend_limit_usd_per_day: 100.0}
checkpoint_every_steps: 2
"""


def make_shared_farm(folder: Path) -> Farm:
    """The farm with its home below `folder`, not started yet."""
    config = folder / "farm.yaml"
    config.write_text(CONFIG)
    beside = ["--with-prometheus"] if shutil.which("prometheus") else []
    return Farm(
        folder / "home",
        extra={"LONGTAKE_METRICS_PORT": str(free_port())},
        up_options=("--config", str(config), *beside),
    )


def wait_for_gangs(farm: Farm) -> None:
    """Until every pool has a gang. Raises AssertionError if one gets none in time."""
    end = time.monotonic() + TIME_LIMIT_S
    while missing := [pool for pool in SHAPES if not gang_pids(farm, pool)]:
        assert time.monotonic() < end, f"pools {missing} do not get their gangs"
        time.sleep(0.1)


def gang_pids(farm: Farm, pool: str) -> list[int]:
    """Process ids of the ranks of a pool's oldest gang, rank 0 first; none while it has no gang."""
    pools = {one["name"]: one for one in farm.ask("GET", "/v1/pools")["data"]}
    gangs = (pools[pool]["live"] or {}).get("gangs", [])
    return list(gangs[0]["pids"]) if gangs else []
