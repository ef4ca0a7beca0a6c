"""What all tests share."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from testkit.farm_process import Farm
from testkit.postgres import _postgres_template, _sqlite_template, database, database_url, postgres, postgres_url
from testkit.ranks import ranks
from testkit.s3 import s3_endpoint, s3_url
from testkit.shared_farm import make_shared_farm, wait_for_gangs
from testkit.test_tools import INSTALL

__all__ = [
    "_postgres_template",
    "_sqlite_template",
    "database",
    "database_url",
    "postgres",
    "postgres_url",
    "ranks",
    "s3_endpoint",
    "s3_url",
]

# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("longtake", deadline=None)
hypothesis.settings.load_profile("longtake")


@pytest.fixture(scope="session")
def _running_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = make_shared_farm(tmp_path_factory.mktemp("shared"))
    try:
        farm.up()
        yield farm
    finally:
        farm.down()


@pytest.fixture(scope="module")
def shared_farm(_running_farm: Farm) -> Farm:
    """A real farm that runs until the tests end, every pool with a gang; see testkit/shared_farm.py."""
    wait_for_gangs(_running_farm)
    return _running_farm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that take long first, so that no worker is left alone with one at the end, and tests that share the
    farm last, so that it does not run beside those that start one of their own."""

    def place(item: pytest.Item) -> int:
        if "shared_farm" in getattr(item, "fixturenames", ()):
            return 2
        return 0 if item.get_closest_marker("slow") or item.get_closest_marker("browser") else 1

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says last what was skipped, in this run and in those before it that wrote to the same file SKIPPED."""
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")]
    file = Path(os.environ.get("SKIPPED", os.devnull))
    earlier = file.read_text().splitlines() if file.exists() else []
    counted = Counter([*earlier, *reasons])
    file.write_text("".join(f"{reason}\n" for reason in counted.elements()))
    if not counted:
        return
    terminalreporter.section(f"skipped {counted.total()} tests")
    for reason, count in counted.most_common():
        terminalreporter.line(f"{count:5} {reason}")
    if any(INSTALL in reason for reason in counted):
        terminalreporter.line(f"`{INSTALL}` installs all that is not installed.")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """As in a gang. On the tensors of tests a second thread only waits for the first."""
    torch.set_num_threads(1)
