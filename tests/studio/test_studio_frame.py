"""The frame of the studio in a real browser: navigation, the key, colours, keyboard, phones, policy."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.studio.browsing import DESKTOP, PHONE, Visitor, go
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='owned'> </script><script>document.title='owned'</script> {{x}}"
BOARD = {
    "version": 1,
    "title": f"{HOSTILE} {'averylongwordwithoutaspace' * 3}",
    "quality": "draft",
    "characters": {"hero": HOSTILE},
    "shots": [
        {"id": "red", "prompt": f"a red ball rolls {HOSTILE}", "seconds": 1.0},
        {"id": "blue", "prompt": "a blue ball rolls", "seconds": 1.0, "transition": {"dissolve": 0.25}},
    ],
}
VIEWS = ["#/", "#/films", "#/farm", "#/jobs/{job}", "#/jobs/{job}/revise", "#/nowhere"]


@pytest.fixture(scope="module")
def job(studio: Studio) -> str:
    """A film whose words are all hostile; it was cancelled before it began."""
    with studio.held():
        found = str(studio.submit(BOARD, tags={"project": "a<b>&c"})["id"])
        studio.http.post(f"/v1/jobs/{found}/cancel").raise_for_status()
    return found


def settled(page: Page) -> None:
    """Wait until the view has what it asked for."""
    page.locator("main :is(h1, p)").first.wait_for()
    page.wait_for_load_state("networkidle")


# ---------------------------------------------------------------------------------------------- places


def test_each_place_of_the_navigation_is_reached_and_marked(page: Page) -> None:
    links = page.get_by_role("navigation", name="Studio")
    for name in ("Films", "Farm", "Storyboard"):
        links.get_by_role("link", name=name).click()
        expect(links.locator("[aria-current=page]")).to_have_text(name)
        expect(page.get_by_role("main")).to_be_focused()


def test_the_title_of_the_window_names_the_place(page: Page) -> None:
    expect(page).to_have_title("Storyboard · Longtake")
    go(page, "#/farm")
    expect(page).to_have_title("Farm · Longtake")


def test_an_address_that_leads_nowhere_says_so(page: Page) -> None:
    go(page, "#/nowhere/at/all")
    expect(page.get_by_text("There is no such page.")).to_be_visible()


def test_the_first_tab_stop_leads_past_the_navigation(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_passes_axe_in_light_and_dark(
    visitor: Visitor, studio: Studio, job: str, axe: Callable[..., None], view: str
) -> None:
    page = visitor.visit(studio.address, view.format(job=job))
    settled(page)
    axe(page)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_a_phone(
    visitor: Visitor, studio: Studio, job: str, axe: Callable[..., None], view: str
) -> None:
    page = visitor.visit(studio.address, view.format(job=job), size=PHONE)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    axe(page, schemes=("light",))


# ---------------------------------------------------------------------------------------------- hostile words


@pytest.mark.parametrize("view", VIEWS)
def test_hostile_words_are_shown_and_do_nothing(visitor: Visitor, studio: Studio, job: str, view: str) -> None:
    page = visitor.visit(studio.address, view.format(job=job))
    settled(page)
    assert page.evaluate("document.title") != "owned"
    assert page.locator("img[src=x]").count() == 0
    if view == "#/films":
        expect(page.get_by_role("link", name="<img src=x onerror=")).to_be_visible()


# ---------------------------------------------------------------------------------------------- policy


def test_the_browser_refuses_what_the_policy_forbids(page: Page, visitor: Visitor) -> None:
    visitor.trouble.expect("Content Security Policy", "another origin", "Fetch API cannot load", "status of 404 .*/x$")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true' style='color: red'>");
    }""")
    refused = page.evaluate("fetch('http://192.0.2.1/').then(() => false, () => true)")
    assert refused
    assert page.evaluate("window.ran") is None
    assert any("connect-src" in one for one in visitor.trouble.found)


def test_a_page_of_another_origin_cannot_frame_it(studio: Studio) -> None:
    policy = studio.http.get("/").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe" not in policy


def test_all_that_is_loaded_comes_from_the_farm(visitor: Visitor, studio: Studio, job: str) -> None:
    page = visitor.visit(studio.address)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    for view in VIEWS:
        go(page, view.format(job=job))
        settled(page)
    assert len(asked) > 20
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(studio.address).netloc}


# ---------------------------------------------------------------------------------------------- key


def test_a_key_is_asked_for_and_kept_in_this_tab_alone(visitor: Visitor, locked_studio: Studio) -> None:
    visitor.trouble.expect("status of 401")
    asked: list[str] = []
    page = visitor.visit(locked_studio.address)
    page.on("request", lambda request: asked.append(request.url))
    dialog = page.get_by_role("dialog", name="This farm asks for a key")
    dialog.get_by_label("API key").fill("lt_wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog.get_by_text("The farm does not know this key.")).to_be_visible()
    dialog.get_by_label("API key").fill(locked_studio.key)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    for place in ("#/films", "#/farm", "#/"):
        go(page, place)
        settled(page)
    assert not any(locked_studio.key in url for url in asked)
    assert locked_studio.key not in page.evaluate("JSON.stringify(localStorage)")
    assert locked_studio.key not in page.evaluate("document.documentElement.outerHTML")
    assert locked_studio.key in page.evaluate("JSON.stringify(sessionStorage)")
    page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    assert locked_studio.key not in page.evaluate("JSON.stringify(sessionStorage)")


def test_the_dialog_of_the_key_passes_axe(visitor: Visitor, locked_studio: Studio, axe: Callable[..., None]) -> None:
    visitor.trouble.expect("status of 401")
    page = visitor.visit(locked_studio.address)
    page.get_by_role("dialog").wait_for()
    axe(page)


def test_the_dialog_of_the_key_cannot_be_left_without_one(visitor: Visitor, locked_studio: Studio) -> None:
    visitor.trouble.expect("status of 401")
    page = visitor.visit(locked_studio.address)
    page.get_by_role("dialog").wait_for()
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()


def test_without_a_key_the_farm_tells_nothing(locked_studio: Studio) -> None:
    for path in ("/v1/me", "/v1/jobs", "/v1/pools", "/v1/models", "/v1/logs"):
        assert httpx.get(f"{locked_studio.address}{path}").status_code == 401, path


# ---------------------------------------------------------------------------------------------- colours


def test_the_chosen_colours_are_kept(page: Page) -> None:
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Use dark colours").click()
    expect(page.get_by_role("button", name="Use light colours")).to_be_focused()
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Use light colours").wait_for()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark


def test_the_system_decides_while_nothing_is_chosen(visitor: Visitor, studio: Studio) -> None:
    page = visitor.visit(studio.address, scheme="dark", size=DESKTOP)
    expect(page.get_by_role("button", name="Use light colours")).to_be_visible()


# ---------------------------------------------------------------------------------------------- trouble


def test_a_farm_that_cannot_be_reached_is_tried_again(visitor: Visitor, studio: Studio) -> None:
    visitor.trouble.expect("ERR_FAILED")
    page = visitor.visit(studio.address, "#/films")

    def refuse(route: Route) -> None:
        route.abort()

    page.route("**/v1/**", refuse)
    page.reload()
    expect(page.get_by_text("The farm cannot be reached.")).to_be_visible()
    page.unroute("**/v1/**", refuse)
    expect(page.get_by_role("heading", name="Films", exact=True)).to_be_visible()
    expect(page.get_by_text("The farm cannot be reached.")).to_have_count(0)
