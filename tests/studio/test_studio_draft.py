"""The pure modules of the storyboard view in a real browser; what the farm does too is compared with it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from serving.documents.places import write_path
from serving.errors import StoryboardError
from serving.planning.compile import round_to_frames
from serving.storyboard import parse_storyboard
from tests.studio.browsing import Visitor
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

BOARD: dict[str, Any] = {
    "version": 1,
    "title": "Two balls",
    "characters": {"hero": "a red ball"},
    "shots": [
        {"id": "a", "prompt": "{hero} rolls", "seconds": 2},
        {"id": "b", "prompt": "{hero} falls", "seconds": 2, "transition": "continue"},
        {"id": "c", "prompt": "a box", "seconds": 2, "transition": {"dissolve": 0.5}, "seed": 4},
    ],
}

HOSTILE = [
    '<img src=x onerror="window.hacked = 1">',
    "{{braces}} and 'quotes' and \"more\" and `${{1}}`",
    "שלום \u202eabc\u202c مرحبا",
    "null",
    "true",
    "no",
    "1e3",
    "0x10",
    "007",
    "1:30",
    "- a list",
    "# a comment",
    "key: value",
    "&anchor *alias !tag | >",
    "two\nlines\n\nand more  ",
    "  spaces around  ",
    "tab\there",
    "emoji 🎬 \u2028 separator",
    "%directive",
    "@at `tick",
]

many = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(str.strip)


@pytest.fixture(scope="module")
def modules(browser: Browser, studio: Studio) -> Iterator[Page]:
    """A page that stays for the whole file, as nothing here changes it."""
    visitor = Visitor(browser)
    page = visitor.visit(studio.address)
    page.evaluate(
        """async () => {
          const names = ["draft", "undo", "problems", "yaml", "changes", "examples", "fields"];
          const found = await Promise.all(names.map((name) => import(`/studio/views/storyboard/${name}.js`)));
          window.m = Object.assign({}, ...found);
          window.m.redoEdit = found[1].redo;
        }"""
    )
    yield page
    visitor.close()
    visitor.trouble.check()


def run(page: Page, body: str, *values: Any) -> Any:
    """The value of an expression in the page; the values are `a`, `b`, ..."""
    names = ", ".join("abcdef"[: len(values)])
    return page.evaluate(f"([{names}]) => {{ const m = window.m; return ({body}); }}", list(values))


def as_farm_reads(storyboard: Any) -> Any:
    return parse_storyboard(json.dumps(storyboard).encode(), form="json").model_dump(mode="json")


@pytest.mark.parametrize("prompt", HOSTILE)
def test_a_hostile_prompt_comes_back_from_yaml_as_it_was(modules: Page, prompt: str) -> None:
    title = prompt.replace("\n", " ").replace("\t", " ")  # a title is one line
    board = {"version": 1, "title": title, "shots": [{"id": "a", "prompt": prompt, "seconds": 2}]}
    text = run(modules, "m.writeYaml(a)", board)
    assert run(modules, "m.readYaml(a)", text) == board
    assert parse_storyboard(text.encode()).model_dump(mode="json") == as_farm_reads(board)


@many
@given(title=texts, prompt=texts, negative=texts, seconds=st.floats(0.01, 600), dissolve=st.floats(0.01, 10))
def test_what_is_exported_is_read_by_the_farm_as_the_same(
    modules: Page, title: str, prompt: str, negative: str, seconds: float, dissolve: float
) -> None:
    written = prompt.replace("{", "{{").replace("}", "}}")
    shots = [
        {"id": "a", "prompt": written, "seconds": seconds, "negative": negative},
        {"id": "null", "prompt": written, "seconds": 1, "transition": {"dissolve": dissolve}},
    ]
    board = {"version": 1, "title": title, "style": negative, "characters": {"no": prompt}, "shots": shots}
    text = run(modules, "m.writeYaml(a)", board)
    assert parse_storyboard(text.encode()).model_dump(mode="json") == as_farm_reads(board)
    assert run(modules, "m.readYaml(a)", text) == run(modules, "m.tidy(a)", board)


def test_only_what_is_not_as_usual_is_exported_and_ids_always(modules: Page) -> None:
    board = {
        "shots": [{"seconds": 2, "transition": "cut", "prompt": "a", "id": "one", "seed": None}],
        "seed": 0,
        "quality": "standard",
        "version": 1,
        "title": "Untitled",
        "video": {"width": None, "height": None, "fps": None},
        "characters": {},
    }
    assert run(modules, "m.writeYaml(a)", board) == "version: 1\nshots:\n  - id: one\n    prompt: a\n    seconds: 2\n"


@pytest.mark.parametrize(
    "text", ["0x10", "1e3", "007", "1:30", "no", "~", ".5", "+3", "0o7", "2001-01-01", ".inf2", "1_0"]
)
def test_a_plain_word_is_what_it_is_for_the_farm(modules: Page, text: str) -> None:
    yaml = f"version: 1\nshots:\n  - {{id: x, prompt: a, seconds: 2, negative: {text}}}\n"
    in_page = run(modules, "typeof m.readYaml(a).shots[0].negative", yaml)
    try:
        in_farm = parse_storyboard(yaml.encode()).shots[0].negative
        assert in_page == ("object" if in_farm is None else "string")
    except StoryboardError:
        assert in_page == "number"


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("version: 1\nshots:\n  - {prompt: [}\n", "syntax", 3),
        ("version: 1\nshots:\n  - {id: a, prompt: {hero} moves, seconds: 2}\n", "brace", 3),
        ("version: 1\nversion: 1\n", "syntax", 2),
        ("just words", "root", None),
        ("shots: 3", "shots", None),
        ("shots: [{prompt: a}, b]", "shot", None),
        ("[" * 50, "syntax", 1),
        ("a: " + "b" * (1 << 20), "large", None),
    ],
)
def test_what_cannot_be_imported_says_where(modules: Page, text: str, kind: str, line: int | None) -> None:
    found = run(modules, "(() => { try { m.readYaml(a) } catch (e) { return [e.kind, e.line] } })()", text)
    assert found == [kind, line]


def test_aliases_cannot_grow_without_bounds(modules: Page) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join(['*' + a] * 10)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)]
    assert run(modules, "(() => { try { m.readYaml(a) } catch (e) { return e.kind } })()", "\n".join(lines)) == "syntax"


def test_a_draft_gives_back_the_storyboard_that_it_was_made_of(modules: Page) -> None:
    board = {**BOARD, "unknown": {"kept": [1]}, "shots": [{**BOARD["shots"][0], "odd": 1}, *BOARD["shots"][1:]]}
    assert run(modules, "m.storyboardOf(m.draftOf(a))", board) == board


def test_shots_without_an_id_get_the_one_that_the_farm_would_give(modules: Page) -> None:
    board = {"version": 1, "shots": [{"prompt": "a", "seconds": 1}, {"id": "x", "prompt": "b", "seconds": 1}]}
    ids = run(modules, "m.storyboardOf(m.draftOf(a)).shots.map((s) => s.id)", board)
    assert ids == [shot["id"] for shot in as_farm_reads(board)["shots"]]


def test_whatever_comes_first_begins_with_a_cut(modules: Page) -> None:
    moved = run(modules, "m.storyboardOf(m.moveShot(m.draftOf(a), 1, 0)).shots", BOARD)
    assert [shot["id"] for shot in moved] == ["b", "a", "c"]
    assert "transition" not in moved[0]
    rest = run(modules, "m.storyboardOf(m.deleteShot(m.draftOf(a), 0)).shots", BOARD)
    assert [shot["id"] for shot in rest] == ["b", "c"]
    assert "transition" not in rest[0]


def test_a_shot_that_continues_has_no_seed(modules: Page) -> None:
    shot = run(
        modules,
        "(() => { const d = m.draftOf(a); return m.setTransition(d, d.cards[2].key, 'continue') })().cards[2].shot",
        BOARD,
    )
    assert shot == {"id": "c", "prompt": "a box", "seconds": 2, "transition": "continue"}


@many
@given(st.lists(st.tuples(st.sampled_from("acdm"), st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_after_any_edits_ids_differ_and_the_farm_accepts_it(modules: Page, edits: list[tuple[str, int, int]]) -> None:
    board = run(
        modules,
        """(() => {
          let d = m.draftOf(a);
          for (const [what, i, j] of b) {
            const n = d.cards.length;
            if (what === "a") d = m.addShot(d, (i % (n + 1)) - 1);
            if (what === "c") d = m.copyShot(d, i % n);
            if (what === "d" && n > 1) d = m.deleteShot(d, i % n);
            if (what === "m") d = m.moveShot(d, i % n, j % n);
          }
          return m.storyboardOf(d);
        })()""",
        BOARD,
        edits,
    )
    ids = [shot["id"] for shot in board["shots"]]
    assert len(ids) == len(set(ids))
    written = [{**shot, "prompt": shot["prompt"] or "something"} for shot in board["shots"]]
    assert as_farm_reads({**board, "shots": written})["shots"][0]["transition"] == "cut"


@many
@given(st.floats(0.001, 600), st.integers(1, 60))
def test_lengths_are_rounded_as_the_farm_rounds_them(modules: Page, seconds: float, fps: int) -> None:
    assert run(modules, "m.framesOf(a, b)", seconds, fps) == round_to_frames(seconds, fps)


@many
@given(st.text(min_size=1, max_size=30), st.integers(0, 999))
def test_paths_are_read_as_the_farm_writes_them(modules: Page, name: str, index: int) -> None:
    name = name.encode("utf-8", "replace").decode()
    for place in (("characters", name), ("shots", index, name), (name,)):
        assert run(modules, "m.parsePath(a)", write_path(place)) == list(place)


def test_each_problem_has_its_place(modules: Page) -> None:
    places = {
        "": "",
        "title": "title",
        "titel": "",
        "version": "",
        "video.width": "video.width",
        "video": "",
        "characters.hero": "person.hero",
        "characters.nobody": "",
        "shots": "",
        "shots[1].seconds": "shot.1.seconds",
        "shots[2].transition.dissolve": "shot.2.dissolve",
        "shots[2].transition.wat": "shot.2.transition",
        "shots[0].secnds": "shot.0",
        "shots[9].seconds": "",
        "due_at": "due_at",
    }
    found = run(
        modules, "(() => { const d = m.draftOf(a); return b.map((p) => m.placeOf(p, d)) })()", BOARD, list(places)
    )
    assert dict(zip(places, found, strict=True)) == places


@pytest.mark.parametrize(
    ("change", "path", "after"),
    [
        ({"model": "pockett"}, "model", {"model": "pocket"}),
        ({"quality": "finall"}, "quality", {"quality": "final"}),
        ({"titel": "A", "title": None}, "titel", {"title": "A"}),
        ({"video": {"widht": 96}}, "video.widht", {"video": {"width": 96}}),
        ({"charcters": {"hero": "a"}, "characters": None}, "charcters", {"characters": {"hero": "a"}}),
    ],
)
def test_one_click_takes_what_the_farm_thinks_was_meant(
    modules: Page, change: dict[str, Any], path: str, after: dict[str, Any]
) -> None:
    board = {key: value for key, value in {**BOARD, **change}.items() if value is not None}
    with pytest.raises(StoryboardError) as refused:
        as_farm_reads(board)
    problem = next(one for one in refused.value.problems if one.path == path)
    told = {"path": problem.path, "message": problem.message, "nearest": problem.nearest}
    fixed = run(modules, "m.storyboardOf(m.takeNearest(m.draftOf(a), b))", board, told)
    assert {key: fixed.get(key) for key in after} == after
    as_farm_reads(fixed)


@pytest.mark.parametrize(
    ("shot", "path", "after"),
    [
        ({"transition": "contine"}, "shots[1].transition", {"transition": "continue"}),
        ({"transition": "dissolve"}, "shots[1].transition", {"transition": {"dissolve": 0.5}}),
        (
            {"prompt": "{heroo} and {hero} and {{heroo}}"},
            "shots[1].prompt",
            {"prompt": "{hero} and {hero} and {{heroo}}"},
        ),
        ({"promt": "a", "prompt": None}, "shots[1].promt", {"prompt": "a"}),
    ],
)
def test_one_click_mends_a_shot(modules: Page, shot: dict[str, Any], path: str, after: dict[str, Any]) -> None:
    wrong = {key: value for key, value in {**BOARD["shots"][1], **shot}.items() if value is not None}
    board = {**BOARD, "shots": [BOARD["shots"][0], wrong]}
    with pytest.raises(StoryboardError) as refused:
        as_farm_reads(board)
    problem = next(one for one in refused.value.problems if one.path == path)
    told = {"path": problem.path, "message": problem.message, "nearest": problem.nearest}
    fixed = run(modules, "m.storyboardOf(m.takeNearest(m.draftOf(a), b))", board, told)
    assert {key: fixed["shots"][1].get(key) for key in after} == after
    as_farm_reads(fixed)


def test_an_unknown_key_can_be_taken_away(modules: Page) -> None:
    board = {**BOARD, "shots": [{**BOARD["shots"][0], "odd": 1}, *BOARD["shots"][1:]]}
    assert run(modules, "m.storyboardOf(m.dropUnknown(m.draftOf(a), {path: 'shots[0].odd'}))", board) == BOARD
    assert run(modules, "m.dropUnknown(m.draftOf(a), {path: 'shots[0].seconds'})", BOARD) is None


def test_typing_is_taken_back_at_once_and_other_edits_one_by_one(modules: Page) -> None:
    found = run(
        modules,
        """(() => {
          let e = m.begin("0");
          e = m.edit(e, "1", "title", 0);
          e = m.edit(e, "2", "title", 1000);
          e = m.edit(e, "3", "title", 9000);
          e = m.edit(e, "4", null, 9001);
          e = m.edit(e, "5", null, 9002);
          const seen = [e.draft];
          for (let i = 0; i < 5; i++) { e = m.undo(e); seen.push(e.draft); }
          e = m.redoEdit(e);
          return [...seen, e.draft];
        })()""",
    )
    assert found == ["5", "4", "3", "2", "0", "0", "2"]


def test_a_shot_in_between_changes_no_other(modules: Page) -> None:
    new = {"id": "n", "prompt": "new", "seconds": 1}
    after = {**BOARD, "seed": 0, "title": "Other", "shots": [BOARD["shots"][0], new, *BOARD["shots"][1:]]}
    found = run(modules, "m.changesBetween(a, b).map((c) => [c.path, c.before ?? null])", BOARD, after)
    assert found == [["title", "Two balls"], ["n", None]]


def test_changes_name_the_shot_and_the_order(modules: Page) -> None:
    a, b, c = BOARD["shots"]
    after = {**BOARD, "shots": [a, {**c, "seconds": 3}, b]}
    assert run(modules, "m.changesBetween(a, b).map((c) => c.path)", BOARD, after) == ["c.seconds", "order"]
    assert run(modules, "m.changesBetween(a, b).map((c) => c.path)", BOARD, {**BOARD, "shots": [a, b]}) == ["c"]


def test_a_new_version_says_what_it_no_longer_wants(modules: Page) -> None:
    told = run(modules, "[false, true].map((v) => m.optionsOf(m.draftOf(a, { priority: 60 }), v))", BOARD)
    assert told == [{"priority": 60}, {"priority": 60, "due_at": None, "budget_usd": None}]


def test_numbers_may_be_typed_with_a_comma_and_what_is_none_stays_text(modules: Page) -> None:
    typed = ["2.5", "2,5", "", " 3 ", "two", "9007199254740993", "1e400"]
    assert run(modules, "a.map((text) => m.readNumber(text) ?? null)", typed) == [
        2.5,
        2.5,
        None,
        3,
        "two",
        typed[5],
        typed[6],
    ]


def test_a_character_is_put_where_the_caret_is(modules: Page) -> None:
    assert run(modules, "m.insertName('a  rolls', 'hero', 2, 2)", 0) == {"text": "a {hero} rolls", "caret": 8}
    assert run(modules, "m.insertName('see', 'hero', 3, 3)", 0) == {"text": "see {hero}", "caret": 10}


def test_every_example_is_accepted(modules: Page) -> None:
    boards = run(modules, "m.EXAMPLES.map((one) => m.exampleBoard(one, one.name))")
    assert len(boards) >= 4
    for board in boards:
        assert all(shot["id"] for shot in board["shots"])
        as_farm_reads(board)
