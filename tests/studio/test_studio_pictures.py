"""Pictures in the studio, in a real browser against a real farm: chosen, dropped, pasted, seen, exported, rendered."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from serving.models.registry import open_model
from serving.planning.compile import compile_storyboard
from serving.render.local.film import render_film
from serving.storyboard import parse_storyboard
from testkit.picture_files import drawing, written
from tests.studio.browsing import Trouble, Visitor
from tests.studio.studio_double import Studio

pytest_plugins = ["tests.studio.studio_fixtures"]
pytestmark = pytest.mark.browser

FIRST, LAST, MIDDLE = (written(drawing(96, height), "PNG") for height in (64, 72, 80))


def id_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def place(page: Page, what: str) -> Locator:
    return page.get_by_role("button", name=f"Choose a picture for {what}")


def choose(page: Page, what: str, content: bytes, name: str = "a.png") -> None:
    """As a person does, by the browser's own dialog."""
    with page.expect_file_chooser() as chooser:
        place(page, what).click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


ARRIVE = """(target, {kind, content, name}) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: name.endsWith(".zip") ? "application/zip" : "image/png"}));
  const about = {bubbles: true, cancelable: true};
  const event = kind === "paste" ? new ClipboardEvent("paste", {...about, clipboardData: data})
    : new DragEvent("drop", {...about, dataTransfer: data});
  target.dispatchEvent(event);
}"""


def arrive(target: Locator, kind: str, content: bytes, name: str = "a.png") -> None:
    """A file that is dropped or pasted on an element."""
    target.evaluate(ARRIVE, {"kind": kind, "content": base64.b64encode(content).decode(), "name": name})


def exported(page: Page) -> Any:
    """The storyboard as the page would send it."""
    page.get_by_role("button", name="Export").click()
    text = page.get_by_label("YAML, for the command line").input_value()
    page.get_by_role("button", name="Close").last.click()
    return parse_storyboard(text.encode()).model_dump(mode="json")


def test_pictures_are_chosen_dropped_and_pasted_and_shown(page: Page, axe: Callable[[Page], None]) -> None:
    page.get_by_label("Prompt of shot 1,").fill("a red ball moving right, day")
    choose(page, "the first frame of shot 1", FIRST)
    arrive(place(page, "the last frame of shot 1"), "drop", LAST)
    page.get_by_text("Pictures at other times").click()
    arrive(place(page, "another time of shot 1"), "paste", MIDDLE)
    expect(page.locator(".picture img")).to_have_count(3)
    for index in range(3):
        seen = page.locator(".picture img").nth(index)
        assert seen.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 96
    axe(page)
    page.get_by_label("At, s").fill("1.5")
    shot = exported(page)["shots"][0]
    assert (shot["image"], shot["last_image"]) == (id_of(FIRST), id_of(LAST))
    assert shot["keyframes"] == [{"at": 1.5, "image": id_of(MIDDLE), "strength": 1.0}]
    expect(page.locator(".shot .problems")).to_have_count(0)


def test_a_thumbnail_shows_what_the_film_will_show_of_the_picture(page: Page) -> None:
    tall = written(Image.new("RGB", (32, 96), (200, 10, 10)), "PNG")
    page.get_by_label("Prompt of shot 1,").fill("a red ball moving right, day")
    choose(page, "the first frame of shot 1", tall)
    seen = page.locator(".picture img")
    expect(seen).to_have_class("cover")
    box = page.locator(".picture-place").first.bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(96 / 64, rel=0.05)
    page.get_by_text("Seed, likeness, stitching, size").click()
    page.get_by_label("Pictures of another shape").select_option(label="are seen whole, with bars")
    expect(seen).to_have_class("contain")
    assert exported(page)["video"]["fit"] == "contain"


def test_a_picture_is_taken_away_again(page: Page) -> None:
    choose(page, "the first frame of shot 1", FIRST)
    page.get_by_role("button", name="Remove the picture for the first frame of shot 1").click()
    expect(place(page, "the first frame of shot 1")).to_be_visible()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator(".picture img")).to_have_count(1)


def test_a_file_that_is_no_picture_is_told_beside_its_place(page: Page, trouble: Trouble) -> None:
    trouble.expect("status of 422")
    choose(page, "the first frame of shot 1", b"no picture at all")
    expect(page.locator(".picture .problems")).to_contain_text("is no PNG, JPEG, WebP or AVIF picture")


def test_a_character_begins_its_first_shot_with_its_picture(page: Page) -> None:
    page.get_by_role("button", name="Add a character").click()
    page.get_by_label("Name of character 1").fill("hero")
    page.get_by_label("Description of character 1").fill("a red ball")
    choose(page, "character 1, hero", FIRST)
    page.get_by_label("Prompt of shot 1,").fill("{hero} moving right, day")
    expect(page.get_by_label("Picture is")).to_have_value("first_frame")
    hero = exported(page)["characters"]["hero"]
    assert hero == {"text": "a red ball", "images": [id_of(FIRST)], "as": "first_frame"}


def test_a_zip_takes_the_pictures_along_and_brings_them_back(page: Page, visitor: Visitor, studio: Studio) -> None:
    page.get_by_label("Title").fill("With pictures")
    page.get_by_label("Prompt of shot 1,").fill("a red ball moving right, day")
    choose(page, "the first frame of shot 1", FIRST)
    expect(page.locator(".picture img")).to_have_count(1)
    before = exported(page)
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download with pictures").click()
    assert download.value.suggested_filename == "with-pictures.zip"
    content = Path(download.value.path()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        (name,) = (name for name in packed.namelist() if name.startswith("pictures/"))
        assert packed.read(name) == FIRST
        assert parse_storyboard(packed.read("storyboard.yaml")).shots[0].image == name
    studio.http.delete(f"/v1/assets/{id_of(FIRST)}")
    other = visitor.visit(studio.address)
    arrive(other.locator("body"), "drop", content, "film.zip")
    expect(other.locator(".picture img")).to_have_count(1)
    assert exported(other) == before
    assert studio.http.head(f"/v1/assets/{id_of(FIRST)}").status_code == 200


def test_pictures_are_seen_behind_a_key(visitor: Visitor, locked_studio: Studio) -> None:
    page = visitor.visit(locked_studio.address, key=locked_studio.new_key("ada"))
    choose(page, "the first frame of shot 1", FIRST)
    assert page.locator(".picture img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 96


def test_what_was_written_becomes_the_film_that_a_render_of_its_zip_gives(
    page: Page, studio: Studio, tmp_path: Path
) -> None:
    page.get_by_label("Title").fill("A picture begins it")
    page.get_by_label("Quality").select_option("draft")
    page.get_by_label("Seconds").fill("1")
    page.get_by_label("Prompt of shot 1,").fill("a red ball moving right, day")
    choose(page, "the first frame of shot 1", FIRST)
    expect(page.locator(".picture img")).to_have_count(1)
    board = parse_storyboard(json.dumps(exported(page)).encode(), form="json")
    page.get_by_role("button", name="Render the film").first.click()
    page.wait_for_url("**/#/jobs/**")
    job_id = page.url.rpartition("/")[2]
    job = studio.finished(job_id)
    model = open_model("pocket")
    plan = compile_storyboard(board, model_name="pocket", capabilities=model.capabilities, tokens=model.prompt_tokens)
    pictures = {id_of(FIRST).removeprefix("sha256:"): FIRST}
    manifest = render_film(plan, model=model, out=tmp_path / "film.mp4", gangs=1, pictures=pictures)
    assert job["film"]["sha256"] == manifest["sha256"]
