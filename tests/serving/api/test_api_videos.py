"""/v1/videos, asked by OpenAI's own client, unchanged, over a real connection."""

import base64
import hashlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.config.farm import PoolConfig
from serving.models.testing import write_tiny_checkpoint
from testkit.picture_files import drawing, written
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running

FIELDS = {
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "seconds",
    "size",
    "remixed_from_video_id",
    "error",
}

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


@pytest.fixture
def client(api: ApiDouble) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="not needed", max_retries=0) as opened:
        yield opened


def test_a_video_is_created_watched_and_downloaded(api: ApiDouble, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a {red} ball rolls", seconds="8", size="1280x720")
    assert (video.status, video.object, video.progress) == ("queued", "video", 0)
    assert (video.prompt, video.seconds, video.size, video.model) == ("a {red} ball rolls", "8", "1280x720", "pocket")
    assert abs(video.created_at - time.time()) < 60
    assert (video.completed_at, video.expires_at, video.error) == (None, None, None)

    api.act(video.id, "start")
    assert client.videos.retrieve(video.id).status == "in_progress"
    api.act(video.id, "pause")
    assert client.videos.retrieve(video.id).status == "in_progress", "they know no pause"
    with pytest.raises(openai.BadRequestError) as early:
        client.videos.download_content(video.id)
    assert early.value.code == "video_not_ready"

    api.act(video.id, "resume")
    api.services.artifacts.put(f"films/{video.id}/film.mp4", b"the film")
    api.services.artifacts.put(f"films/{video.id}/thumbnail.jpg", b"a picture")
    api.services.artifacts.put(f"films/{video.id}/spritesheet.jpg", b"pictures")
    api.act(video.id, "complete", film={"sha256": "0" * 64, "frames": 1, "seconds": 8.0})
    done = client.videos.retrieve(video.id)
    assert (done.status, done.progress) == ("completed", 100)
    assert done.completed_at is not None
    assert client.videos.download_content(video.id).read() == b"the film"
    assert client.videos.download_content(video.id, variant="thumbnail").read() == b"a picture"
    assert client.videos.download_content(video.id, variant="spritesheet").read() == b"pictures"

    deleted = client.videos.delete(video.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_the_clients_own_polling_follows_a_video_to_its_end(api: ApiDouble, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a ball")
    answer = api.http.get(f"/v1/videos/{video.id}")
    assert 500 <= int(answer.headers["openai-poll-after-ms"]) <= 10_000
    assert set(answer.json()) == FIELDS
    api.complete(video.id)
    assert client.videos.poll(video.id).status == "completed"


def test_what_is_left_out_is_as_openai_has_it_or_as_the_model_was_made_for(client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a ball")
    assert video.seconds == "4"
    width, height = (int(side) for side in video.size.split("x"))
    assert width > 0
    assert height > 0


def test_a_long_video_is_one_take(api: ApiDouble, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a ball", seconds="60")  # type: ignore[arg-type]
    (take,) = api.http.get(f"/v1/jobs/{video.id}").json()["takes"]
    assert take["frames"] == 60 * 16
    assert video.seconds == "60"


def test_shots_make_a_film_of_several(api: ApiDouble, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="Two balls", extra_body={"shots": STORYBOARD["shots"], "quality": "draft"})
    assert video.seconds == "2"
    assert video.prompt == "a red ball rolls\na blue ball rolls"
    job = api.http.get(f"/v1/jobs/{video.id}").json()
    assert job["title"] == "Two balls"
    assert [take["key"] for take in job["takes"]] == ["red", "blue"]


def test_shots_that_differ_in_their_keys_are_sent_as_json_text(client: openai.OpenAI) -> None:
    shots = [{"prompt": "a ball", "seconds": 1}, {"prompt": "a cube", "seconds": 1, "transition": {"dissolve": 0.5}}]
    video = client.videos.create(prompt="A ball and a cube", extra_body={"shots": json.dumps(shots)})
    assert video.prompt == "a ball\na cube"
    with pytest.raises(openai.BadRequestError) as error:
        client.videos.create(prompt="A ball", extra_body={"shots": [*STORYBOARD["shots"], {"prompt": "x"}]})
    assert error.value.param == "shots"
    assert "JSON text" in error.value.message


def test_a_form_is_taken_as_well_as_json(api: ApiDouble) -> None:
    fields = {"prompt": "a ball", "seconds": "2", "shots": json.dumps(STORYBOARD["shots"])}
    as_form = api.http.post(
        "/v1/videos", files={name: (None, value) for name, value in fields.items() if name != "shots"}
    )
    as_json = api.http.post("/v1/videos", json={"prompt": "a ball", "seconds": 2})
    shots = api.http.post("/v1/videos", files={"prompt": (None, "x"), "shots": (None, fields["shots"])})
    assert [answer.status_code for answer in (as_form, as_json, shots)] == [200, 200, 200]
    assert as_form.json()["seconds"] == as_json.json()["seconds"] == shots.json()["seconds"] == "2"


def test_a_picture_to_begin_with_is_taken_in_every_form_that_the_client_sends(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = str(write_tiny_checkpoint(tmp_path_factory.mktemp("model"), "2.2-5b"))
    content = written(drawing(), "PNG")
    asset_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with running(tmp_path_factory.mktemp("pictures"), pools=(PoolConfig(name="default", model=model),)) as api:
        client = openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0)
        data_url = "data:image/png;base64," + base64.b64encode(content).decode()
        ways: list[dict[str, Any]] = [
            {"input_reference": ("a.png", io.BytesIO(content), "image/png")},
            {"input_reference": content},
            {"extra_body": {"input_reference": {"image_url": data_url}}},  # the client's own argument takes files alone
            {"extra_body": {"input_reference": {"file_id": asset_id}}},
        ]
        for way in ways:
            video = client.videos.create(prompt="a ball", model=model, **way)
            job = api.http.get(f"/v1/jobs/{video.id}/storyboard").json()
            assert job["shots"][0]["image"] == asset_id
        as_json = api.http.post("/v1/videos", json={"prompt": "a ball", "input_reference": {"file_id": asset_id}})
        assert as_json.is_success, as_json.text


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"image_url": "data:image/png;base64,bm8gcGljdHVyZQ=="}, "is no PNG, JPEG, WebP or AVIF picture"),
        ({"image_url": "https://example.com/a.png"}, "the farm fetches no addresses"),
        ({"image_url": "data:image/png;base64,&&&"}, "is not base64"),
        ({"image_url": "data:text/html;base64,PGI+"}, "must be a data: URL of an image"),
        ({"file_id": "x", "image_url": "y"}, "must have either file_id or image_url"),
    ],
)
def test_a_picture_that_cannot_be_one_is_refused_with_openais_error(
    client: openai.OpenAI, reference: Any, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.videos.create(prompt="a ball", extra_body={"input_reference": reference})
    assert str(error.value.param).startswith("input_reference")
    assert said in error.value.message


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"model": "sora-2"}, "model"),
        ({"size": "big"}, "size"),
        ({"size": "97x64"}, "size"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": "601"}, "seconds"),
        ({"seconds": "four"}, "seconds"),
        ({"prompt": ""}, "prompt"),
        ({"extra_body": {"promt": "x"}}, "promt"),
        ({"extra_body": {"seconds": "2", "shots": STORYBOARD["shots"]}}, "seconds"),
        ({"extra_body": {"shots": [{"prompt": "x"}]}}, "seconds"),
    ],
)
def test_a_wrong_request_has_openais_error(client: openai.OpenAI, values: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.videos.create(**{"prompt": "a ball", **values})
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"
    assert error.value.code == "invalid_request"
    assert isinstance(error.value.body, dict)
    assert set(error.value.body) == {"message", "type", "param", "code"}


def test_fields_of_other_servers_are_taken_if_their_meaning_is_plain(api: ApiDouble, client: openai.OpenAI) -> None:
    fields = {
        "width": 96, "height": 64, "fps": 8, "num_frames": 16, "negative_prompt": "rain", "user": "ada", "n": 1,
        "metadata": {"project": "demo"}, "num_inference_steps": 5,
    }  # fmt: skip
    as_json = api.http.post("/v1/videos", json={"prompt": "a ball", **fields}).json()
    as_form = client.videos.create(prompt="a ball", extra_body=fields)
    for video_id in (as_json["id"], as_form.id):
        job = api.services.jobs.get(video_id)
        assert job is not None
        assert (job.steps, job.tags) == (5, {"user": "ada", "project": "demo"})
        assert job.storyboard["video"] == {"width": 96, "height": 64, "fps": 8}
        assert job.storyboard["negative"] == "rain"
        assert [shot["seconds"] for shot in job.storyboard["shots"]] == [2.0]
    assert (as_json["size"], as_json["seconds"]) == ("96x64", "2")


@pytest.mark.parametrize("size", ["1280X720", "1280*720", "1280x720"])
def test_a_size_is_written_in_any_of_its_usual_ways(api: ApiDouble, size: str) -> None:
    assert api.http.post("/v1/videos", json={"prompt": "a ball", "size": size}).json()["size"] == "1280x720"


def test_a_length_in_frames_is_at_the_models_speed(api: ApiDouble) -> None:
    assert api.http.post("/v1/videos", json={"prompt": "a ball", "num_frames": 40}).json()["seconds"] == "2.5"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 2}, "n", "one video"),
        ({"width": 96}, "height", "width needs it"),
        ({"width": 96, "height": 64, "size": "96x64"}, "width", "beside size"),
        ({"seconds": 2, "num_frames": 16}, "num_frames", "beside seconds"),
        ({"guidance_scale": 5.0}, "guidance_scale", "the model's own"),
        ({"image_url": "https://x"}, "image_url", "as input_reference"),
        ({"metadata": {"a b": "c"}}, "metadata['a b']", "letters, digits"),
        ({"metadata": {"a": {"b": 1}}}, "metadata", "one line"),
        ({"user": "a\nb"}, "user", "one line"),
    ],
)
def test_a_field_whose_meaning_is_not_plain_is_refused_with_the_reason(
    api: ApiDouble, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = api.http.post("/v1/videos", json={"prompt": "a ball", **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in (param, param.partition("[")[0])
    assert words in answer.json()["error"]["message"]


def test_a_field_that_a_form_holds_twice_is_refused(api: ApiDouble) -> None:
    fields = [("prompt", (None, "a ball")), ("seed", (None, "1")), ("seed", (None, "2"))]
    answer = api.http.post("/v1/videos", files=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seed")
    assert "a second time" in answer.json()["error"]["message"]


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_is_too_large_is_refused_as_one_and_not_as_no_json(api: ApiDouble, number: str) -> None:
    content = f'{{"prompt": "a", "shots": [{{"prompt": "b", "seconds": {number}}}]}}'
    answer = api.http.post("/v1/videos", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seconds")
    assert "JSON" not in answer.text


def test_unknown_videos_and_routes_have_openais_error(api: ApiDouble, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.videos.retrieve("video_none")
    assert error.value.code == "not_found"
    native = api.submit()
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(native["id"])
    with pytest.raises(openai.NotFoundError) as route:
        client.videos.remix("video_none", prompt="bluer")
    assert route.value.type == "invalid_request_error"


def test_a_remix_is_the_next_version_with_another_prompt(api: ApiDouble, client: openai.OpenAI) -> None:
    first = client.videos.create(prompt="a red ball", seconds="8", extra_body={"seed": 5, "quality": "draft"})
    again = client.videos.remix(first.id, prompt="a {blue} ball", extra_headers={"Idempotency-Key": "once"})
    assert (again.prompt, again.seconds, again.remixed_from_video_id) == ("a {blue} ball", "8", first.id)
    assert client.videos.retrieve(first.id).prompt == "a red ball"
    job = api.http.get(f"/v1/jobs/{again.id}").json()
    assert (job["version"], job["parent"]) == (2, first.id)
    storyboard = api.http.get(f"/v1/jobs/{again.id}/storyboard").json()
    assert (storyboard["seed"], storyboard["quality"], storyboard["title"]) == (5, "draft", "a {blue} ball")
    repeated = client.videos.remix(first.id, prompt="a {blue} ball", extra_headers={"Idempotency-Key": "once"})
    assert repeated.id == again.id


def test_a_remix_without_a_prompt_or_of_a_film_of_several_shots_is_refused(
    api: ApiDouble, client: openai.OpenAI
) -> None:
    shots = [{"id": name, "prompt": name, "seconds": 1} for name in ("one", "two")]
    film = client.videos.create(prompt="Two", extra_body={"shots": shots})
    with pytest.raises(openai.BadRequestError, match="2 shots, each with a prompt of its own"):
        client.videos.remix(film.id, prompt="three")
    with pytest.raises(openai.BadRequestError) as error:
        client.videos.remix(film.id, prompt="")
    assert error.value.param == "prompt"
    assert len(api.http.get("/v1/videos").json()["data"]) == 1


def test_a_cancelled_video_reads_failed_and_a_failed_one_says_why(api: ApiDouble, client: openai.OpenAI) -> None:
    cancelled, failed = client.videos.create(prompt="a"), client.videos.create(prompt="b")
    api.http.post(f"/v1/jobs/{cancelled.id}/cancel", json={"reason": "not wanted"})
    api.act(failed.id, "fail", error={"code": "poison", "message": "it kills gangs", "evidence": [1]})
    first, second = client.videos.retrieve(cancelled.id), client.videos.retrieve(failed.id)
    assert first.error is not None
    assert second.error is not None
    assert (first.status, first.error.code, first.error.message) == ("failed", "cancelled", "not wanted")
    assert (second.status, second.error.code, second.error.message) == ("failed", "poison", "it kills gangs")


def test_a_video_that_is_not_done_is_cancelled_by_deleting_it(api: ApiDouble, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a ball")
    client.videos.delete(video.id)
    events = api.services.jobs.events_after(0, job_id=video.id)
    assert [event.kind for event in events] == ["submitted", "cancel", "deleted"]


def test_the_clients_pages_hold_every_video_once(api: ApiDouble, client: openai.OpenAI) -> None:
    api.submit()
    created = [client.videos.create(prompt=f"ball {number}").id for number in range(5)]
    newest_first = [video.id for video in client.videos.list(limit=2)]
    oldest_first = [video.id for video in client.videos.list(limit=2, order="asc")]
    assert newest_first == oldest_first[::-1]
    assert sorted(created) == oldest_first
    page = client.videos.list(limit=3)
    assert page.has_more is True
    assert page.last_id == page.data[-1].id


def test_an_idempotent_create_makes_one_video_and_refuses_another_body(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.videos.create(prompt="a ball", extra_headers=key)
    again = client.videos.create(prompt="a ball", extra_headers=key)
    assert first.id == again.id
    with pytest.raises(openai.UnprocessableEntityError) as error:
        client.videos.create(prompt="another ball", extra_headers=key)
    assert error.value.code == "idempotency_conflict"
    assert len(list(client.videos.list())) == 1


def test_the_clients_list_of_models_is_what_the_farm_serves(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pocket"]


def test_videos_expire_where_films_are_not_kept_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, retention={"films_days": 2.0}) as api:
        video = api.http.post("/v1/videos", json={"prompt": "a ball"}).json()
        api.complete(video["id"])
        done = api.http.get(f"/v1/videos/{video['id']}").json()
        assert done["expires_at"] - done["completed_at"] in (2 * 86_400, 2 * 86_400 + 1)
