"""Takes the pictures of docs/studio.md from a real farm: `python -m tests.studio.screenshots`, a few minutes.

Desktops are shown whole and in light colours, phones in dark ones. Nothing is touched up: what a picture shows was
rendered then.
"""

import io
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import yaml
from PIL import Image
from playwright.sync_api import Page

from testkit.farm_process import Farm
from tests.studio.browsing import DESKTOP, PHONE, Visitor, running_browser

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images" / "studio"
DEVICES: dict[str, tuple[tuple[int, int], Literal["light", "dark"]]] = {
    "desktop": (DESKTOP, "light"),
    "phone": (PHONE, "dark"),
}
SETTLE_MS = 2500
"""Milliseconds for pictures and quotes to arrive."""


class Studio:
    """A page for each device, on the same farm."""

    def __init__(self, visitor: Visitor, farm: Farm) -> None:
        self._pages = {
            device: visitor.visit(farm.address, size=size, scheme=scheme) for device, (size, scheme) in DEVICES.items()
        }

    def show(self, name: str, path: str, prepare: Any = lambda _: None) -> None:
        """Pictures of a view, after `prepare(page)`."""
        for device, page in self._pages.items():
            page.goto(f"{page.url.partition('#')[0]}{path}")
            page.locator("main h1").wait_for()
            prepare(page)
            page.wait_for_timeout(SETTLE_MS)
            page.mouse.move(0, 0)
            picture = Image.open(io.BytesIO(page.screenshot(full_page=device == "desktop"))).convert("RGB")
            picture.save(PICTURES / f"{name}-{device}.png", optimize=True)


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text())
    return found


def submit(farm: Farm, storyboard: dict[str, Any], **options: Any) -> str:
    return str(farm.ask("POST", "/v1/jobs", json={"storyboard": storyboard, **options})["id"])


def fill_farm(farm: Farm) -> str:
    """Films in every state; returns the one that renders."""
    done = submit(farm, {**example("advert"), "quality": "draft"}, tags={"client": "box"})
    farm.wait_for(done, lambda job: job["status"] == "completed")
    shown = submit(farm, example("demo"), budget_usd=5, priority=70, due_at=time.time() + 900, tags={"project": "demo"})
    farm.wait_for(shown, lambda job: job["status"] == "in_progress")
    for action, name in (("cancel", "one-long-take"), ("pause", "harbour")):
        job = submit(farm, example(name))
        farm.ask("POST", f"/v1/jobs/{job}/{action}", json={"reason": "not today"})
    submit(farm, {**example("night-and-day"), "quality": "draft"}, priority=20)
    return shown


def take_example(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^A day of a red ball")).click()
    page.get_by_role("button", name="Close").click()


def show_timeline(page: Page) -> None:
    """On a phone it is below the fold."""
    page.get_by_role("heading", name="Timeline").wait_for()
    if page.viewport_size == {"width": PHONE[0], "height": PHONE[1]}:
        page.get_by_role("heading", name="Timeline").evaluate("heading => scrollTo(0, heading.offsetTop - 170)")


def change_shot(page: Page) -> None:
    page.get_by_label(re.compile("^Prompt of shot 3")).fill("{stranger} bouncing, day")


def seek(page: Page) -> None:
    page.get_by_label(re.compile("^Film: ")).evaluate("video => { video.currentTime = 14 }")


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        farm = Farm(Path(folder) / "home", extra={"LONGTAKE_POOLS__0__PRICE_PER_GPU_SECOND": "0.0006"})
        visitor = Visitor(browser)
        farm.up()
        try:
            studio = Studio(visitor, farm)
            studio.show("storyboard", "#/", take_example)
            job = fill_farm(farm)
            farm.wait_for(job, lambda found: found["progress"] > 40)
            studio.show("render", f"#/jobs/{job}", show_timeline)
            studio.show("films", "#/films")
            studio.show("farm", "#/farm")
            farm.wait_for(job, lambda found: found["status"] == "completed", within_s=900)
            studio.show("finished", f"#/jobs/{job}", seek)
            studio.show("refine", f"#/jobs/{job}/revise", change_shot)
        finally:
            visitor.close()
            farm.down()
    visitor.trouble.check()


if __name__ == "__main__":
    main()
