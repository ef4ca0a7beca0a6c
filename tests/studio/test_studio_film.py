"""A film from the first word to the last frame, in a real browser over a real farm: written, quoted, sent, watched,
played, refined, cancelled. What one test has rendered the next finds cached."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from testkit.farm_process import Farm
from tests.studio.browsing import Visitor, go
from tests.studio.page_words import WEB

pytest_plugins = ["tests.studio.studio_fixtures"]

pytestmark = pytest.mark.farm

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PROMPTS = {"red": f"a red ball moving right, day {HOSTILE}", "blue": "a blue box bouncing, night"}
FILM_MS = 120_000
"""Milliseconds in which a short draft is rendered on a busy machine."""


@pytest.fixture(scope="module")
def farm(shared_farm: Farm) -> Farm:
    return shared_farm


@pytest.fixture
def page(visitor: Visitor, farm: Farm) -> Page:
    visitor.trouble.expect("status of 503")  # a Director may answer late: the page asks again
    return visitor.visit(farm.address)


def board(title: str, *, seconds: float = 1.0, prompts: dict[str, str] = PROMPTS) -> dict[str, Any]:
    shots = [{"id": key, "prompt": prompt, "seconds": seconds} for key, prompt in prompts.items()]
    return {"version": 1, "title": title, "quality": "draft", "shots": shots}


def submit(farm: Farm, storyboard: dict[str, Any]) -> str:
    return str(farm.ask("POST", "/v1/jobs", json={"storyboard": storyboard})["id"])


def shot(page: Page, number: int) -> Locator:
    return page.get_by_role("list", name="Shots").get_by_role("listitem").nth(number - 1)


def write(page: Page, number: int, key: str, prompt: str, seconds: str) -> None:
    """Fill a card of the storyboard in as a person does."""
    card = shot(page, number)
    card.get_by_label(f"Id of shot {number}").fill(key)
    card.get_by_label(re.compile(f"^Prompt of shot {number}")).fill(prompt)
    card.get_by_label("Seconds").fill(seconds)


def job_of(page: Page) -> str:
    expect(page).to_have_url(re.compile(r"#/jobs/job_\w+$"))
    return page.url.rpartition("/")[2]


def state(page: Page) -> Locator:
    return page.locator("main header .badge")


def heat(page: Page) -> str:
    """The pixels of the heat map, as a hash."""
    pixels: str = page.locator(".reel canvas").evaluate("canvas => canvas.toDataURL()")
    return hashlib.sha256(pixels.encode()).hexdigest()


def test_a_film_is_written_sent_watched_and_played(page: Page, farm: Farm, axe: Callable[..., None]) -> None:
    before = farm.ask("GET", "/v1/jobs")["data"]
    page.get_by_label("Title").fill(f"Two balls {HOSTILE}")
    page.get_by_label("Quality").select_option("draft")
    write(page, 1, "red", PROMPTS["red"], "1")
    page.get_by_role("button", name="Add a shot", exact=True).click()
    write(page, 2, "blue", PROMPTS["blue"], "1000")
    expect(shot(page, 2)).to_contain_text("at most")
    shot(page, 2).get_by_label("Seconds").fill("1")
    quote = page.get_by_role("complementary", name="Quote")
    expect(quote).to_contain_text("32")
    expect(quote).to_contain_text("2 takes")
    assert farm.ask("GET", "/v1/jobs")["data"] == before, "nothing is sent before it is asked for"
    page.get_by_role("button", name="Render the film").click()

    job = job_of(page)
    expect(page.get_by_role("heading", name="Two balls <img")).to_be_visible()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    at_first = heat(page)
    expect(page.get_by_role("img", name="Shot red as it is now")).to_be_visible(timeout=FILM_MS)
    assert page.get_by_role("img", name="Shot red as it is now").evaluate("image => image.naturalWidth") > 0
    expect(state(page)).to_have_text("Finished", timeout=FILM_MS)
    expect(page.get_by_role("button", name=re.compile(r"Take blue .*Ready to watch, 5 of 5 latents"))).to_be_visible()
    assert heat(page) != at_first, "the heat map has filled"

    film = farm.job(job)["film"]
    expect(page.get_by_text(film["sha256"])).to_be_visible()
    video = page.get_by_label(re.compile("^Film: Two balls"))
    played = video.evaluate("""async (video) => {
        video.muted = true;
        await video.play();
        const plays = () => new Promise((go) => video.addEventListener("timeupdate", go, { once: true }));
        while (video.currentTime < 0.3) await plays();
        const bytes = await (await fetch(video.currentSrc)).arrayBuffer();
        const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
        return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }""")
    assert played == film["sha256"]
    assert page.evaluate("document.title") != "owned"
    axe(page)


def test_a_changed_shot_is_rendered_and_the_other_is_kept(page: Page, farm: Farm, axe: Callable[..., None]) -> None:
    first = submit(farm, board("Refined"))
    farm.wait_for(first, lambda job: job["status"] == "completed")
    go(page, f"#/jobs/{first}")
    page.get_by_role("link", name="Refine").click()
    expect(page.get_by_role("heading", name="Refine “Refined”: version 2")).to_be_visible()
    shot(page, 2).get_by_label(re.compile("^Prompt of shot 2")).fill("a green box bouncing, night")
    expect(page.get_by_text("1 of 2 takes are rendered anew; the others are kept.")).to_be_visible()
    axe(page)
    page.get_by_role("button", name="Render version 2").click()
    expect(page).not_to_have_url(re.compile(first))
    second = job_of(page)
    assert second != first
    expect(state(page)).to_have_text("Finished", timeout=FILM_MS)
    takes = {take["key"]: take for take in farm.job(second)["takes"]}
    assert [takes["red"]["cached"], takes["blue"]["cached"]] == [True, False]
    expect(page.locator("[data-shot=red]")).to_contain_text("already rendered")
    versions = page.get_by_role("region", name="Table of versions")
    expect(versions.get_by_role("row")).to_have_count(3)


def test_a_film_is_seen_while_it_renders_through_a_lost_connection_and_cancelled(
    page: Page, farm: Farm, visitor: Visitor, axe: Callable[..., None]
) -> None:
    visitor.trouble.expect("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED")
    job = submit(farm, board("A long one", seconds=120.0))  # far from done when it is cancelled
    go(page, f"#/jobs/{job}")
    expect(state(page)).to_have_text("Rendering", timeout=FILM_MS)
    expect(page.get_by_text(re.compile(r"^Latents \d+ to")).first).to_be_visible(timeout=FILM_MS)
    axe(page)
    page.context.set_offline(True)
    expect(page.get_by_text("No connection to the farm.")).to_be_visible()
    farm.ask("PATCH", f"/v1/jobs/{job}", json={"priority": 70})
    page.context.set_offline(False)
    expect(page.get_by_text("No connection to the farm.")).to_have_count(0)
    expect(page.get_by_text("70 of 100")).to_be_visible()
    go(page, "#/films")
    expect(page.get_by_role("row").filter(has_text="A long one")).to_contain_text("Rendering")
    axe(page)
    go(page, "#/farm")
    expect(page.get_by_role("article", name="plain")).to_contain_text(re.compile("[12] busy"))
    axe(page)
    go(page, f"#/jobs/{job}")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the film").click()
    expect(state(page)).to_have_text("Cancelled")
    assert farm.job(job)["status"] == "cancelled"


def test_the_page_that_a_farm_serves_is_the_page_that_ships(farm: Farm) -> None:
    for path in ("index.html", "app.js", "views/farm/films.js", "vendor/htm-preact.js"):
        url = f"{farm.address}/studio/{path}" if path != "index.html" else f"{farm.address}/"
        assert httpx.get(url, trust_env=False).content == (WEB / path).read_bytes(), path
