"""The copy of a server's objects, without a server: whatever way the news comes, it ends up right and says so once."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.kube.client import Listing
from cluster.kube.errors import Forbidden, Gone, KubeError, Unavailable
from cluster.kube.mirror import BACKOFF, Change, Mirror, backoff_s, decide_next, key_of
from testkit.json_object import Json


def thing(name: str, version: int, uid: str = "u") -> Json:
    return {"metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}}


def event(kind: str, about: Json) -> Json:
    return {"type": kind, "object": about}


def take(mirror: Mirror, kind: str, about: Json) -> list[Change]:
    return mirror.take(event(kind, about), what="watch things")


class History:
    """A server: every write gets a version; it can list, and replay what came after a version."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[str, Json] = {}
        self.events: list[tuple[int, Json]] = []

    def write(self, name: str, action: str) -> None:
        old = self.objects.get(name)
        if action == "delete" and old is None:
            return
        self.version += 1
        uid = old["metadata"]["uid"] if old is not None else f"u{self.version}"
        one = thing(name, self.version, uid)
        if action == "delete":
            del self.objects[name]
        else:
            self.objects[name] = one
        kind = "DELETED" if action == "delete" else "MODIFIED" if old is not None else "ADDED"
        self.events.append((self.version, event(kind, one)))

    def after(self, version: int) -> list[Json]:
        return [one for number, one in self.events if number > version]

    def listing(self) -> Listing:
        return Listing(tuple(self.objects.values()), str(self.version))


WRITES = st.tuples(st.just("write"), st.sampled_from("abc"), st.sampled_from(["put", "put", "delete"]))
NEWS = st.tuples(st.sampled_from(["list", "watch", "watch-some", "watch-again", "bookmark"]))


@given(st.lists(WRITES | NEWS, max_size=60))
def test_changes_tell_the_whole_story_and_no_part_twice(steps: list[tuple[str, ...]]) -> None:
    server, mirror = History(), Mirror()
    told: list[Change] = list(mirror.relist(server.listing()))
    for step in [*steps, ("watch",)]:
        at = int(mirror.version or 0)
        if step[0] == "write":
            server.write(step[1], step[2])
        elif step[0] == "list":
            told += mirror.relist(server.listing())
        elif step[0] == "bookmark" and not server.after(at):
            told += take(mirror, "BOOKMARK", {"metadata": {"resourceVersion": str(server.version)}})
        elif step[0].startswith("watch"):
            news = server.after(at)
            news = news[: len(news) // 2] if step[0] == "watch-some" else news
            twice = news[-1:] if step[0] == "watch-again" else []
            for one in [*news, *twice]:
                told += mirror.take(one, what="watch things")
    replayed: dict[Any, Json] = {}
    for change in told:
        key = key_of(change.object)
        before = replayed.get(key)
        if change.kind == "added":
            assert before is None
        else:
            assert before is not None
            assert before["metadata"]["uid"] == change.object["metadata"]["uid"]
            if change.kind == "modified":
                assert before["metadata"]["resourceVersion"] != change.object["metadata"]["resourceVersion"]
        replayed[key] = change.object
        if change.kind == "deleted":
            del replayed[key]
    assert replayed == dict(mirror.objects) == {key_of(one): one for one in server.objects.values()}


def test_an_object_that_was_made_anew_unseen_is_told_as_deleted_and_added() -> None:
    mirror = Mirror()
    mirror.relist(Listing((thing("a", 1, "old"),), "1"))
    changes = mirror.relist(Listing((thing("a", 5, "new"),), "5"))
    assert [(change.kind, change.object["metadata"]["uid"]) for change in changes] == [
        ("deleted", "old"),
        ("added", "new"),
    ]


def test_a_deleted_object_is_told_as_it_was_last() -> None:
    mirror = Mirror()
    mirror.relist(Listing((thing("a", 1),), "1"))
    assert take(mirror, "DELETED", thing("a", 3)) == [Change("deleted", thing("a", 3))]
    assert take(mirror, "DELETED", thing("a", 3)) == []
    assert mirror.version == "3"


def test_an_error_in_the_stream_is_an_error() -> None:
    mirror = Mirror()
    with pytest.raises(Gone, match="too old"):
        take(
            mirror, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        )
    with pytest.raises(Unavailable):
        take(mirror, "ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd"})


@pytest.mark.parametrize(
    "wrong", [{}, {"type": "ADDED"}, event("NEWS", thing("a", 1)), event("ADDED", {"metadata": {"name": "a"}})]
)
def test_what_is_no_event_is_an_error_and_changes_nothing(wrong: Json) -> None:
    mirror = Mirror()
    mirror.relist(Listing((), "7"))
    with pytest.raises(KubeError):
        mirror.take(wrong, what="watch things")
    assert (mirror.version, dict(mirror.objects)) == ("7", {})


# ------------------------------------------------------------------------------------------------ what next

RANDOM = st.builds(Random, st.integers())
ENDS = st.sampled_from([None, Gone("x"), Unavailable("x"), Unavailable("x", retry_after_s=7.0), Forbidden("x")])


@given(end=ENDS, worked=st.booleans(), failures=st.integers(0, 10_000), random=RANDOM)
def test_waits_are_bounded_and_no_shorter_than_the_server_asked(
    end: KubeError | None, worked: bool, failures: int, random: Random
) -> None:
    after = decide_next(end, worked=worked, failures=failures, random=random)
    asked_s = end.retry_after_s or 0.0 if isinstance(end, Unavailable) else 0.0
    assert asked_s <= after.pause_s <= max(BACKOFF.cap_s, asked_s)
    assert after.relist == (end is not None and not isinstance(end, Unavailable))


@given(ends=st.lists(ENDS, min_size=2, max_size=50), random=RANDOM)
def test_nothing_that_fails_again_and_again_is_tried_without_a_wait(
    ends: list[KubeError | None], random: Random
) -> None:
    random.uniform = lambda a, b: b  # type: ignore[method-assign]
    failures = 0
    for index, end in enumerate(ends):
        after = decide_next(end, worked=False, failures=failures, random=random)
        assert after.pause_s > 0 or index == 0
        failures = after.failures
    assert failures == len(ends)


@pytest.mark.parametrize("end", [None, Unavailable("cut")])
def test_a_watch_that_worked_goes_on_at_once_where_it_was(end: KubeError | None) -> None:
    after = decide_next(end, worked=True, failures=9, random=Random(0))
    assert (after.relist, after.pause_s, after.failures) == (False, 0.0, 0)


def test_a_version_that_is_gone_is_listed_anew_at_once() -> None:
    after = decide_next(Gone("x"), worked=False, failures=0, random=Random(0))
    assert (after.relist, after.pause_s) == (True, 0.0)


def test_waits_spread_over_the_whole_time_up_to_a_bound_that_doubles() -> None:
    random = Random(0)
    for failures, most_s in ((0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (10, BACKOFF.cap_s)):
        waits = [backoff_s(failures, random) for _ in range(500)]
        assert min(waits) < most_s * 0.05
        assert most_s * 0.95 < max(waits) <= most_s
