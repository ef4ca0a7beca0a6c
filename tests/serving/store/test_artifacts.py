"""Artifacts in a folder and in a bucket: whole or not there, and the same to whoever uses them."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving import settings
from serving.errors import ArtifactMissing, ArtifactsUnavailable, UserError
from serving.store import artifact_writers
from serving.store.artifact_writers import PARTIALS, Source, Writer
from serving.store.artifacts import ABANDONED_PARTIALS_S, LOCK_S, Artifacts


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    url = str(tmp_path / "artifacts") if request.param == "folder" else request.getfixturevalue("s3_url")
    return Artifacts.open(url, patience_s=1)


@pytest.fixture
def folder(tmp_path: Path) -> Artifacts:
    return Artifacts.open((tmp_path / "artifacts").as_uri(), patience_s=0.5)


def files_in(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_what_is_put_is_got_back_and_replaced_by_what_is_put_later(artifacts: Artifacts) -> None:
    artifacts.put("takes/a/preview.png", b"first")
    artifacts.put("takes/a/preview.png", b"second, and longer")
    assert artifacts.get("takes/a/preview.png") == b"second, and longer"
    assert artifacts.size("takes/a/preview.png") == 18
    assert artifacts.exists("takes/a/preview.png")


def test_what_exists_is_not_created_again(artifacts: Artifacts) -> None:
    assert artifacts.create("a/b", b"mine") is True
    assert artifacts.create("a/b", b"yours") is False
    assert artifacts.get("a/b") == b"mine"


def test_of_many_who_create_the_same_key_at_once_one_does(artifacts: Artifacts) -> None:
    barrier, created = threading.Barrier(8), []

    def create(k: int) -> None:
        barrier.wait()
        if artifacts.create("race", bytes([k])):
            created.append(k)

    threads = [threading.Thread(target=create, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert artifacts.get("race") == bytes(created)


def test_what_is_not_there_is_missing(artifacts: Artifacts, tmp_path: Path) -> None:
    for read in (artifacts.get, artifacts.size, lambda key: artifacts.get_range(key, 0, 4)):
        with pytest.raises(ArtifactMissing, match="nothing/here"):
            read("nothing/here")
    with pytest.raises(ArtifactMissing):
        artifacts.get_to_file("nothing/here", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not artifacts.exists("nothing/here")
    artifacts.delete(["nothing/here"])


def test_a_range_is_cut_off_at_the_end_and_refused_beyond_it(artifacts: Artifacts) -> None:
    artifacts.put("film.mp4", bytes(range(100)))
    assert artifacts.get_range("film.mp4", 10, 20) == bytes(range(10, 20))
    assert artifacts.get_range("film.mp4", 90, 1000) == bytes(range(90, 100))
    with pytest.raises(ValueError, match="has 100 bytes"):
        artifacts.get_range("film.mp4", 100, 101)
    with pytest.raises(ValueError, match="0 <= start < stop"):
        artifacts.get_range("film.mp4", 5, 5)


@pytest.mark.parametrize("part_bytes", [5 << 20, 64 << 20], ids=["in parts", "at once"])
def test_files_of_any_size_go_in_and_come_out_the_same(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(settings, "ARTIFACT_PART_BYTES", part_bytes)
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.write_bytes(os.urandom(12 << 20))
    assert artifacts.create_file("frames.mkv", original) is True
    assert artifacts.create_file("frames.mkv", original) is False
    artifacts.get_to_file("frames.mkv", copy)
    assert copy.read_bytes() == original.read_bytes()
    original.write_bytes(os.urandom(11 << 20))
    artifacts.put_file("frames.mkv", original)
    assert b"".join(artifacts.parts("frames.mkv", 7)) == original.read_bytes()[7:]
    assert artifacts._list(PARTIALS) == []


def test_a_list_holds_what_lies_below_a_folder_with_size_and_time(artifacts: Artifacts) -> None:
    for key in ("takes/b/frames.mkv", "takes/a/x/2", "takes/a/x/1", "takes/ab/1", "films/1/film.mp4"):
        artifacts.put(key, b"12345")
    assert [info.key for info in artifacts.list("takes/a")] == ["takes/a/x/1", "takes/a/x/2"]
    assert len(artifacts.list()) == 5
    assert artifacts.list("takes/c") == []
    info = artifacts.list("films")[0]
    assert info.bytes == 5
    assert abs(info.modified_at - time.time()) < 60


def test_deleting_leaves_the_rest(artifacts: Artifacts) -> None:
    for k in range(5):
        artifacts.put(f"a/{k}", b"x")
    artifacts.delete([f"a/{k}" for k in range(4)])
    artifacts.delete([])
    assert [info.key for info in artifacts.list()] == ["a/4"]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".partials/a", "a b", "ü", "a#1", "x" * 501]
)
def test_a_key_that_is_no_plain_path_is_refused(folder: Artifacts, key: str) -> None:
    for use in (folder.get, folder.exists, lambda key: folder.put(key, b""), lambda key: folder.delete([key])):
        with pytest.raises(ValueError, match="cannot be the key"):
            use(key)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://host/folder", "artifacts lie in a folder"),
        ("file://host/folder", "artifacts lie in a folder"),
        ("s3:///prefix", "an S3 store is written"),
        ("s3://bucket/prefix?access_key_id=x", "credentials come from"),
        ("s3://key:secret@bucket", "credentials come from"),
        ("/dev/null/folder", "cannot lie in"),
    ],
)
def test_a_url_that_means_nothing_is_refused_without_its_secrets(url: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        Artifacts.open(url)
    assert "secret@" not in str(caught.value)


def test_a_store_that_is_fit_passes_its_check_and_keeps_nothing_of_it(artifacts: Artifacts) -> None:
    artifacts.check()
    assert artifacts._list(None) == []


class Overwriting:
    """A store that takes no notice of conditions, as `rclone serve s3` does."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, key: str, source: Source, *, create: bool) -> bool:
        return self._writer.write(key, source, create=False)


def test_a_store_that_overwrites_what_exists_fails_its_check(folder: Artifacts) -> None:
    folder._writer = Overwriting(folder._writer)
    with pytest.raises(ArtifactsUnavailable, match="If-None-Match"):
        folder.check()


# -------------------------------------------------------------------------------------------- stores that fail


class Failing:
    """A writer that raises on its first calls, before it has written or after."""

    def __init__(self, writer: Writer, *, failures: int, after_writing: bool) -> None:
        self._writer = writer
        self.failures = failures
        self._after_writing = after_writing

    def write(self, key: str, source: Source, *, create: bool) -> bool:
        self.failures -= 1
        if self.failures < 0:
            return self._writer.write(key, source, create=create)
        if self._after_writing:
            self._writer.write(key, source, create=create)
        raise OSError("connection reset")


@pytest.mark.parametrize("after_writing", [False, True])
def test_a_write_that_fails_is_tried_again_and_one_that_was_done_all_the_same_counts(
    artifacts: Artifacts, tmp_path: Path, after_writing: bool
) -> None:
    artifacts._writer = Failing(artifacts._writer, failures=1, after_writing=after_writing)
    assert artifacts.create("a", b"ours") is True
    artifacts._writer = Failing(artifacts._writer, failures=1, after_writing=after_writing)
    assert artifacts.create("a", b"other") is False
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    artifacts._writer = Failing(artifacts._writer, failures=1, after_writing=after_writing)
    assert artifacts.create_file("b", source) is True
    assert artifacts.get("a") == b"ours"


def test_a_store_that_goes_on_failing_is_given_up_after_few_tries(folder: Artifacts) -> None:
    folder._writer = writer = Failing(folder._writer, failures=1000, after_writing=False)
    with pytest.raises(ArtifactsUnavailable, match="connection reset"):
        folder.put("a", b"x")
    assert writer.failures > 900


def test_a_bucket_that_nobody_serves_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    nowhere = Artifacts.open("s3://farm/x?endpoint=http://127.0.0.1:9&region=us-east-1", patience_s=0.3)
    for use in (nowhere.get, nowhere.exists, nowhere.list, lambda key: nowhere.create(key, b"")):
        with pytest.raises(ArtifactsUnavailable):
            use("a")


def test_a_folder_that_has_gone_is_a_failing_store_and_not_an_empty_one(folder: Artifacts, tmp_path: Path) -> None:
    folder.put("a", b"x")
    (tmp_path / "artifacts").rename(tmp_path / "elsewhere")
    for use in (
        folder.get,
        folder.exists,
        folder.list,
        lambda key: folder.put(key, b""),
        lambda key: folder.delete([key]),
    ):
        with pytest.raises(ArtifactsUnavailable):
            use("a")
    assert not (tmp_path / "artifacts").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "artifacts")
    assert folder.get("a") == b"x"


def test_a_source_that_is_missing_is_no_failure_of_the_store(folder: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        folder.put_file("a", tmp_path / "nothing")


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """As on a disk that is full: writing more to a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_old_content_and_no_temporary_file(folder: Artifacts, tmp_path: Path) -> None:
    folder.put("a", b"old")
    with files_of_at_most(1 << 16), pytest.raises(ArtifactsUnavailable, match="File too large"):
        folder.put("a", bytes(1 << 20))
    assert folder.get("a") == b"old"
    assert files_in(tmp_path / "artifacts") == ["a"]


# -------------------------------------------------------------------------------------------- writers that die

WRITE_FOR_EVER = """
import itertools, sys
from serving.store.artifacts import Artifacts
artifacts = Artifacts.open(sys.argv[1])
for k in itertools.count():
    artifacts.put("same", bytes([k % 256]) * (2 << 20))
    artifacts.create(f"new/{k}", bytes([k % 256]) * (2 << 20))
    print(k, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.004, 0.011])
def test_a_writer_that_is_killed_leaves_whole_artifacts_and_what_a_sweep_removes(
    folder: Artifacts, tmp_path: Path, after_s: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path / "artifacts")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()

    for info in folder.list():
        content = folder.get(info.key)
        assert content == content[:1] * (2 << 20)
    folder.sweep_partials(now=time.time() + LOCK_S + 1)
    assert not any(name.startswith(PARTIALS) for name in files_in(tmp_path / "artifacts"))


def test_a_sweep_leaves_writes_to_a_bucket_that_may_still_be_going_on(s3_url: str) -> None:
    bucket = Artifacts.open(s3_url)
    bucket._write(f"{PARTIALS}/abandoned", b"x", create=True)
    bucket.put("a", b"x")
    now = time.time()
    assert bucket.sweep_partials(now=now + ABANDONED_PARTIALS_S - 100) == 0
    assert bucket.sweep_partials(now=now + ABANDONED_PARTIALS_S + 100) == 1
    assert [info.key for info in bucket.list()] == ["a"]
    assert bucket.partials() == []


def test_a_sweep_leaves_writes_to_a_folder_whose_writer_lives(folder: Artifacts, tmp_path: Path) -> None:
    partials = tmp_path / "artifacts" / PARTIALS
    partials.mkdir(exist_ok=True)
    later = time.time() + 10 * ABANDONED_PARTIALS_S
    with (partials / "going-on").open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert folder.sweep_partials(now=later) == 0
        assert [info.key for info in folder.partials()] == [f"{PARTIALS}/going-on"]
    assert folder.sweep_partials(now=time.time()) == 0, "its writer may not have come to lock it yet"
    assert folder.sweep_partials(now=later) == 1


def test_a_write_to_a_folder_is_on_the_disk_before_and_its_name_after_it_is_given(
    folder: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    link, sync_file, sync_folder = os.link, artifact_writers.sync_file, artifact_writers.sync_folder

    def record_link(source: Path, target: Path) -> None:
        events.append("named")
        link(source, target)

    def record_file(descriptor: int) -> None:
        events.append("content")
        sync_file(descriptor)

    def record_folder(path: Path) -> None:
        events.append(str(path.relative_to(tmp_path)))
        sync_folder(path)

    monkeypatch.setattr(os, "link", record_link)
    monkeypatch.setattr(artifact_writers, "sync_file", record_file)
    monkeypatch.setattr(artifact_writers, "sync_folder", record_folder)
    folder.create("takes/a/x", b"1")
    assert events == ["content", "named", "artifacts/takes/a", "artifacts/takes", "artifacts"]
