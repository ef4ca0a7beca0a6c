"""The list of films and the farm's own view in a real browser, over a farm that renders."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from cluster.contract.pools_and_nodes import PoolTerms
from serving.config.farm import PoolConfig, ScalingConfig
from tests.serving.api.api_double import ApiDouble, running
from tests.studio.browsing import PHONE, Visitor, go
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

LISTS = "/studio/views/farm/film_list.js"


def board(title: str, shots: int = 1) -> dict[str, Any]:
    shown = [{"id": f"s{k}", "prompt": f"a red ball rolls, {title}", "seconds": 1.0} for k in range(shots)]
    return {"version": 1, "title": title, "quality": "draft", "shots": shown}


@pytest.fixture
def held(studio: Studio) -> Iterator[None]:
    """Nothing is rendered; what the test leaves is cancelled."""
    with studio.held():
        yield
        for job in studio.http.get("/v1/jobs?limit=100").json()["data"]:
            studio.http.post(f"/v1/jobs/{job['id']}/cancel")


@pytest.fixture
def films(page: Page) -> Page:
    go(page, "#/films")
    page.get_by_role("heading", name="Films", exact=True).wait_for()
    return page


def row(page: Page, title: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=title, exact=True))


# ---------------------------------------------------------------------------------------------- the list


def test_a_new_tenant_is_led_to_the_storyboard(visitor: Visitor, locked_studio: Studio) -> None:
    page = visitor.visit(locked_studio.address, "#/films", key=locked_studio.new_key("newcomer"))
    expect(page.get_by_role("heading", name="No films yet")).to_be_visible()
    page.get_by_role("link", name="Write a storyboard").click()
    expect(page.get_by_role("navigation", name="Studio").locator("[aria-current=page]")).to_have_text("Storyboard")


@pytest.mark.usefixtures("held")
def test_films_are_filtered_by_state_and_counted(films: Page, studio: Studio) -> None:
    kept, ended = studio.submit(board("Kept")), studio.submit(board("Ended"))
    studio.http.post(f"/v1/jobs/{ended['id']}/cancel")
    cancelled = films.get_by_role("button", name="Cancelled")
    count = studio.http.get("/v1/jobs?counts=true").json()["counts"]["cancelled"]
    expect(cancelled).to_have_text(re.compile(rf"Cancelled\s*{count}"))
    cancelled.click()
    expect(row(films, "Ended")).to_be_visible()
    expect(row(films, "Kept")).to_have_count(0)
    assert films.url.endswith("#/films?status=cancelled")
    films.reload()
    expect(films.get_by_role("button", name="Cancelled")).to_have_attribute("aria-pressed", "true")
    expect(row(films, "Kept")).to_have_count(0)
    films.get_by_role("button", name=re.compile("^All")).click()
    expect(row(films, "Kept")).to_be_visible()
    assert studio.job(kept["id"])["status"] in ("queued", "in_progress")


@pytest.mark.usefixtures("held")
def test_a_tag_shows_only_films_that_have_it(films: Page, studio: Studio) -> None:
    studio.submit(board("Spring film"), tags={"campaign": "spring"})
    studio.submit(board("Other film"))
    row(films, "Spring film").get_by_role("button", name="Show only campaign=spring").click()
    expect(row(films, "Other film")).to_have_count(0)
    films.get_by_role("button", name="Remove the filter campaign=spring").click()
    expect(row(films, "Other film")).to_be_visible()


@pytest.mark.usefixtures("held")
def test_what_a_person_does_is_done(films: Page, studio: Studio) -> None:
    job = studio.submit(board("Steered"))
    row(films, "Steered").get_by_role("button", name="Raise priority: Steered").click()
    expect(row(films, "Steered").get_by_role("cell", name="60", exact=True)).to_be_visible()
    expect(films.get_by_role("button", name="Raise priority: Steered")).to_be_focused()
    films.get_by_role("button", name="Pause: Steered").click()
    expect(row(films, "Steered")).to_contain_text("Paused")
    expect(films.get_by_role("link", name="Steered", exact=True)).to_be_focused()
    assert studio.job(job["id"])["status"] == "paused"
    films.get_by_role("button", name="Resume: Steered").click()
    expect(films.get_by_role("button", name="Pause: Steered")).to_be_visible()
    films.get_by_role("button", name="Cancel: Steered").click()
    dialog = films.get_by_role("dialog", name="Cancel this film?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    expect(films.get_by_role("button", name="Cancel: Steered")).to_be_focused()
    films.get_by_role("button", name="Cancel: Steered").click()
    dialog.get_by_role("button", name="Cancel the film").click()
    expect(row(films, "Steered")).to_contain_text("Cancelled")
    assert studio.job(job["id"])["status"] == "cancelled"
    assert studio.job(job["id"])["priority"] == 60


@pytest.mark.usefixtures("held")
def test_what_is_refused_is_said(films: Page, studio: Studio, visitor: Visitor) -> None:
    visitor.trouble.expect("status of 409")
    job = studio.submit(board("Gone meanwhile"))
    films.get_by_role("button", name="Pause: Gone meanwhile").hover()
    studio.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    films.get_by_role("button", name="Pause: Gone meanwhile").click()
    expect(films.get_by_role("alert")).to_contain_text("cannot pause")


@pytest.mark.usefixtures("held")
def test_a_film_that_waits_says_why(films: Page, studio: Studio, axe: Callable[..., None]) -> None:
    for title in ("First", "Next"):  # a gang has one call and another beside it
        studio.submit(board(title), priority=90)
    waiting = studio.submit(board("Second"), priority=5)
    words = re.compile("(It is number|It is next)")
    expect(row(films, "Second")).to_contain_text(words)
    row(films, "Second").get_by_role("button", name="Why is it waiting?: Second").click()
    dialog = films.get_by_role("dialog", name="Why Second is waiting")
    expect(dialog).to_contain_text(words)
    expect(dialog).to_contain_text("Place in line")
    axe(films)
    dialog.get_by_role("button", name="Close").click()
    assert studio.job(waiting["id"])["status"] == "queued"


@pytest.mark.usefixtures("held")
def test_new_films_wait_while_somebody_points_at_the_list(films: Page, studio: Studio) -> None:
    studio.submit(board("Here first"))
    link = films.get_by_role("link", name="Here first", exact=True)
    link.focus()
    before = link.bounding_box()
    studio.submit(board("Newcomer"))
    fresh = films.get_by_role("button", name="Show 1 new film")
    expect(fresh).to_be_visible()
    expect(link).to_be_focused()
    assert link.bounding_box() == before
    fresh.click()
    expect(row(films, "Newcomer")).to_be_visible()
    expect(films.get_by_role("link", name="Newcomer", exact=True)).to_be_focused()


@pytest.mark.usefixtures("held")
def test_films_are_cards_on_a_phone(visitor: Visitor, studio: Studio) -> None:
    studio.submit(board("On a phone"))
    page = visitor.visit(studio.address, "#/films", size=PHONE)
    card = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="On a phone"))
    button = card.get_by_role("button", name="Cancel: On a phone")
    expect(button).to_be_visible()
    box = button.bounding_box()
    assert box is not None
    assert box["height"] >= 44


def test_administrators_see_whose_film_it_is(visitor: Visitor, locked_studio: Studio) -> None:
    with locked_studio.held():
        locked_studio.submit(board("Someone's"), tenant="studio-b")
        page = visitor.visit(locked_studio.address, "#/films", key=locked_studio.key)
        expect(row(page, "Someone's").get_by_role("button", name="Show only studio-b")).to_be_visible()
        page = visitor.visit(locked_studio.address, "#/films", key=locked_studio.new_key("studio-b"))
        expect(row(page, "Someone's")).to_be_visible()
        expect(page.get_by_role("columnheader", name="Tenant")).to_have_count(0)


# ---------------------------------------------------------------------------------------------- which rows stay


def merged(page: Page, shown: str, answer: str, *, has_more: bool) -> tuple[str, int]:
    """mergePage of film_list.js; films are letters, newest first."""
    result = page.evaluate(
        """async ([path, shown, answer, has_more]) => {
            const { mergePage } = await import(path);
            const jobs = (ids) => [...ids].map((id) => ({ id }));
            const { rows, fresh } = mergePage(jobs(shown), { data: jobs(answer), has_more });
            return [rows.map((job) => job.id).join(""), fresh];
        }""",
        [LISTS, shown, answer, has_more],
    )
    return result[0], result[1]


def test_rows_keep_their_places(page: Page) -> None:
    assert merged(page, "", "dcba", has_more=False) == ("dcba", 0)
    assert merged(page, "dcba", "dcba", has_more=False) == ("dcba", 0)
    assert merged(page, "dcba", "edcb", has_more=True) == ("dcba", 1), "pushed off the page, a stays"
    assert merged(page, "dcba", "dba", has_more=False) == ("dba", 0), "c is not among them any more"
    assert merged(page, "db", "dcb", has_more=False) == ("db", 1), "c belongs between them and waits"
    assert merged(page, "dc", "dcba", has_more=False) == ("dcba", 0), "what comes below moves nothing"
    assert merged(page, "dc", "hgfe", has_more=True) == ("dc", 4), "all are pushed off the page"
    assert merged(page, "dc", "b", has_more=False) == ("b", 0)


def test_filters_are_read_back_from_their_address(page: Page) -> None:
    hostile = "#/films?status=queued&status=nonsense&tag=a=b%26c&tag=noequals&family=job_1&tenant=x%22y"
    filters = page.evaluate(f"async (hash) => (await import('{LISTS}')).readFilters(hash)", hostile)
    assert filters == {"status": ["queued"], "tag": ["a=b&c"], "family": "job_1", "tenant": 'x"y'}
    address = page.evaluate(f"async (filters) => (await import('{LISTS}')).writeFilters(filters)", filters)
    again = page.evaluate(f"async (hash) => (await import('{LISTS}')).readFilters(hash)", address)
    assert again == filters


# ---------------------------------------------------------------------------------------------- the farm


def test_the_farm_shows_its_pools_gangs_nodes_and_faults(visitor: Visitor, studio: Studio) -> None:
    page = visitor.visit(studio.address, "#/farm")
    pool = page.get_by_role("article", name="default")
    expect(pool).to_contain_text("1 gang wanted")
    expect(pool).to_contain_text("1 idle")
    expect(page.get_by_role("region", name="Gangs").get_by_role("row", name="gang-0")).to_contain_text("idle")
    expect(page.get_by_role("region", name="Nodes").get_by_role("row", name=re.compile("^here"))).to_contain_text(
        "alive"
    )
    expect(page.get_by_role("heading", name="Recent faults")).to_be_visible()
    expect(page.get_by_role("heading", name="Farm", exact=True)).to_be_visible()


def test_a_node_is_drained_after_a_question(visitor: Visitor, studio: Studio, axe: Callable[..., None]) -> None:
    page = visitor.visit(studio.address, "#/farm")
    page.get_by_role("button", name="Drain node elsewhere").click()
    dialog = page.get_by_role("dialog", name="Drain node elsewhere?")
    dialog.get_by_label("Reason").fill("a new disk")
    axe(page)
    dialog.get_by_role("button", name="Drain the node").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("row", name="elsewhere")).to_contain_text("draining")
    asked = studio.farm.nodes.asked[-1]
    assert asked[:2] == ("elsewhere", "operator: a new disk")


def test_without_a_director_the_farm_says_what_still_works(visitor: Visitor, studio: Studio) -> None:
    visitor.trouble.expect("status of 503")
    studio.live.away = True
    try:
        page = visitor.visit(studio.address, "#/farm")
        expect(page.get_by_text("Films are still accepted")).to_be_visible()
        expect(page.get_by_text("Not known while the Director cannot be reached.")).to_be_visible()
        expect(page.get_by_role("article", name="default")).to_be_visible()
    finally:
        studio.live.away = False
    expect(page.get_by_role("article", name="default")).to_contain_text("1 idle")
    expect(page.get_by_text("Films are still accepted")).to_have_count(0)


def test_what_is_for_administrators_is_shown_to_them_alone(visitor: Visitor, locked_studio: Studio) -> None:
    page = visitor.visit(locked_studio.address, "#/farm", key=locked_studio.new_key("guest"))
    expect(page.get_by_role("article", name="default")).to_be_visible()
    expect(page.get_by_role("heading", name="Nodes")).to_have_count(0)
    expect(page.get_by_role("heading", name="Recent faults")).to_have_count(0)


@pytest.fixture
def scaled(tmp_path: Any) -> Iterator[ApiDouble]:
    """The API of a farm whose pool follows its backlog."""
    pool = PoolConfig(model="pocket", min_gangs=0, max_gangs=4, scaling=ScalingConfig())
    with running(tmp_path, pools=(pool,)) as api:
        yield api


def test_the_size_of_a_pool_is_changed(visitor: Visitor, scaled: ApiDouble) -> None:
    visitor.trouble.expect("status of 422")
    page = visitor.visit(scaled.url, "#/farm")
    page.get_by_role("button", name="Change: size of pool default").click()
    dialog = page.get_by_role("dialog", name="Size of pool default")
    dialog.get_by_label("Fewest gangs").fill("7")
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog).to_contain_text("max_gangs must be at least")
    dialog.get_by_label("Fewest gangs").fill("2")
    dialog.get_by_label("Most gangs").fill("6")
    dialog.get_by_label("Spot nodes").select_option("avoid")
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("article", name="default")).to_contain_text("2 to 6, by backlog")
    found = scaled.http.get("/v1/pools").json()["data"][0]["terms"]
    assert found == PoolTerms(min_gangs=2, max_gangs=6, spot="avoid").model_dump(mode="json")
