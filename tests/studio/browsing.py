"""A browser for tests of the studio: pages that fail their test where anything goes wrong that it did not expect.

What goes wrong: an error of the page or on its console (the content security policy reports there too), a request that
is refused, and a request to another origin than the page's own.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DESKTOP = (1280, 900)
PHONE = (390, 844)
"""Width and height in CSS pixels."""

LIMIT_MS = 20_000
"""Milliseconds that anything in a page may take on a busy machine."""

expect.set_options(timeout=LIMIT_MS)

_LOCAL = ("blob", "data", "about")


def find_chromium() -> str | None:
    """Where the browser is; None on a machine without one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser for as long as the block lasts. While it is there this thread cannot run asyncio."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Trouble:
    """What went wrong in the pages of a test."""

    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Regular expressions; what one of them is found in is no trouble."""

    def expect(self, *patterns: str) -> None:
        """Let these go, whenever they happened."""
        self.expected += patterns

    def watch(self, page: Page, origin: str) -> None:
        """Listen to a page from now on."""

        def request(one: Request) -> None:
            parts = urlsplit(one.url)
            if parts.scheme not in _LOCAL and f"{parts.scheme}://{parts.netloc}" != origin:
                self.found.append(f"a request to another origin: {one.url}")

        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.found.append(f"console {message.type}: {message.text} at {message.location.get('url', '')}")

        def response(one: Response) -> None:
            if one.status >= 400:
                self.found.append(f"an answer with a status of {one.status} to {one.request.method} {one.url}")

        page.on("request", request)
        page.on("response", response)
        page.on("console", console)
        page.on("pageerror", lambda error: self.found.append(f"error: {error.stack or error.message}"))
        page.on("crash", lambda _: self.found.append("the page crashed"))

    def check(self) -> None:
        """Raises AssertionError with all that was not expected."""
        left = [one for one in self.found if not any(re.search(pattern, one) for pattern in self.expected)]
        assert not left, "\n".join(["in the page:", *left])


@dataclass
class Visitor:
    """Opens pages of a studio; each in a context of its own, which is closed with `close`."""

    browser: Browser
    trouble: Trouble = field(default_factory=Trouble)
    _contexts: list[Any] = field(default_factory=list)

    def visit(
        self,
        address: str,
        path: str = "#/",
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["light", "dark"] = "light",
        key: str = "",
    ) -> Page:
        """A new page of the studio at `address`, for instance http://127.0.0.1:8000, with `path` behind the slash.
        `key` is one that the person has given before."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            reduced_motion="reduce",
            has_touch=size == PHONE,
            locale="en-GB",
        )
        context.set_default_timeout(LIMIT_MS)
        self._contexts.append(context)
        if key:
            context.add_init_script(f"sessionStorage.setItem('longtake.key', {json.dumps(key)})")
        page = context.new_page()
        self.trouble.watch(page, address)
        page.goto(f"{address}/{path}")
        page.locator("#content").wait_for()
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def go(page: Page, path: str) -> None:
    """Another view of the same page, as a link leads there."""
    page.evaluate("path => { location.hash = path }", path)
