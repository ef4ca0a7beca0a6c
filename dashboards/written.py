"""Which files the data become. Both folders belong to `python -m dashboards` alone."""

from collections.abc import Sequence
from pathlib import Path

from dashboards.alerts import CLUSTER, GANGS, KEEPING, MONEY, WORK
from dashboards.api import API
from dashboards.farm import FARM
from dashboards.films import FILMS
from dashboards.grafana import to_json
from dashboards.pools import POOLS
from dashboards.recordings import RECORDINGS
from dashboards.rules import Alert, Recording, to_yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "longtake"

DASHBOARDS = (FARM, POOLS, FILMS, API)

GROUPS: dict[str, Sequence[Recording | Alert]] = {
    "longtake.recordings": RECORDINGS,
    "longtake.work": WORK,
    "longtake.gangs": GANGS,
    "longtake.keeping": KEEPING,
    "longtake.money": MONEY,
    "longtake.cluster": CLUSTER,
}


def written_files() -> dict[Path, str]:
    """Contents by path."""
    pages = {CHART / "dashboards" / f"{page.uid.removeprefix('longtake-')}.json": to_json(page) for page in DASHBOARDS}
    return {**pages, CHART / "rules" / "longtake.yaml": to_yaml(GROUPS)}
