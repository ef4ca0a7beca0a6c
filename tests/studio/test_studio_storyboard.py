"""The storyboard view in a real browser against a real farm: writing, mistakes, quote, files, sending, refining."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from serving.storyboard import parse_storyboard
from tests.studio.browsing import PHONE, Trouble, Visitor, go
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

BOARD: dict[str, Any] = {
    "version": 1,
    "title": "Two takes",
    "quality": "draft",
    "characters": {"hero": "a red ball"},
    "shots": [
        {"id": "open", "prompt": "{hero} moving right, day", "seconds": 1},
        {"id": "play", "prompt": "{hero} bouncing, day", "seconds": 1, "transition": "continue"},
        {"id": "end", "prompt": "a blue box circling, night", "seconds": 1},
    ],
}

HOSTILE = '<img src=x onerror="window.hacked = 1">{{ }} \'quotes\' "more" \u202e\u05e9\u05dc\u05d5\u05dd'


def take_in(page: Page, storyboard: Any) -> None:
    """Import a storyboard as a person pastes it."""
    text = storyboard if isinstance(storyboard, str) else json.dumps(storyboard)
    page.get_by_role("button", name="Import").click()
    page.get_by_label("Or its text").fill(text)
    page.get_by_role("button", name="Use this storyboard").click()


def prompt(page: Page, n: int) -> Any:
    return page.get_by_label(f"Prompt of shot {n},")


def figure(page: Page, name: str) -> Any:
    """A row of the quote of what is written now, not of what was there before."""
    return page.locator(".figures:not(.old) dl > div", has_text=name).locator("dd")


def expect_ids(page: Page, *ids: str) -> None:
    """The shots of the strip, in this order."""
    found = "[...document.querySelectorAll('.shot-head input')].map((input) => input.value).join(' ')"
    page.wait_for_function(f"(ids) => {found} === ids", arg=" ".join(ids))


def films(studio: Studio, title: str) -> list[dict[str, Any]]:
    return [job for job in studio.http.get("/v1/jobs?limit=100").json()["data"] if job["title"] == title]


def test_the_quote_follows_what_is_written(page: Page) -> None:
    prompt(page, 1).fill("a red ball moving right, day")
    expect(figure(page, "Length")).to_have_text("4 s")
    expect(figure(page, "Frames")).to_have_text("64")
    page.get_by_label("Seconds").fill("2.5")
    expect(figure(page, "Length")).to_have_text("2.5 s")
    expect(figure(page, "Ready")).to_contain_text("about")
    expect(page.locator(".shot .length")).to_have_text("40 frames")


def test_while_a_quote_is_worked_out_the_old_one_stays_dimmed(page: Page) -> None:
    prompt(page, 1).fill("a red ball moving right, day")
    expect(figure(page, "Length")).to_have_text("4 s")
    page.get_by_label("Seconds").fill("-3")
    expect(page.locator(".figures.old dl > div", has_text="Length").locator("dd")).to_have_text("4 s")
    expect(page.get_by_text("From before the mistakes")).to_be_visible()


def test_quick_typing_asks_the_farm_once(page: Page) -> None:
    prompt(page, 1).fill("a red ball moving right, day")
    expect(figure(page, "Length")).to_have_text("4 s")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/check" in request.url else None)
    page.get_by_label("Title").press_sequentially("A title of some length", delay=20)
    with page.expect_response("**/v1/check"):
        pass
    expect(figure(page, "Length")).to_have_text("4 s")
    assert len(asked) <= 2, "one, or two where the machine stood still between two keys"


NOTE_CHECKS = """() => {
  const ask = window.fetch;
  window.asked = [];
  window.refused = [];
  window.fetch = async (...told) => {
    if (String(told[0]).includes("/v1/check")) window.asked.push(performance.now());
    const answer = await ask(...told);
    if (answer.status === 429) window.refused.push(performance.now());
    return answer;
  };
}"""
"""Has a page note when it asks for a check and when one is refused, in milliseconds."""


def test_a_farm_that_is_asked_too_often_is_left_alone_as_long_as_it_says(page: Page, trouble: Trouble) -> None:
    trouble.expect("status of 429")
    body = json.dumps({"title": "Too Many Requests", "status": 429, "detail": "slowly, please", "code": "rate_limited"})
    headers = {"Retry-After": "3", "Content-Type": "application/problem+json"}
    page.evaluate(NOTE_CHECKS)
    page.route("**/v1/check", lambda route: route.fulfill(status=429, body=body, headers=headers), times=1)
    prompt(page, 1).fill("a red ball moving right, day")
    expect(page.get_by_text("slowly, please")).to_be_visible()
    prompt(page, 1).fill("a blue ball moving right, day")
    expect(figure(page, "Length")).to_have_text("4 s")
    [refused] = page.evaluate("refused")
    again = min(at for at in page.evaluate("asked") if at > refused)
    assert again - refused >= 3000


def test_a_shot_without_words_is_not_held_against_it_before_it_was_left(page: Page) -> None:
    with page.expect_response("**/v1/check"):
        page.get_by_label("Seconds").fill("3")
    expect(page.locator(".wrong-count")).to_have_count(0)
    prompt(page, 1).focus()
    page.get_by_label("Seconds").focus()
    expect(page.get_by_text("must be text of 1 to 2000 characters")).to_be_visible()


def test_mistakes_stand_beside_their_fields_and_one_click_mends_them(page: Page) -> None:
    shots = [
        {"id": "a", "prompt": "{heroo} rolls", "seconds": -1},
        {"id": "a", "prompt": "b", "seconds": 2, "transition": "disolve"},
        {"id": "c", "prompt": "c", "secnds": 2},
    ]
    take_in(page, {**BOARD, "titel": "x", "identity": 3, "video": {"width": 5}, "shots": shots})
    first = page.locator(".shot").nth(0)
    expect(first.locator(".field", has=prompt(page, 1)).locator(".problems")).to_contain_text(
        "there is no character 'heroo'"
    )
    expect(first.locator(".field", has_text="Seconds").locator(".problems")).to_contain_text("above 0")
    expect(page.locator(".shot").nth(1).locator(".field", has_text="Transition").locator(".problems")).to_contain_text(
        "must be"
    )
    expect(page.get_by_label("Likeness across cuts")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Width, pixels")).to_be_visible()
    expect(page.locator(".board > .problems.loose")).to_contain_text("titel")
    first.get_by_role("button", name="Use hero").click()
    expect(prompt(page, 1)).to_have_value("{hero} rolls")
    page.locator(".shot").nth(1).get_by_role("button", name="Use {dissolve: 0.5}").click()
    expect(page.locator(".shot").nth(1).get_by_label("Lasts, s")).to_have_value("0.5")
    page.locator(".shot").nth(2).get_by_role("button", name="Use seconds").click()
    expect(page.locator(".shot").nth(2).get_by_label("Seconds")).to_have_value("2")
    page.locator(".board > .problems.loose").get_by_role("button", name="Remove it").click()
    first.get_by_label("Seconds").fill("1")
    page.locator(".shot").nth(1).get_by_label("Id of shot 2").fill("b")
    page.get_by_label("Likeness across cuts").fill("0.3")
    page.get_by_label("Width, pixels").fill("")
    expect(figure(page, "Length")).to_have_text("5 s")
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)


def test_a_stitching_is_chosen_among_those_of_the_model(page: Page) -> None:
    take_in(page, BOARD)
    page.get_by_text("Seed, likeness, stitching, size").click()
    stitching = page.get_by_label("Stitching")
    words = stitching.get_by_role("option").all_inner_texts()
    assert [word.partition(":")[0] for word in words] == [
        "as the model does best", "drafted", "joint", "chained", "keyed",
    ]  # fmt: skip
    expect(stitching).to_have_value("")
    stitching.select_option("chained")
    page.get_by_role("button", name="Export").click()
    expect(page.get_by_label("YAML, for")).to_have_value(re.compile("^stitching: chained$", re.MULTILINE))


def test_render_leads_to_the_first_mistake_and_sends_nothing(page: Page, studio: Studio) -> None:
    take_in(
        page, {**BOARD, "title": "Never sent", "shots": [*BOARD["shots"], {"id": "x", "prompt": "x", "seconds": 9999}]}
    )
    expect(page.locator(".quote .wrong-count")).to_contain_text("1 thing to fix.")
    page.locator(".quote .send").click()
    expect(page.locator(".shot").nth(3).get_by_label("Seconds")).to_be_focused()
    assert films(studio, "Never sent") == []


def test_a_problem_of_how_to_render_it_stands_there(page: Page) -> None:
    take_in(page, BOARD)
    page.get_by_label("Priority").fill("300")
    expect(page.get_by_label("Priority")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Priority").fill("60")
    page.get_by_label("Wanted by").fill("2020-01-01T10:00")
    expect(page.locator(".field", has_text="Wanted by").locator(".problems")).to_contain_text("future")
    page.get_by_label("Wanted by").fill("2090-01-01T10:00")
    page.get_by_label("Budget").fill("0.0001")
    expect(page.get_by_text("the film would pause there")).to_be_visible()
    expect(page.get_by_text("In time")).to_be_visible()


def test_shots_are_moved_by_keys_and_the_focus_goes_with_them(page: Page) -> None:
    take_in(page, BOARD)
    grip = page.get_by_role("button", name="Move shot 3, end: arrow keys, or drag")
    grip.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#announcer")).to_have_text("Shot 3 is shot 2 now.")
    expect_ids(page, "open", "end", "play")
    expect(page.get_by_role("button", name="Move shot 2, end: arrow keys, or drag")).to_be_focused()
    page.keyboard.press("Home")
    expect_ids(page, "end", "open", "play")
    page.keyboard.press("End")
    expect_ids(page, "open", "play", "end")
    page.keyboard.press("ArrowRight")
    expect_ids(page, "open", "play", "end")


def test_every_edit_of_the_strip_can_be_done_without_a_mouse(page: Page) -> None:
    take_in(page, BOARD)
    page.get_by_role("button", name="Add a shot after shot 1, open").press("Enter")
    expect(page.get_by_label("Prompt of shot 2,")).to_be_focused()
    page.keyboard.type("a green star falling, night")
    page.get_by_role("button", name="Duplicate shot 1, open").press("Enter")
    expect_ids(page, "open", "open-2", "shot-3", "play", "end")
    page.get_by_role("button", name="Move shot 1, open, later").press("Enter")
    expect_ids(page, "open-2", "open", "shot-3", "play", "end")
    expect(page.get_by_role("button", name="Move shot 2, open, later")).to_be_focused()
    page.get_by_role("button", name="Delete shot 3, shot-3").press("Enter")
    expect(page.get_by_role("status").get_by_text("Shot 3 deleted.")).to_be_visible()
    page.keyboard.press("Control+z")
    expect_ids(page, "open-2", "open", "shot-3", "play", "end")
    page.keyboard.press("Control+Shift+z")
    expect_ids(page, "open-2", "open", "play", "end")


def test_a_deleted_shot_comes_back(page: Page) -> None:
    take_in(page, BOARD)
    page.get_by_role("button", name="Delete shot 1, open").click()
    expect_ids(page, "play", "end")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect_ids(page, "open", "play", "end")
    expect(page.locator(".shot").nth(1).get_by_label("Transition")).to_have_value("continue")


def test_a_card_is_dragged_to_another_place(page: Page) -> None:
    take_in(page, BOARD)
    start = page.get_by_role("button", name="Move shot 1, open: arrow keys, or drag").bounding_box()
    goal = page.locator(".shot").nth(1).bounding_box()
    assert start
    assert goal

    def drag() -> None:
        page.mouse.move(start["x"] + 10, start["y"] + 10)
        page.mouse.down()
        page.mouse.move(start["x"] + 40, start["y"] + 10, steps=3)
        page.mouse.move(goal["x"] + goal["width"] - 30, start["y"] + 20, steps=5)
        expect(page.locator(".shot.dragged")).to_have_count(1)

    drag()
    page.keyboard.press("Escape")
    page.mouse.up()
    expect_ids(page, "open", "play", "end")
    drag()
    page.mouse.up()
    expect_ids(page, "play", "open", "end")
    expect(page.locator(".shot.dragged, .shot.drop-before, .shot.drop-after")).to_have_count(0)


def test_seed_goes_where_a_shot_continues(page: Page) -> None:
    take_in(page, {**BOARD, "shots": [BOARD["shots"][0], {**BOARD["shots"][2], "seed": 5}]})
    card = page.locator(".shot").nth(1)
    card.get_by_text("Seed, negative prompt").click()
    expect(card.get_by_label("Seed")).to_have_value("5")
    card.get_by_label("Transition").focus()
    card.get_by_label("Transition").select_option("continue")
    expect(card.get_by_label("Seed")).to_have_count(0)
    expect(card.get_by_label("Transition")).to_be_focused()
    expect(figure(page, "Length")).to_have_text("2 s")


def test_a_character_is_inserted_where_the_caret_is(page: Page) -> None:
    take_in(page, BOARD)
    prompt(page, 3).fill("see roll")
    prompt(page, 3).evaluate("(area) => area.setSelectionRange(4, 4)")
    page.locator(".shot").nth(2).get_by_role("button", name="{hero}").click()
    expect(prompt(page, 3)).to_have_value("see {hero}roll")
    expect(prompt(page, 3)).to_be_focused()
    page.keyboard.type(" ")
    expect(prompt(page, 3)).to_have_value("see {hero} roll")


def test_characters_are_described_in_a_table(page: Page) -> None:
    prompt(page, 1).fill("{hero} bouncing, day")
    expect(page.get_by_text("the storyboard describes no characters")).to_be_visible()
    page.get_by_role("button", name="Add a character").click()
    expect(page.get_by_label("Name of character 1")).to_be_focused()
    page.keyboard.type("hero")
    page.get_by_label("Description of character 1").fill("a red ball")
    expect(figure(page, "Length")).to_have_text("4 s")
    page.get_by_role("button", name="Add a character").click()
    page.get_by_label("Name of character 2").fill("hero")
    expect(page.get_by_text("Another character has this name.")).to_have_count(2)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Name of character 1")).to_be_focused()


def test_hostile_text_is_text_everywhere(page: Page, studio: Studio) -> None:
    board = {**BOARD, "title": HOSTILE, "characters": {"hero": HOSTILE.replace("{{ }}", "")}}
    board["shots"] = [{"id": "a", "prompt": HOSTILE, "seconds": 1}]
    take_in(page, board)
    expect(prompt(page, 1)).to_have_value(HOSTILE)
    expect(figure(page, "Length")).to_have_text("1 s")
    page.get_by_role("button", name="Export").click()
    text = page.get_by_label("YAML, for").input_value()
    assert parse_storyboard(text.encode()).shots[0].prompt == HOSTILE
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    take_in(page, text)
    expect(prompt(page, 1)).to_have_value(HOSTILE)
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/#/jobs/*")
    job = films(studio, HOSTILE)[0]
    go(page, f"#/jobs/{job['id']}/revise")
    prompt(page, 1).fill(HOSTILE + HOSTILE)
    expect(page.locator(".changes ins")).to_contain_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#studio main img").count() == 0


def test_a_file_that_is_no_yaml_says_its_line_and_changes_nothing(page: Page, tmp_path: Path) -> None:
    take_in(page, BOARD)
    (tmp_path / "bad.yaml").write_text("version: 1\nshots:\n  - {id: a, prompt: {hero} moves, seconds: 2}\n")
    page.get_by_role("button", name="Import").click()
    page.get_by_label("File", exact=True).set_input_files(tmp_path / "bad.yaml")
    expect(page.get_by_role("alert")).to_contain_text("Line 3: text that begins with a brace needs quotes.")
    expect(page.get_by_role("alert")).to_contain_text("{hero} moves")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect_ids(page, "open", "play", "end")


def test_an_exported_file_comes_in_again_and_can_be_taken_back(page: Page, tmp_path: Path) -> None:
    take_in(page, BOARD)
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "two-takes.yaml"
    path = tmp_path / "film.yaml"
    download.value.save_as(path)
    assert parse_storyboard(path.read_bytes()).title == "Two takes"
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Start over").click()
    expect_ids(page, "shot-1")
    page.get_by_role("button", name="Import").click()
    page.get_by_label("File", exact=True).set_input_files(path)
    expect_ids(page, "open", "play", "end")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect_ids(page, "shot-1")


def test_a_storyboard_is_pasted_or_dropped_on_the_page(page: Page) -> None:
    text = json.dumps(BOARD)
    arrive = """([kind, text]) => {
      const data = new DataTransfer();
      if (kind === "paste") data.setData("text/plain", text);
      else data.items.add(new File([text], "film.yaml"));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    page.evaluate(arrive, ["paste", text])
    expect(page.get_by_label("Title")).to_have_value("Two takes")
    page.get_by_role("button", name="Start over").click()
    page.evaluate(arrive, ["drop", text])
    expect(page.get_by_label("Title")).to_have_value("Two takes")
    page.evaluate(arrive, ["drop", "just words"])
    expect(page.get_by_role("alert")).to_contain_text("A storyboard is a mapping")


def test_a_problem_goes_with_its_card(page: Page) -> None:
    take_in(page, {**BOARD, "shots": [*BOARD["shots"], {"id": "x", "prompt": "{heroo}", "seconds": 2}]})
    expect(page.locator(".shot").nth(3).get_by_role("button", name="Use hero")).to_be_visible()
    page.route("**/v1/check", lambda route: None)  # no answer comes any more
    page.get_by_role("button", name="Move shot 4, x: arrow keys, or drag").press("Home")
    page.locator(".shot").nth(0).get_by_role("button", name="Use hero").click()
    expect(prompt(page, 1)).to_have_value("{hero}")


def test_a_draft_stays_in_the_browser_until_it_is_started_over(page: Page) -> None:
    take_in(page, BOARD)
    page.get_by_label("Title").fill("Kept")
    page.reload()
    expect(page.get_by_label("Title")).to_have_value("Kept")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("Title")).to_have_value("")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Title")).to_have_value("Kept")
    page.get_by_role("button", name="Start over").click()
    page.reload()
    expect(page.get_by_label("Title")).to_have_value("")


def another_tab(page: Page, studio: Studio) -> Page:
    tab = page.context.new_page()
    tab.goto(f"{studio.address}/#/")
    return tab


def test_two_tabs_have_two_drafts(page: Page, studio: Studio) -> None:
    page.get_by_label("Title").fill("First")
    second = another_tab(page, studio)
    expect(second.get_by_label("Title")).to_have_value("")
    second.get_by_label("Title").fill("Second")
    with page.expect_popup() as opened:  # a copy of the tab, with a copy of what its session keeps
        page.evaluate("open(location.href)")
    copy = opened.value
    expect(copy.get_by_label("Title")).to_have_value("")
    copy.get_by_label("Title").fill("Copy")
    for tab in (page, second, copy):
        tab.reload()
    for tab, title in ((page, "First"), (second, "Second"), (copy, "Copy")):
        expect(tab.get_by_label("Title")).to_have_value(title)


def test_the_draft_of_a_closed_tab_is_continued_in_another(
    page: Page, studio: Studio, axe: Callable[..., None]
) -> None:
    closed = another_tab(page, studio)
    take_in(closed, {**BOARD, "title": "Left behind"})
    closed.close(run_before_unload=True)
    page.reload()
    drafts = page.get_by_role("region", name="Unfinished in this browser")
    expect(drafts).to_contain_text("3 shots")
    axe(page)
    drafts.get_by_role("button", name="Discard Left behind").click()
    drafts.get_by_role("button", name="Undo").click()
    drafts.get_by_role("button", name="Continue Left behind").click()
    expect(page.get_by_label("Title")).to_have_value("Left behind")
    expect(drafts).to_have_count(0)
    page.reload()
    expect(page.get_by_label("Title")).to_have_value("Left behind")
    third = another_tab(page, studio)
    third.get_by_role("button", name="Discard Left behind").click()
    third.reload()
    expect(third.get_by_label("Title")).to_have_value("")
    expect(third.get_by_role("region", name="Unfinished in this browser")).to_have_count(0)


def test_an_example_is_taken_and_priced(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^A day of a red ball")).click()
    expect(figure(page, "Length")).to_have_text("21 s")
    expect(page.get_by_role("heading", name="6 shots")).to_be_visible()
    expect(page.locator(".take-line .cost").first).to_contain_text("$")


def test_a_film_is_sent_by_control_and_enter(page: Page, studio: Studio) -> None:
    take_in(page, {**BOARD, "title": "By keys"})
    page.get_by_label("Priority").fill("70")
    prompt(page, 1).press("Control+Enter")
    page.wait_for_url("**/#/jobs/*")
    (job,) = films(studio, "By keys")
    assert page.url.endswith(f"#/jobs/{job['id']}")
    assert job["priority"] == 70
    go(page, "#/")
    expect(page.get_by_label("Title")).to_have_value("")


def test_a_lost_answer_and_a_second_click_make_one_film(page: Page, studio: Studio, trouble: Trouble) -> None:
    trouble.expect("net::ERR_FAILED")
    keys: list[str | None] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) == 1:
            assert route.fetch().status == 201
            route.abort()
        else:
            route.fallback()

    page.route(lambda url: url.endswith("/v1/jobs"), lose)
    take_in(page, {**BOARD, "title": "Once"})
    expect(figure(page, "Length")).to_have_text("3 s")
    page.locator(".quote .send").dblclick()
    expect(page.locator(".quote .send-state")).to_contain_text("made once")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/#/jobs/*")
    assert len(films(studio, "Once")) == 1
    assert len(set(keys)) == 1
    assert keys[0]


def test_an_answer_that_never_came_can_be_asked_for_after_a_reload(
    page: Page, studio: Studio, trouble: Trouble
) -> None:
    trouble.expect("net::ERR_FAILED")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    where = re.compile("/v1/jobs$")
    page.route(where, lose)
    take_in(page, {**BOARD, "title": "Late"})
    expect(figure(page, "Length")).to_have_text("3 s")
    page.locator(".quote .send").click()
    expect(page.locator(".quote .send-state")).to_contain_text("made once")
    page.unroute(where)
    page.reload()
    expect(page.get_by_text("“Late” was sent from here")).to_be_visible()
    page.get_by_role("button", name="Ask again").click()
    page.wait_for_url("**/#/jobs/*")
    assert len(films(studio, "Late")) == 1


def test_a_new_version_renders_only_what_was_changed(page: Page, studio: Studio) -> None:
    job = studio.finished(studio.submit({**BOARD, "title": "Refined"}, priority=40)["id"])
    assert job["status"] == "completed"
    go(page, f"#/jobs/{job['id']}/revise")
    expect(page.get_by_role("heading", name="Refine “Refined”: version 2")).to_be_visible()
    expect(page.locator(".take-line .fate")).to_have_text(["kept", "kept"])
    expect(page.get_by_text("Nothing has changed yet, so")).to_be_visible()
    page.locator(".quote .send").press("Enter")
    prompt(page, 3).fill("a green star falling, night")
    expect(page.locator(".take-line .fate")).to_have_text(["kept", "rendered anew"])
    expect(page.get_by_text("1 of 2 takes are rendered anew")).to_be_visible()
    expect(page.locator(".changes code")).to_have_text(["end.prompt"])
    expect(page.get_by_label("Priority")).to_have_value("40")
    page.locator(".quote").get_by_role("button", name="Render version 2").click()
    page.wait_for_url(lambda url: "/revise" not in url)
    (second,) = [one for one in films(studio, "Refined") if one["version"] == 2]
    assert page.url.endswith(second["id"])
    assert second["parent"] == job["id"]
    assert second["priority"] == 40
    assert [take["cached"] for take in studio.finished(second["id"])["takes"]] == [True, False]


def test_a_film_that_is_not_there_says_so(page: Page, trouble: Trouble) -> None:
    trouble.expect("status of 404")
    go(page, "#/jobs/job_nothere/revise")
    expect(page.get_by_role("alert")).to_contain_text("no such film")


@pytest.mark.parametrize("size", [(1280, 900), PHONE])
def test_axe_finds_nothing(visitor: Visitor, studio: Studio, axe: Callable[..., None], size: tuple[int, int]) -> None:
    page = visitor.visit(studio.address, size=size)
    axe(page)
    take_in(page, BOARD)
    expect(figure(page, "Length")).to_have_text("3 s")
    page.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true })")
    axe(page)
    wrong = {
        **BOARD,
        "odd": 1,
        "seed": -1,
        "shots": [{"id": "a", "prompt": "{x}", "seconds": 0, "transition": "cutt", "y": 1}],
    }
    take_in(page, wrong)
    expect(page.locator(".wrong-count:visible")).to_contain_text("things to fix")
    axe(page)
    for name in ("Export", "Examples"):
        page.get_by_role("button", name=name).click()
        axe(page)
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
    take_in(page, "nonsense")
    axe(page)


@pytest.mark.parametrize("size", [(1280, 900), (800, 900), PHONE, (320, 700)])
def test_nothing_is_wider_than_the_window(visitor: Visitor, studio: Studio, size: tuple[int, int]) -> None:
    page = visitor.visit(studio.address, size=size)
    long = {"id": "x" * 64, "prompt": "W" * 900, "seconds": 2.1, "transition": "cut"}
    shots = [
        long,
        *({"id": f"s{n}", "prompt": "b" * n, "seconds": 1, "transition": {"dissolve": 0.1}} for n in range(1, 40)),
    ]
    take_in(page, {**BOARD, "title": "T" * 200, "characters": {"n" * 40: "d" * 400, "a": "b"}, "shots": shots})
    expect(figure(page, "Frames")).to_have_text(str(34 + 39 * 16))
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if size[0] < 500:
        small = """[...document.querySelectorAll(".shot button, .quote-bar button")].filter((one) => {
          const box = one.getBoundingClientRect();
          return box.width && (box.width < 38 || box.height < 38);
        }).map((one) => one.outerHTML)"""
        assert page.evaluate(small) == []
