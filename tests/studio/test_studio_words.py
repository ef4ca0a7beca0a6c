"""All that the studio shows comes from words.js, and nothing that it shows can become markup. No browser is needed."""

import re
from collections import Counter

import pytest

from serving.store.records import LIVE, JobStatus
from tests.studio import page_words
from tests.studio.page_words import WEB, asked_for, keys, literals, scripts, used

pytest_plugins = ["tests.studio.studio_fixtures"]


def test_every_key_that_is_asked_for_is_there() -> None:
    assert asked_for() - set(keys()) == set()


def test_every_key_is_used() -> None:
    known = set(keys())
    assert sorted(known - used(known)) == []


@pytest.mark.parametrize("status", JobStatus)
def test_every_job_status_has_words(status: JobStatus) -> None:
    assert f"status.{status}" in keys()
    assert status in LIVE or f"render.explain.{status}" in keys()


def test_no_module_lists_job_statuses_of_its_own() -> None:
    one = rf"\"(?:{'|'.join(JobStatus)})\""
    lists = re.compile(rf"\[[^\]]*{one}[^\]]*{one}[^\]]*\]")
    assert [path for path, text in scripts().items() if lists.search(text)] == []


def test_no_key_is_there_twice() -> None:
    assert [key for key, times in Counter(keys()).items() if times > 1] == []


def test_a_form_for_one_has_a_form_for_others() -> None:
    known = set(keys())
    ones = {key.removesuffix(".one") for key in known if key.endswith(".one")}
    assert ones == {key.removesuffix(".other") for key in known if key.endswith(".other")}


def test_no_view_shows_words_of_its_own() -> None:
    assert literals() == []


def test_no_text_becomes_markup_or_code() -> None:
    ways = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    assert [path for path, text in scripts().items() if ways.search(text)] == []


def test_no_file_of_the_page_names_another_origin() -> None:
    ours = [path for path in WEB.rglob("*") if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts]
    assert len(ours) > 10
    links = re.compile(r"(?:https?:)?//[\w-]+\.[\w.]+")
    found = {str(path.relative_to(WEB)): links.findall(path.read_text()) for path in ours}
    assert {path: hits for path, hits in found.items() if hits} == {}


def test_every_module_begins_by_saying_what_it_owns() -> None:
    assert [path for path, text in scripts().items() if not text.startswith("// ")] == []


def test_words_between_tags_and_in_attributes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'html`<p title="Hello there" class="a b">${say("k")}<b>Bold words</b>${y > 1 && html`<i>inner ${z}</i>`}</p>`'
    )
    monkeypatch.setattr(page_words, "scripts", lambda: {"a.js": text})
    assert literals() == ["a.js: Hello there", "a.js: Bold words", "a.js: inner"]
