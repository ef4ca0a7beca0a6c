"""The view of one film in a real browser: its timeline to scale, what it shows, steering, lost connections."""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from serving.api.links import LINK_LIFE_S
from serving.planning.compile import compile_storyboard
from serving.storyboard import parse_storyboard
from sharding.capabilities import Capabilities
from sharding.spans import Grid
from tests.serving.api.api_double import ApiDouble, running
from tests.studio.browsing import PHONE, Trouble, Visitor, go
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

POCKET = Capabilities(
    grid=Grid(4),
    window=8,
    latent_channels=16,
    pixels_per_cell=8,
    size_multiple=16,
    width=96,
    height=64,
    fps=16,
    guidance=(3.0,),
)

RULER, LANE = 24, 76
"""Pixels of the timeline's canvas above its first take, and the height of the take: web/views/render/paint.js."""

PIXEL_COLUMN = """(canvas) => {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  return Array.from({ length: canvas.height }, (_, y) => pen.getImageData(20, y, 1, 1).data.join());
}"""
"""The colours from top to bottom through a take, clear of the lines between its latents."""

FARM_MS = 120_000
"""Milliseconds that a farm may take to begin its first film: it loads libraries and the model."""


COUNT_SHIFTS = """() => { // how much of the page moves by itself until the film is there, as browsers measure it
  window.shifted = 0;
  const isOver = () => document.querySelector(".head-state .completed") !== null;
  const add = (entry) => { if (!entry.hadRecentInput && !isOver()) window.shifted += entry.value; };
  new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type: "layout-shift" });
}"""


def make_board(*, seed: int = 0, shots: Sequence[dict[str, Any]] = (), **keys: Any) -> dict[str, Any]:
    two = [{"id": name, "prompt": f"a {name} ball rolls", "seconds": 1.0} for name in ("red", "blue")]
    return {"version": 1, "title": "Two balls", "quality": "draft", "seed": seed, "shots": list(shots) or two, **keys}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    """A farm in which nothing renders by itself, so that what a page shows is what the test wrote."""
    with running(tmp_path_factory.mktemp("api")) as double:
        yield double


@pytest.fixture
def page(visitor: Visitor, api: ApiDouble) -> Page:
    """A page of the farm that shows nothing yet."""
    return visitor.visit(api.url, "#/nothing")


def submit(api: ApiDouble, board: dict[str, Any], **options: Any) -> dict[str, Any]:
    answer = api.http.post("/v1/jobs", json={"storyboard": board, **options})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def find(api: ApiDouble, job: dict[str, Any]) -> dict[str, Any]:
    """The job as it is now."""
    found: dict[str, Any] = api.http.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    return found


def watch(page: Page, job: dict[str, Any]) -> None:
    go(page, f"#/jobs/{job['id']}")
    expect(page.get_by_role("heading", name=job["title"], exact=True)).to_be_visible()


def call(page: Page, module: str, name: str, *arguments: Any) -> Any:
    """What a function of a module of the page answers."""
    script = "async ([module, name, args]) => (await import(`/studio/views/render/${module}.js`))[name](...args)"
    return page.evaluate(script, [module, name, list(arguments)])


# ---------------------------------------------------------------------------------------------------- geometry


def random_shots(rng: random.Random) -> list[dict[str, Any]]:
    transitions: list[Any] = ["cut", "continue", {"dissolve": 0.5}, {"dissolve": 0.31}]
    return [
        {
            "id": f"s{index}",
            "prompt": "x",
            "seconds": rng.choice([1.0, 1.03, 2.5, 3.97]),
            "transition": rng.choice(transitions) if index else "cut",
        }
        for index in range(rng.randint(1, 9))
    ]


def test_shots_and_takes_lie_where_the_compiler_puts_them(page: Page) -> None:
    rng = random.Random(4)
    for _ in range(25):
        board = make_board(shots=random_shots(rng))
        plan = compile_storyboard(
            parse_storyboard(json.dumps(board).encode(), form="json"), model_name="pocket", capabilities=POCKET
        )
        found = call(page, "layout", "layOut", board, 16)
        shots = [shot for take in plan.takes for shot in take.shots]
        assert [(s["start_s"], s["stop_s"]) for s in found["shots"]] == [
            (s.film.start / 16, s.film.stop / 16) for s in shots
        ]
        assert [(t["key"], t["from_s"], t["to_s"]) for t in found["takes"]] == [
            (t.key, (t.shots[0].film.start - t.head) / 16, (t.shots[-1].film.stop + t.tail) / 16) for t in plan.takes
        ]
        for lane in range(found["lanes"]):
            inside = [take for take in found["takes"] if take["lane"] == lane]
            assert all(one["to_s"] <= other["from_s"] for one, other in pairwise(inside)), "takes overlap in a lane"


def test_columns_cover_a_take_and_show_the_least_step_of_latents_that_share_a_pixel(page: Page) -> None:
    rng = random.Random(9)
    cases = []
    for _ in range(60):
        runs = [[rng.randint(0, 40), rng.randint(1, 60)] for _ in range(rng.randint(1, 40))]
        latents = sum(length for _, length in runs)
        left, each = rng.uniform(-200, 50), rng.choice([0.2, 0.37, 1.0, 3.3, 17.0])
        cases.append((runs, {"left": left, "each": each, "clipLeft": 0, "clipRight": 600}, latents))
    for runs, place, latents in cases:
        columns = call(page, "heat_map", "toColumns", runs, place)
        begin = max(0, round_half_up(place["left"]))
        end = min(600, round_half_up(place["left"] + latents * place["each"]))
        assert sum(column["width"] for column in columns) == max(0, end - begin)
        assert all(one["x"] + one["width"] == other["x"] for one, other in pairwise(columns))
        steps = [step for step, length in runs for _ in range(length)]
        for column in columns:
            for x in range(column["x"], column["x"] + column["width"]):
                assert column["step"] in shown_at(x, steps, place), (x, place)


def round_half_up(value: float) -> int:
    """As JavaScript rounds."""
    return int((value + 0.5) // 1)


def shown_at(x: int, steps: list[int], place: dict[str, float]) -> set[int]:
    """Steps that a pixel may show: of a latent it touches where latents are wide, else the least of those in it, give
    or take one at its edges."""
    first = (x - place["left"]) / place["each"]
    last = (x + 1 - place["left"]) / place["each"]
    if place["each"] >= 1:
        return {steps[n] for n in range(max(0, int(first - 0.6)), min(len(steps), int(last + 1.6)))}
    inner = steps[max(0, int(first)) : max(1, int(last + 0.999999))]
    return {
        min(inner),
        min(steps[max(0, int(first)) : int(last) + 2]),
        min(steps[max(0, int(first) + 1) : int(last) + 1] or inner),
    }


def test_counts_alone_are_shown_with_the_furthest_latents_first_and_a_done_take_is_full(page: Page) -> None:
    take = {"key": "a", "latents": 6, "step_counts": [1, 0, 3, 2], "status": "rendering", "retries": 2}
    found = call(page, "heat_map", "fromCounts", take, 3)
    assert (found["reached"], found["exact"], found["retries"]) == ([[3, 2], [2, 3], [0, 1]], False, 2)
    assert call(page, "heat_map", "sumUp", found) == {
        "finished": 2, "latents": 6, "steps": 3, "least": 0, "most": 3, "share": pytest.approx(12 / 18), "inFlight": 0
    }  # fmt: skip
    assert call(page, "heat_map", "fromCounts", {**take, "step_counts": []}, 3)["reached"] == [[0, 6]]


def test_a_chunk_is_boxed_in_the_row_of_its_step_from_the_bottom_and_never_outside_its_take(page: Page) -> None:
    place = {"left": 10, "each": 5, "top": 20, "height": 80, "steps": 8}
    box = call(page, "heat_map", "chunkBox", {"start": 2, "stop": 6, "step": 0}, place)
    assert box == {"x": 20, "y": 90, "width": 20, "height": 10}
    thin = {**place, "steps": 80}
    for step in (0, 79):
        box = call(page, "heat_map", "chunkBox", {"start": 0, "stop": 1, "step": step}, thin)
        assert box["y"] >= 20
        assert box["y"] + box["height"] <= 100


def test_names_of_shots_never_overlap(page: Page) -> None:
    shots = [{"id": f"shot-{n:02d}", "start_s": float(n), "stop_s": n + 1.0} for n in range(60)]
    script = (
        """async ([shots, scale]) => [...(await import('/studio/views/render/layout.js')).placeNames(shots, scale)]"""
    )
    for scale in (3, 20, 90):
        named = page.evaluate(script, [shots, scale])
        assert len(named) == 60 if scale == 90 else 1 <= len(named) < 60
        assert all(width >= 78 for _, width in named[:-1])


# ---------------------------------------------------------------------------------------------------- what is shown


def test_takes_are_told_in_words_reached_by_arrow_keys_and_listed_in_a_table(api: ApiDouble, page: Page) -> None:
    watch(page, submit(api, make_board(seed=1)))
    takes = page.get_by_role("group", name="Takes of the film")
    first, second = takes.get_by_role("button").all()
    said = r"Take red \(red\): \w+, 0 of 5 latents finished · steps 0 to 0 of 8 reached, 0% of the work done\."
    expect(first).to_have_accessible_name(re.compile(said))
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(second).to_be_focused()
    expect(second).to_have_attribute("aria-pressed", "true")
    page.get_by_text("Takes as a table").click()
    expect(page.get_by_role("region", name="Takes as a table").get_by_role("rowheader")).to_have_text(["red", "blue"])


def half_done(api: ApiDouble, job: dict[str, Any]) -> None:
    """The Director tells of a take whose head is finished, with two chunks at gangs, one of them a second time."""
    at = time.time()
    flights = [
        {"start": 0, "stop": 4, "step": 6, "gang": "default-a", "since": at - 2, "try": 1},
        {"start": 3, "stop": 5, "step": 2, "gang": "default-b", "since": at - 90, "try": 2},
    ]
    red = {"key": "red", "latents": 5, "steps": 8, "reached": [[8, 2], [6, 2], [0, 1]], "exact": True}
    api.live.timelines[job["id"]] = [{**red, "in_flight": flights, "retries": 1}]
    api.act(job["id"], "start")


def test_chunks_in_flight_are_told_with_their_gang_and_age_where_the_pointer_is_and_in_words(
    api: ApiDouble, page: Page
) -> None:
    job = submit(api, make_board(seed=2))
    half_done(api, job)
    watch(page, job)
    details = page.locator("#take-details")
    expect(details).to_contain_text("2 of 5 latents finished · steps 0 to 8 of 8 reached, 70% of the work done")
    expect(details.get_by_role("listitem")).to_have_count(2)
    expect(details).to_contain_text(re.compile(r"Latents 1 to 4, step 7 of 8: gang default-a, for \d"))
    expect(details).to_contain_text(re.compile(r"gang default-b, for 9\d s · try 2"))
    page.get_by_role("group", name="Takes of the film").get_by_role("button").first.hover(position={"x": 5, "y": 40})
    expect(page.locator(".reel-tip")).to_contain_text("Take red, latent 1 of 5: step 8 of 8")
    expect(page.locator(".reel-tip")).to_contain_text("gang default-a")


def test_the_heat_map_has_the_pixels_of_the_screen_and_the_colours_of_the_theme(api: ApiDouble, page: Page) -> None:
    job = submit(api, make_board(seed=3))
    half_done(api, job)
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", metrics)
    watch(page, job)
    page.wait_for_function(
        "() => { const c = document.querySelector('.reel canvas'); return c.width === 2 * c.clientWidth }"
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            """() => { // a finished latent from bottom to top, one that has not begun, from pixels of the first take
              const canvas = document.querySelector('.reel canvas');
              const copy = document.createElement('canvas');
              [copy.width, copy.height] = [canvas.width, canvas.height];
              const pen = copy.getContext('2d', { willReadFrequently: true });
              pen.drawImage(canvas, 0, 0);
              const tone = (name) => getComputedStyle([...document.querySelectorAll('.reel-frame > span[hidden] i')]
                .find((i) => i.style.color === `var(--${name})`)).color.match(/\\d+/g).slice(0, 3).map(Number);
              const at = (x, y) => pen.getImageData(x, y, 1, 1).data;
              const near = (x, y, want) => want.every((value, i) => Math.abs(value - at(x, y)[i]) < 14);
              const end = Math.round(canvas.width / 2);
              return near(40, (24 + 74) * 2, tone('heat-1')) && near(40, 24 * 2 + 4, tone('done')) &&
                near(end - 40, (24 + 8) * 2, tone('heat-0'));
            }"""
        )


def test_the_line_between_a_draft_and_its_refinement_is_drawn_and_explained(api: ApiDouble, page: Page) -> None:
    job = submit(api, make_board(seed=31))
    red = {"key": "red", "latents": 5, "steps": 8, "reached": [[8, 5]], "exact": True, "in_flight": [], "retries": 0}
    api.act(job["id"], "start")
    api.live.timelines[job["id"]] = [red]
    watch(page, job)
    expect(page.get_by_text("steps done, the first at the bottom")).to_be_visible()
    expect(page.get_by_text("draft below the line")).to_have_count(0)
    page.wait_for_function(
        f"() => new Set(({PIXEL_COLUMN})(document.querySelector('.reel canvas'))).size > 20"
    )  # painted
    plain = page.locator(".reel canvas").evaluate(PIXEL_COLUMN)
    api.live.timelines[job["id"]] = [{**red, "draft_steps": 2}]
    expect(page.get_by_text("draft below the line, its refinement above")).to_be_visible()
    page.wait_for_function(
        f"(plain) => ({PIXEL_COLUMN})(document.querySelector('.reel canvas')).join() !== plain", arg=",".join(plain)
    )
    drawn = page.locator(".reel canvas").evaluate(PIXEL_COLUMN)
    changed = [y for y, (before, after) in enumerate(zip(plain, drawn, strict=True)) if before != after]
    assert changed == list(range(changed[0], changed[-1] + 1)), "one line and nothing else"
    top, height = RULER, LANE
    assert abs(changed[0] - (top + height * (1 - 2 / 8))) <= 2, "above the second of eight steps"


def test_what_a_gang_is_doing_is_seen_while_a_real_farm_renders(studio: Studio, visitor: Visitor) -> None:
    shots = [{"id": "ball", "prompt": "a red ball rolls", "seconds": 6.0}]
    job = studio.submit(make_board(seed=16, shots=shots, quality="standard"))
    page = visitor.visit(studio.address, f"#/jobs/{job['id']}")
    expect(page.get_by_role("heading", name="Two balls", exact=True)).to_be_visible()
    page.evaluate(COUNT_SHIFTS)
    details = page.locator("#take-details")
    expect(details).to_contain_text(re.compile(r"Latents \d+ to \d+, step \d+ of 24: gang "), timeout=FARM_MS)
    expect(page.get_by_role("img", name="Shot ball as it is now")).to_be_visible()
    studio.finished(job["id"])
    expect(details).to_contain_text("25 of 25 latents finished")
    expect(page.get_by_label("Film: Two balls")).to_have_attribute("controls", "")
    page.wait_for_function("() => document.querySelector('video').duration === 6")
    expect(page.get_by_role("region", name="Film", exact=True)).to_contain_text("seams between chunks")
    assert page.evaluate("() => window.shifted") < 0.05, "what is looked at jumps around"


def test_hostile_words_are_shown_as_words(api: ApiDouble, page: Page) -> None:
    bad = "<img src=x onerror=alert(1)><script>window.hacked=1</script>"
    shots = [{"id": "constructor", "prompt": f"{bad} ‮ {'w' * 900}", "seconds": 1.0}]
    job = submit(api, make_board(seed=4, title=bad, shots=shots), tags={"a": bad})
    watch(page, job)
    expect(page.locator(".shot-prompt")).to_contain_text(bad)
    assert page.evaluate(
        "() => window.hacked === undefined && !document.querySelector('#content script, #content img[src=x]')"
    )
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "it pushes the page sideways"


@pytest.mark.parametrize("scale", ["sixty takes", "ten minutes"])
def test_long_films_scroll_within_the_timeline_and_draw_in_a_frame(api: ApiDouble, page: Page, scale: str) -> None:
    shots = [{"id": f"s{n}", "prompt": "a red ball", "seconds": 1.5} for n in range(60)]
    if scale == "ten minutes":
        shots = [{"id": "s0", "prompt": "a red ball", "seconds": 600.0}]
    watch(page, submit(api, make_board(seed=5, shots=shots, quality="final")))
    for _ in range(6):
        page.get_by_role("button", name="Larger").click()
    spent_ms = page.evaluate(
        """async () => { // how long the page is busy for each of 30 frames of scrolling
          const reel = document.querySelector('.reel'), frame = () => new Promise(requestAnimationFrame);
          const canvas = document.querySelector('.reel canvas'), spent = [];
          for (let n = 0; n < 30; n += 1) {
            reel.scrollLeft = n * 40;
            await frame();
            const began = performance.now();
            await frame();
            spent.push(performance.now() - began);
          }
          return spent.sort((a, b) => a - b)[15];
        }"""
    )
    assert page.evaluate("() => document.querySelector('.reel').scrollWidth > innerWidth")
    assert page.evaluate("() => document.querySelector('.reel canvas').width <= 2 * innerWidth")
    assert spent_ms < 100


def test_a_film_that_is_done_can_be_saved_compared_and_refined(
    api: ApiDouble, page: Page, axe: Callable[..., None]
) -> None:
    board = make_board(seed=6)
    first = submit(api, board)
    api.complete(first["id"])
    board["shots"][1]["prompt"] = "a blue ball falls"
    board["shots"].append({"id": "green", "prompt": "a green box", "seconds": 1.5, "transition": {"dissolve": 0.5}})
    second = api.http.post(f"/v1/jobs/{first['id']}/revise", json={"storyboard": board}).json()
    api.complete(second["id"])
    watch(page, second)
    film = page.get_by_role("region", name="Film", exact=True)
    expect(film.get_by_role("link", name="Download film")).to_have_attribute("href", f"/v1/jobs/{second['id']}/film")
    expect(film).to_contain_text(find(api, second)["film"]["sha256"])
    expect(page.get_by_label("Film: Two balls")).to_have_attribute("controls", "")
    versions = page.get_by_role("region", name="Versions", exact=True)
    expect(versions).to_contain_text("shots.blue.prompt was “a blue ball rolls” is now “a blue ball falls”")
    expect(versions).to_contain_text("shots.green was nothing is now “a green box”, 1.5 s")
    expect(versions).to_contain_text("1 take changed: blue · 1 take added: green · 1 take the same: red")
    expect(page.get_by_role("link", name="Refine")).to_have_attribute("href", f"#/jobs/{second['id']}/revise")
    axe(page)
    versions.get_by_role("link", name="Version 1").click()
    expect(versions.get_by_text("Version 2").first).to_be_visible()
    expect(page).to_have_url(f"{api.url}/#/jobs/{first['id']}")


def test_a_draft_is_made_final_after_its_price_was_shown(api: ApiDouble, page: Page) -> None:
    job = submit(api, make_board(seed=7))
    watch(page, job)
    page.get_by_role("button", name="Render at final quality").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 of 2 takes to render")
    assert len(api.http.get(f"/v1/jobs/{job['id']}/versions").json()["data"]) == 1, "a price must make no version"
    dialog.get_by_role("button", name="Render it").click()
    expect(page.get_by_text("Version 2", exact=True).first).to_be_visible()
    expect(page.get_by_role("button", name="Render at final quality")).to_have_count(0)


# ---------------------------------------------------------------------------------------------------- steering


def test_a_film_is_paused_resumed_cancelled_and_taken_up_again(api: ApiDouble, page: Page) -> None:
    job = submit(api, make_board(seed=8))
    watch(page, job)
    steering = page.get_by_role("group", name="What to do with this film")
    steering.get_by_role("button", name="Pause").click()
    expect(steering.get_by_role("button", name="Resume")).to_be_focused()
    assert find(api, job)["status"] == "paused"
    steering.get_by_role("button", name="Resume").click()
    steering.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    expect(steering.get_by_role("button", name="Cancel")).to_be_focused()
    assert find(api, job)["status"] in ("queued", "in_progress")
    steering.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the film").click()
    expect(page.locator(".head-state")).to_contain_text("Cancelled")
    expect(page.locator(".connection")).to_have_text("Ended")
    steering.get_by_role("button", name="Retry").click()
    expect(page.locator(".connection")).to_have_text("Live")
    api.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 77})
    expect(page.get_by_text("77 of 100")).to_be_visible()
    expect_all_changes(api, page, job)


def test_nothing_is_shown_as_done_before_the_farm_answered(api: ApiDouble, page: Page) -> None:
    job = submit(api, make_board(seed=9))
    watch(page, job)
    waiting: list[Route] = []
    page.route("**/pause", lambda route: waiting.append(route))
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Raise priority")).to_be_disabled()
    expect(page.locator(".head-state")).not_to_contain_text("Paused")
    waiting[0].continue_()
    expect(page.locator(".head-state")).to_contain_text("Paused")


def test_what_the_farm_refuses_is_said_beside_the_buttons(api: ApiDouble, page: Page, trouble: Trouble) -> None:
    trouble.expect("status of 409")
    job = submit(api, make_board(seed=10))
    watch(page, job)

    def cancel_first(route: Route) -> None:
        api.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        route.continue_()

    page.route("**/pause", cancel_first)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_contain_text("is cancelled and cannot pause")
    expect(page.locator(".head-state")).to_contain_text("Cancelled")


def test_priority_due_time_and_budget_are_changed_and_wrong_ones_explained(
    api: ApiDouble, page: Page, trouble: Trouble
) -> None:
    trouble.expect("status of 422")
    job = submit(api, make_board(seed=11), budget_usd=2.0)
    watch(page, job)
    page.get_by_role("button", name="Raise priority").click()
    expect(page.get_by_text("60 of 100")).to_be_visible()
    expect(page.get_by_role("button", name="Raise priority")).to_be_focused()
    page.get_by_role("button", name="Due time and budget").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Due", exact=True).fill("2020-01-01T10:00")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("must be in the future")).to_be_visible()
    expect(dialog.get_by_label("Due", exact=True)).to_have_attribute("aria-invalid", "true")
    tomorrow = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 86_400))
    dialog.get_by_label("Due", exact=True).fill(tomorrow)
    dialog.get_by_label("Budget in US dollars").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    found = find(api, job)
    assert (found["priority"], found["budget_usd"]) == (60, None)
    assert found["due_at"] == int(time.mktime(time.strptime(tomorrow, "%Y-%m-%dT%H:%M")))


# ---------------------------------------------------------------------------------------------------- connections


def expect_all_changes(api: ApiDouble, page: Page, job: dict[str, Any]) -> None:
    """The page lists every entry of the job's log once, newest first."""
    events = api.services.jobs.events_after(0, job_id=job["id"])
    entries = page.locator("[data-event]")
    expect(entries).to_have_count(len(events))
    shown = [int(str(entry.get_attribute("data-event"))) for entry in entries.all()]
    assert shown == [event.id for event in reversed(events)]


def test_every_change_arrives_once_after_the_connection_was_lost(api: ApiDouble, page: Page, trouble: Trouble) -> None:
    trouble.expect("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED", "ERR_NETWORK_IO_SUSPENDED")
    job = submit(api, make_board(seed=12))
    watch(page, job)
    api.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 51})
    expect(page.get_by_text("51 of 100")).to_be_visible()
    page.context.set_offline(True)
    expect(page.get_by_text("Connection lost; trying again")).to_be_visible()
    expect(page.get_by_text("No connection to the farm.")).to_be_visible()
    expect(page.get_by_text("51 of 100")).to_be_visible()
    for priority in range(52, 60):
        api.http.patch(f"/v1/jobs/{job['id']}", json={"priority": priority}).raise_for_status()
    page.context.set_offline(False)
    expect(page.get_by_text("59 of 100")).to_be_visible()
    expect(page.get_by_text("No connection to the farm.")).to_have_count(0)
    expect_all_changes(api, page, job)


def test_a_film_that_is_not_there_is_said_to_be_missing(page: Page, trouble: Trouble) -> None:
    trouble.expect("status of 404")
    go(page, "#/jobs/job_of_nobody")
    expect(page.get_by_role("alert")).to_contain_text("There is no such film, or it is not yours.")


def test_a_film_behind_a_key_streams_with_its_pictures_and_no_key_in_any_address(
    locked_studio: Studio, visitor: Visitor
) -> None:
    visitor.trouble.expect("status of 401")
    job = locked_studio.finished(locked_studio.submit(make_board(seed=13))["id"])
    page = visitor.visit(locked_studio.address, "#/nothing")
    asked: list[Request] = []
    page.on("request", lambda one: asked.append(one))
    page.get_by_label("API key").fill(locked_studio.key)
    page.get_by_role("button", name="Use this key").click()
    watch(page, job)
    video = page.get_by_label("Film: Two balls")
    expect(video).to_have_attribute(
        "src", re.compile(rf"^/v1/jobs/{job['id']}/film\?expires=\d+&key=key_\w+&signature=")
    )
    page.wait_for_function("() => document.querySelector('video').duration === 2")
    picture = page.get_by_role("img", name="Shot red as it is now")
    expect(picture).to_have_attribute("src", re.compile(r"/preview\?expires="))
    assert picture.evaluate("image => image.naturalWidth") > 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Download film").click()
    assert hashlib.sha256(download.value.path().read_bytes()).hexdigest() == job["film"]["sha256"]
    assert download.value.suggested_filename == "Two-balls.mp4"
    films = [one for one in asked if f"/v1/jobs/{job['id']}/film?" in one.url and one.resource_type == "media"]
    assert films
    assert all("range" in one.all_headers() and "authorization" not in one.all_headers() for one in films)
    assert not [one.url for one in asked if locked_studio.key in one.url]


def test_a_film_whose_link_has_expired_goes_on_where_it_was(locked_studio: Studio, visitor: Visitor) -> None:
    visitor.trouble.expect("status of 403 .*/film")
    job = locked_studio.finished(locked_studio.submit(make_board(seed=13))["id"])
    page = visitor.visit(locked_studio.address, f"#/jobs/{job['id']}", key=locked_studio.key)
    page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    page.evaluate("() => (document.querySelector('video').currentTime = 1.25)")
    page.wait_for_function("() => !document.querySelector('video').seeking")
    page.clock.install(time=time.time() + LINK_LIFE_S)
    page.evaluate("() => document.querySelector('video').dispatchEvent(new Event('error'))")
    page.clock.run_for(10_000)
    expect(page.get_by_label("Film: Two balls")).to_have_attribute("src", re.compile(r"&at=\w+-1$"))
    page.wait_for_function("() => document.querySelector('video').currentTime === 1.25")


def test_axe_finds_nothing_while_a_film_waits_on_a_phone(
    api: ApiDouble, visitor: Visitor, axe: Callable[..., None]
) -> None:
    page = visitor.visit(api.url, "#/nothing", size=PHONE)
    job = submit(api, make_board(seed=14), budget_usd=1.0, due_at=time.time() + 3600)
    watch(page, job)
    axe(page)
    page.get_by_role("button", name="Due time and budget").click()
    axe(page)
