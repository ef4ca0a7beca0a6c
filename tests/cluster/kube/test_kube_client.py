"""The layer over the official client: what it says when all is well, and what it makes of everything that is not."""

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.kube.client import Kube, connect
from cluster.kube.errors import (
    MAX_RETRY_AFTER_S,
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NoCluster,
    NotFound,
    Unavailable,
    error_of,
)
from cluster.kube.events import EventRecorder, describe
from cluster.kube.resources import EVENTS, LEASES, NODES, PODS, Resource
from cluster.kube.stream import MAX_EVENT_BYTES, events_of
from testkit.json_object import Json
from tests.cluster.api_server import http
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import CONFIG_MAPS, NAMESPACES, TIME_LIMIT_S, WIDGETS, Ground, wait_for

pytest_plugins = ["tests.cluster.fixtures"]


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


# ------------------------------------------------------------------------------------------------ connecting


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="nowhere"):
        connect(kubeconfig=tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "[]", "{", "apiVersion: v1\nkind: Config\n", "just words"])
def test_a_kubeconfig_that_says_nothing_useful_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(NoCluster, match="broken"):
        connect(kubeconfig=path)


def test_without_any_cluster_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(NoCluster, match="no cluster around us and no kubeconfig"):
        connect()


def test_another_context_of_a_kubeconfig_can_be_asked_for(kube_server: KubeServer, tmp_path: Path) -> None:
    path = kube_server.kubeconfig(tmp_path / "config")
    config = yaml.safe_load(path.read_text())
    config["clusters"].append({"name": "other", "cluster": {"server": "http://127.0.0.1:1"}})
    config["contexts"].append({"name": "other", "context": {"cluster": "other", "user": "test"}})
    path.write_text(yaml.safe_dump(config))
    assert connect(kubeconfig=path).server_version()
    with pytest.raises(Unavailable):
        connect(kubeconfig=path, context="other").server_version()
    with pytest.raises(NoCluster, match="third"):
        connect(kubeconfig=path, context="third")


@pytest.mark.parametrize("kube_server", [True], ids=["tls"], indirect=True)
def test_a_server_is_trusted_by_the_certificate_in_the_kubeconfig_alone(
    kube_server: KubeServer, kube: Kube, tmp_path: Path
) -> None:
    assert kube.server_version()
    path = kube_server.kubeconfig(tmp_path / "trusting")
    config = yaml.safe_load(path.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        connect(kubeconfig=path).server_version()


def test_the_token_of_the_kubeconfig_is_shown(kube_server: KubeServer, kube: Kube, tmp_path: Path) -> None:
    kube_server.needs_token = True
    assert kube.list_all(NODES).items == ()
    path = kube_server.kubeconfig(tmp_path / "nobody")
    config = yaml.safe_load(path.read_text())
    config["users"][0]["user"] = {}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(Forbidden) as refused:
        connect(kubeconfig=path).list_all(NODES)
    assert refused.value.status == 401


def test_inside_a_cluster_its_own_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, inside = KubeServer(tls=True), "kubernetes.config.incluster_config"
    with server:
        server.needs_token = True
        config = yaml.safe_load(server.kubeconfig(tmp_path / "config").read_text())
        authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
        (tmp_path / "token").write_text(config["users"][0]["user"]["token"])
        monkeypatch.setattr(f"{inside}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
        monkeypatch.setattr(f"{inside}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        assert connect().list_all(NODES).items == ()


# ------------------------------------------------------------------------------------------------ failing


def test_an_answer_that_asks_for_patience_says_how_much(kube_server: KubeServer, kube: Kube) -> None:
    kube_server.refuse("GET .*configmaps", code=429, retry_after_s=3)
    with pytest.raises(Unavailable) as refused:
        kube.list_all(CONFIG_MAPS, namespace="default")
    assert (refused.value.status, refused.value.retry_after_s) == (429, 3.0)
    asked = sum(one.path.endswith("configmaps") for one in kube_server.asked)
    assert asked == 1, "the client slept through Retry-After by itself"


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_failing_server_is_unavailable_and_not_asked_twice(kube_server: KubeServer, kube: Kube, code: int) -> None:
    kube_server.refuse("GET .*configmaps", code=code, times=5)
    with pytest.raises(Unavailable) as refused:
        kube.get(CONFIG_MAPS, "a", namespace="default")
    assert (refused.value.status, kube_server.faults.left) == (code, 4)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_no_request_waits_longer_than_its_timeout(kube_server: KubeServer, kube: Kube, method: str) -> None:
    kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", **config_map("a")})
    kube_server.hang(f"{method} .*configmaps")
    hasty = kube.within(0.2)
    calls: dict[str, Callable[[], object]] = {
        "GET": lambda: hasty.get(CONFIG_MAPS, "a", namespace="default"),
        "POST": lambda: hasty.create(CONFIG_MAPS, config_map("b")),
        "PATCH": lambda: hasty.apply(CONFIG_MAPS, config_map("a")),
        "DELETE": lambda: hasty.delete(CONFIG_MAPS, "a", namespace="default"),
    }
    with pytest.raises(Unavailable, match="timed out"):
        calls[method]()
    assert kube_server.get("configmaps", "a", namespace="default") is not None


def test_a_lost_answer_is_unavailable_though_the_write_was_done(kube_server: KubeServer, kube: Kube) -> None:
    kube_server.lose_answer("POST .*configmaps")
    with pytest.raises(Unavailable):
        kube.create(CONFIG_MAPS, config_map("a"))
    assert kube_server.get("configmaps", "a", namespace="default") is not None
    with pytest.raises(AlreadyExists):
        kube.create(CONFIG_MAPS, config_map("a"))


def test_a_server_that_is_down_is_unavailable_until_it_is_back(kube_server: KubeServer, kube: Kube) -> None:
    kube.create(CONFIG_MAPS, config_map("a"))
    kube_server.stop()
    with pytest.raises(Unavailable):
        kube.get(CONFIG_MAPS, "a", namespace="default")
    kube_server.start()
    assert kube.get(CONFIG_MAPS, "a", namespace="default")["metadata"]["name"] == "a"


def test_what_is_not_allowed_is_forbidden_and_said_beforehand(kube_server: KubeServer, kube: Kube) -> None:
    kube_server.deny("patch", "widgets/status")
    access = kube.may("patch", WIDGETS, namespace="default", subresource="status")
    assert (access.allowed, access.reason) == (False, "denied by the test")
    assert kube.may("get", WIDGETS, namespace="default").allowed
    with pytest.raises(Forbidden):
        kube.patch_status(WIDGETS, "a", {"size": 1}, namespace="default")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (415, "UnsupportedMediaType", Invalid),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
def test_every_status_has_its_error(status: int, reason: str, kind: type[KubeError]) -> None:
    body = json.dumps({"kind": "Status", "reason": reason, "message": "it said so"})
    error = error_of(status, body, {}, what="GET /x")
    assert type(error) is kind
    assert (error.status, error.reason) == (status, reason)
    assert str(error) == f"GET /x: it said so ({status} {reason})"


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=200) | st.from_type(dict).map(str) | st.sampled_from(["[]", "null", '"x"', "{}", "1"]),
    retry=st.none() | st.text(max_size=10) | st.integers(-5, 10**9).map(str),
)
def test_any_answer_becomes_an_error_with_a_message(status: int, body: bytes | str, retry: str | None) -> None:
    error = error_of(status, body, {} if retry is None else {"Retry-After": retry}, what="GET /x")
    assert str(error).startswith("GET /x: ")
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        assert 0 <= error.retry_after_s <= MAX_RETRY_AFTER_S


def test_a_proxy_that_answers_in_its_own_words_is_quoted() -> None:
    error = error_of(502, b"<html>Bad Gateway</html>", {}, what="GET /x")
    assert str(error) == "GET /x: <html>Bad Gateway</html> (502)"


# ------------------------------------------------------------------------------------------------ asking


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert CONFIG_MAPS.path(namespace="a/b", name="../x y") == "/api/v1/namespaces/a%2Fb/configmaps/..%2Fx%20y"
    assert NODES.path(namespace="ignored", name="n") == "/api/v1/nodes/n"
    assert LEASES.path(name="l", namespace="n", subresource="status").endswith("/namespaces/n/leases/l/status")
    with pytest.raises(AssertionError):
        CONFIG_MAPS.path(namespace="n", name="")


def test_a_long_list_comes_whole_in_pages(kube_server: KubeServer, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(25):
        kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", **config_map(f"c{index:02}")})
    monkeypatch.setattr("cluster.kube.client.PAGE_SIZE", 10)
    listing = kube.list_all(CONFIG_MAPS, namespace="default")
    assert [one["metadata"]["name"] for one in listing.items] == [f"c{index:02}" for index in range(25)]
    assert listing.version == str(kube_server.store.version)
    assert sum(one.path.endswith("configmaps") for one in kube_server.asked) == 3


def test_a_list_whose_moment_is_forgotten_between_two_pages_is_gone(
    kube_server: KubeServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", **config_map(name)})
    monkeypatch.setattr("cluster.kube.client.PAGE_SIZE", 1)
    kube_server.delay("GET .*continue=", 0.3)
    failed: list[type] = []

    def list_slowly() -> None:
        try:
            kube.list_all(CONFIG_MAPS, namespace="default")
        except KubeError as error:
            failed.append(type(error))

    asking = threading.Thread(target=list_slowly)
    asking.start()
    wait_for(lambda: kube_server.faults.left == 0)
    kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", **config_map("d")})
    kube_server.expire()
    asking.join()
    assert failed == [Gone]


def test_every_write_says_who_we_are(kube_server: KubeServer, kube: Kube) -> None:
    kube.create(CONFIG_MAPS, config_map("a", x="1"))
    kube.apply(CONFIG_MAPS, config_map("a", x="1"))
    stored = kube.patch(CONFIG_MAPS, "a", {"data": {"y": "1"}}, namespace="default")
    assert {entry["manager"] for entry in stored["metadata"]["managedFields"]} == {"longtake-controller"}


def test_a_silent_stream_is_given_up(kube_server: KubeServer, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the other end vanishes without a word: the server never ends the watch that it promised to end."""
    monkeypatch.setattr("cluster.kube.client.STREAM_GRACE_S", 0.2)
    given_up = threading.Event()

    def wait_in_vain(*_: object) -> list[object]:
        given_up.wait(TIME_LIMIT_S)
        return []

    monkeypatch.setattr(http.Watch, "_wait", wait_in_vain)
    stream = kube.watch(CONFIG_MAPS, since=str(kube_server.store.version), watch_s=1.0)
    with pytest.raises(Unavailable, match="timed out"):
        list(stream)
    given_up.set()


def test_a_stream_that_was_closed_ends_quietly(kube_server: KubeServer, kube: Kube) -> None:
    stream = kube.watch(CONFIG_MAPS, since=str(kube_server.store.version), watch_s=60.0)
    ended: list[bool] = []
    reader = threading.Thread(target=lambda: ended.append(list(stream) is not None))
    reader.start()
    wait_for(lambda: kube_server.watches == 1)
    stream.close()
    reader.join(10.0)
    assert ended == [True]
    never_read = kube.watch(CONFIG_MAPS, since=str(kube_server.store.version), watch_s=60.0)
    never_read.close()
    assert list(never_read) == []


EVENT = st.fixed_dictionaries(
    {"type": st.text(max_size=5), "object": st.dictionaries(st.text(max_size=3), st.integers())}
)


@given(events=st.lists(EVENT, max_size=8), cuts=st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_events_are_the_same_however_the_stream_is_cut(events: list[Json], cuts: list[int]) -> None:
    whole = b"".join(json.dumps(event).encode() + b"\n" for event in events) + b'{"type": "cut off'
    pieces: list[bytes] = []
    place = 0
    while place < len(whole):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(whole[place : place + size])
        place += size
    assert list(events_of(pieces)) == events


@pytest.mark.parametrize("wrong", [b"[]\n", b"{\n", b"\xff\n"])
def test_what_is_no_event_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(events_of([wrong]))


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    piece = b"x" * 1024 * 1024
    taken = []

    def endless() -> Any:
        while True:
            taken.append(len(piece))
            yield piece

    with pytest.raises(ValueError, match="an event of more than"):
        list(events_of(endless()))
    assert sum(taken) <= MAX_EVENT_BYTES + len(piece)


# ------------------------------------------------------------------------------------------------ events


def recorder(kube: Kube) -> EventRecorder:
    return EventRecorder(kube, instance="pod-1")


def events(kube: Kube, namespace: str) -> list[Json]:
    found = kube.list_all(EVENTS, namespace=namespace, field_selector="reason=Drained").items
    return sorted(found, key=lambda one: one["message"])


def test_an_event_that_happens_again_is_counted(ground: Ground) -> None:
    widget, writer = ground.make_widget("a"), recorder(ground.kube)
    for now in (1000.0, 1060.0, 1120.0):
        assert writer.record(widget, reason="Drained", message="it was emptied", now=now)
    assert writer.record(widget, reason="Drained", message="or so", now=1200.0, kind="Warning")
    first, second = events(ground.kube, ground.namespace)
    assert (first["count"], first["firstTimestamp"], first["lastTimestamp"]) == (
        3,
        "1970-01-01T00:16:40Z",
        "1970-01-01T00:18:40Z",
    )
    assert (second["count"], second["type"], second["involvedObject"]["uid"]) == (
        1,
        "Warning",
        widget["metadata"]["uid"],
    )
    assert first["source"] == {"component": "longtake-controller"}


def test_two_recorders_that_count_at_once_lose_nothing(ground: Ground) -> None:
    widget = ground.make_widget("a")
    writers = [
        threading.Thread(
            target=recorder(ground.kube).record,
            args=(widget,),
            kwargs={"reason": "Drained", "message": "x", "now": 0.0},
        )
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [one["count"] for one in events(ground.kube, ground.namespace)] == [3]


def test_an_event_about_a_node_stands_in_the_default_namespace(kube_server: KubeServer, kube: Kube) -> None:
    node = kube_server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    assert recorder(kube).record(node, reason="Drained", message="m", now=0.0)
    (event,) = events(kube, "default")
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"]}


def test_an_event_that_cannot_be_written_stops_nothing(
    kube_server: KubeServer, kube: Kube, caplog: pytest.LogCaptureFixture
) -> None:
    node = kube_server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    kube_server.deny("create", "events")
    assert not recorder(kube).record(node, reason="Drained", message="m", now=0.0)
    assert "an event was not written" in caplog.text


@given(
    name=st.from_regex(r"[a-z0-9]{1,253}", fullmatch=True), reason=st.text(max_size=300), message=st.text(max_size=3000)
)
def test_whatever_an_event_says_the_server_takes_it(name: str, reason: str, message: str) -> None:
    about = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": "u"}}
    event = describe(about, reason=reason, message=message, kind="Normal", now=0.0)
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["reason"]) <= 128
    assert len(event["message"]) <= 1024


# ------------------------------------------------------------------------------------------------ pods and others


def test_a_pod_is_read_with_what_its_kubelet_says(kube_server: KubeServer, kube: Kube) -> None:
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    kube_server.put({"apiVersion": "v1", "kind": "Pod", **pod, "status": {"phase": "Running", "podIP": "10.0.0.7"}})
    (found,) = kube.list_all(PODS, field_selector="status.podIP=10.0.0.7").items
    assert found["status"]["phase"] == "Running"


def test_the_version_of_a_kind_is_part_of_whether_it_is_served(kube: Kube) -> None:
    assert kube.serves(WIDGETS)
    assert not kube.serves(Resource("test.longtake.dev", "v2", "widgets", "Widget"))
    assert kube.serves(NAMESPACES)
