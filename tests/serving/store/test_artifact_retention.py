"""What may be deleted: nothing that a job may still need, and whatever nobody has used for long."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.store.artifact_retention import Retention, apply_retention, plan_retention
from serving.store.artifacts import ArtifactInfo, Artifacts
from serving.store.records import JobUse

DAY = 86_400.0
NOW = 1000 * DAY
KEEP = Retention(unused_s=30 * DAY, deleted_films_s=DAY)


def info(key: str, age_days: float = 500) -> ArtifactInfo:
    return ArtifactInfo(key, 1, NOW - age_days * DAY)


def doomed(artifacts: list[ArtifactInfo], *jobs: JobUse) -> list[str]:
    return plan_retention(artifacts, jobs, now=NOW, retention=KEEP)


def test_all_of_a_take_that_a_live_job_needs_is_kept_however_old() -> None:
    take = [info("takes/k/frames.mkv"), info("takes/k/checkpoints/000000000001-00000001.ckpt")]
    assert doomed(take, JobUse("job_1", frozenset({"k"}))) == []


def test_a_take_goes_when_the_last_job_that_used_it_has_ended_long_ago() -> None:
    take = [info("takes/k/frames.mkv"), info("takes/k/latents.safetensors")]
    long_ago, lately = (JobUse(f"job_{days}", frozenset({"k"}), ended_at=NOW - days * DAY) for days in (31, 29))
    assert doomed(take, long_ago) == ["takes/k/frames.mkv", "takes/k/latents.safetensors"]
    assert doomed(take, long_ago, lately) == []
    assert doomed(take) == ["takes/k/frames.mkv", "takes/k/latents.safetensors"]


def test_a_take_that_was_written_to_lately_is_kept_as_a_whole() -> None:
    assert doomed([info("takes/k/frames.mkv"), info("takes/k/head-8.mp4", age_days=3)]) == []


def test_of_the_heads_of_a_live_take_those_go_that_a_longer_one_has_replaced_for_long() -> None:
    heads = [info("takes/k/head-9.mp4", age_days=3), info("takes/k/head-60.mp4", age_days=2)]
    heads += [info("takes/k/head-120.mp4", age_days=0.01), info("takes/k/head-x.mp4", age_days=9)]
    assert doomed(heads, JobUse("job_1", frozenset({"k"}))) == ["takes/k/head-9.mp4"]
    assert doomed(heads[:1], JobUse("job_1", frozenset({"k"}))) == []


def test_the_film_of_a_job_that_exists_is_kept_for_ever_where_no_time_is_set() -> None:
    film = [info("films/job_1/film.mp4"), info("films/job_1/film.json")]
    assert doomed(film, JobUse("job_1", frozenset(), ended_at=NOW - 400 * DAY)) == []


def test_films_go_after_their_time_where_one_is_set() -> None:
    film, keep = [info("films/job_1/film.mp4")], Retention(films_s=90 * DAY)
    for ended_at, gone in ((NOW - 89 * DAY, []), (NOW - 91 * DAY, ["films/job_1/film.mp4"]), (None, [])):
        job = JobUse("job_1", frozenset(), ended_at=ended_at)
        assert plan_retention(film, [job], now=NOW, retention=keep) == gone


def test_takes_are_kept_for_ever_where_no_time_is_set() -> None:
    take = [info("takes/k/frames.mkv"), info("prompts/w/p.safetensors")]
    assert plan_retention(take, [], now=NOW, retention=Retention(unused_s=None)) == []


def test_the_film_of_a_deleted_job_goes_after_its_time() -> None:
    film = [info("films/job_1/film.mp4")]
    assert doomed(film, JobUse("job_1", frozenset(), ended_at=0, deleted_at=NOW - DAY / 2)) == []
    assert doomed(film, JobUse("job_1", frozenset(), ended_at=0, deleted_at=NOW - 2 * DAY)) == ["films/job_1/film.mp4"]


def test_a_prompt_goes_when_nobody_has_written_it_for_long_and_nobody_needs_it_now() -> None:
    old, young = info("prompts/w/p.safetensors"), info("prompts/w/q.safetensors", age_days=3)
    assert doomed([old, young]) == [old.key]
    assert plan_retention([old], [], prompts_in_use=[old.key], now=NOW, retention=KEEP) == []


def test_what_follows_no_layout_is_left_alone() -> None:
    keys = ("readme.txt", "models/w/latent_rgb.json", "takes/loose", "prompts/w", "prompts/w/p/q")
    assert doomed([info(key) for key in keys]) == []


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 900)), max_size=8),
    st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.none() | st.floats(0, 900), st.booleans()), max_size=5),
)
def test_nothing_goes_that_a_live_job_needs_or_that_is_young(
    takes: list[tuple[str, float]], jobs: list[tuple[set[str], float | None, bool]]
) -> None:
    artifacts = [info(f"takes/{key}/{n}", age) for n, (key, age) in enumerate(takes)]
    artifacts += [info(f"films/job_{k}/film.mp4") for k in range(len(jobs))]
    uses = [
        JobUse(
            f"job_{k}",
            frozenset(keys),
            ended_at=None if age is None else NOW - age * DAY,
            deleted_at=NOW - age * DAY if age is not None and deleted else None,
        )
        for k, (keys, age, deleted) in enumerate(jobs)
    ]
    gone = set(doomed(artifacts, *uses))
    needed = {key for keys, age, _ in jobs if age is None or age < 30 for key in keys}
    for artifact in artifacts:
        kind, name, _ = artifact.key.split("/")
        if artifact.key in gone:
            assert artifact.modified_at < NOW - DAY
            assert kind == "films" or name not in needed
            assert kind == "takes" or uses[int(name.removeprefix("job_"))].deleted_at is not None


@pytest.mark.parametrize("store", ["folder", "s3"])
def test_what_is_planned_is_deleted_and_the_rest_stays(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "a") if store == "folder" else request.getfixturevalue("s3_url")
    artifacts = Artifacts.open(url)
    for key in ("takes/old/frames.mkv", "takes/old/checkpoints/1.ckpt", "takes/live/frames.mkv", "films/j/film.mp4"):
        artifacts.put(key, b"x")
    jobs = [JobUse("j", frozenset({"live"}))]
    keys = plan_retention(artifacts.list(), jobs, now=4e9, retention=KEEP)
    apply_retention(artifacts, keys)
    assert [left.key for left in artifacts.list()] == ["films/j/film.mp4", "takes/live/frames.mkv"]
