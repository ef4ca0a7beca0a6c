"""Fixtures for tests of the studio: a browser, pages of it, a farm to look at.

A module that wants them says `pytest_plugins = ["tests.studio.studio_fixtures"]`.
"""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from testkit.test_tools import NO_BROWSER
from tests.studio.accessibility import check_accessible
from tests.studio.browsing import Trouble, Visitor, find_chromium, running_browser
from tests.studio.studio_double import Studio, running_studio


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one file of tests, not longer: while it is there, nothing in this thread can run asyncio."""
    if find_chromium() is None:
        pytest.skip(NO_BROWSER)
    with running_browser() as browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Opens pages. The test fails at its end where anything went wrong in one that `visitor.trouble` did not expect."""
    visitor = Visitor(browser)
    yield visitor
    visitor.close()
    visitor.trouble.check()


@pytest.fixture
def trouble(visitor: Visitor) -> Trouble:
    """To say what may go wrong: `trouble.expect("status of 422")`."""
    return visitor.trouble


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A farm without keys, the same for a whole file."""
    with running_studio(tmp_path_factory.mktemp("studio")) as running:
        yield running


@pytest.fixture(scope="module")
def locked_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A farm that asks for keys, the same for a whole file."""
    with running_studio(tmp_path_factory.mktemp("locked"), auth="on") as running:
        yield running


@pytest.fixture
def page(visitor: Visitor, studio: Studio) -> Page:
    """The storyboard view of the farm without keys, on a desktop. `go(page, "#/films")` leads elsewhere."""
    return visitor.visit(studio.address)


@pytest.fixture
def axe() -> Callable[..., None]:
    """`axe(page)` fails with what axe-core finds in it, in light and in dark."""
    return check_accessible
