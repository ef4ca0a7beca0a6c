"""What axe-core finds in a page, as a readable failure. axe-core comes with the package axe-playwright-python."""

import importlib.resources
from functools import cache
from typing import Any

from playwright.sync_api import Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@cache
def _axe() -> str:
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text()


def check_accessible(page: Page, *, schemes: tuple[str, ...] = ("light", "dark")) -> None:
    """Raises AssertionError if axe-core finds something in the page as it is now, in each scheme of colours."""
    found = []
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found += [f"[{scheme}] {line}" for line in violations(page)]
    page.emulate_media(color_scheme=schemes[0])  # type: ignore[arg-type]
    assert not found, "\n".join([f"axe-core on {page.url}:", *found])


def violations(page: Page) -> list[str]:
    """A line for each element that breaks a rule: the rule, what is wrong, the element."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    result: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{broken['id']} ({broken['impact']}): {node['failureSummary'].replace(chr(10), ' ')} -- {node['html'][:200]}"
        for broken in result["violations"]
        for node in broken["nodes"]
    ]
