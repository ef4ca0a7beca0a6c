"""An informer against a server that does everything to make it miss something."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cluster.kube.client import Kube, connect
from cluster.kube.errors import NotFound
from cluster.kube.informer import Informer, OnChange
from cluster.kube.mirror import ChangeKind, Key, key_of
from cluster.kube.resources import NODES, Resource
from testkit.json_object import Json
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import CONFIG_MAPS, TIME_LIMIT_S, WIDGETS, Ground, wait_for

pytest_plugins = ["tests.cluster.fixtures"]


WITH_TLS_TOO = pytest.mark.parametrize("kube_server", [False, True], ids=["plain", "tls"], indirect=True)


class Hasty(Random):
    """Waits no longer than it must."""

    def uniform(self, a: float, b: float) -> float:
        return min(b, a + 0.01)


class Journal:
    """What an informer told, checked as it comes: each change fits what was told before."""

    def __init__(self) -> None:
        self.told: list[tuple[ChangeKind, Key, str]] = []
        self.objects: dict[Key, Json] = {}
        self.wrong: list[str] = []

    def __call__(self, kind: ChangeKind, one: Json) -> None:
        key, version = key_of(one), one["metadata"]["resourceVersion"]
        before = self.objects.get(key)
        known = None if before is None else before["metadata"]["resourceVersion"]
        fits = known is None if kind == "added" else known is not None
        if not fits or (kind == "modified" and known == version):
            self.wrong.append(f"{kind} {key} {version} after {known}")
        self.told.append((kind, key, version))
        self.objects[key] = one
        if kind == "deleted":
            del self.objects[key]

    def versions_of(self, name: str) -> list[tuple[ChangeKind, str]]:
        return [(kind, version) for kind, key, version in self.told if key[1] == name]


Watch = Callable[..., Informer]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Starts informers, of ConfigMaps in the default namespace unless told otherwise, and stops them in the end."""
    started: list[Informer] = []

    def start(kube: Kube, listen: OnChange, resource: Resource = CONFIG_MAPS, **more: Any) -> Informer:
        how: dict[str, Any] = {"namespace": "default", "watch_s": 1.0, "random": Hasty()} | more
        started.append(Informer(kube, resource, listen, **how))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
    assert all(one.join(TIME_LIMIT_S) for one in started)


def config_map(name: str, namespace: str = "default", **data: str) -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def change_at_random(kube: Kube, random: Random, number: int) -> None:
    """One write to one of a few objects, over a connection that nothing befalls."""
    name = random.choice("abcdefgh")
    if random.random() < 0.3:
        with contextlib.suppress(NotFound):
            kube.delete(CONFIG_MAPS, name, namespace="default")
    else:
        kube.apply(CONFIG_MAPS, config_map(name, number=str(number)))


def misbehave(server: KubeServer, random: Random) -> None:
    """Something that happens to a server, or to a connection to it."""
    what = random.randrange(9)
    if what == 0:
        server.drop_watches()
    elif what == 1:
        server.expire()
    elif what == 2:
        server.expire()
        server.drop_watches()
    elif what == 3:
        server.refuse("GET .*configmaps", times=random.randint(1, 3), code=random.choice([500, 503, 504]))
    elif what == 4:
        server.refuse("GET .*configmaps", code=429, retry_after_s=0)
    elif what == 5:
        server.lose_answer("GET .*configmaps", times=2)
        server.drop_watches()
    elif what == 6:
        server.lose_request("GET .*configmaps", times=2)
    elif what == 7:
        server.restart()
    else:
        server.refuse("GET .*watch=true", code=410)


@pytest.mark.parametrize("seed", range(6))
def test_the_map_equals_the_server_when_the_dust_settles(
    watch: Watch, kube_server: KubeServer, tmp_path: Path, seed: int
) -> None:
    random, journal = Random(seed), Journal()
    kube_server.gone_in_stream = seed % 2 == 0
    with kube_server.beside() as beside:
        writer = connect(kubeconfig=beside.kubeconfig(tmp_path / "writer"))
        watched = watch(connect(kubeconfig=kube_server.kubeconfig(tmp_path / "reader")).within(5.0), journal)
        for number in range(300):
            change_at_random(writer, random, number)
            if random.random() < 0.1:
                misbehave(kube_server, random)
        kube_server.faults.clear()
        writer.apply(CONFIG_MAPS, config_map("last"))
        wait_for(lambda: watched.get("last", namespace="default"))
        assert watched.objects() == {
            key_of(one): one for one in writer.list_all(CONFIG_MAPS, namespace="default").items
        }
        watched.stop()
        assert watched.join(TIME_LIMIT_S)
        assert journal.wrong == []
        assert journal.objects == watched.objects()


@WITH_TLS_TOO
def test_every_change_is_told_once_and_in_order_while_connections_break(
    watch: Watch, kube_server: KubeServer, kube: Kube, tmp_path: Path
) -> None:
    """Without expired versions nothing may be left out, however often the watch is cut."""
    journal = Journal()
    watched = watch(kube, journal)
    wait_for(lambda: watched.synced)
    wanted: list[tuple[str, str]] = []
    with kube_server.beside() as beside:
        writer = connect(kubeconfig=beside.kubeconfig(tmp_path / "writer"))
        for number in range(200):
            one = writer.apply(CONFIG_MAPS, config_map("a", number=str(number)))
            wanted.append(("modified" if wanted else "added", one["metadata"]["resourceVersion"]))
            if number % 7 == 0:
                kube_server.drop_watches()
    wait_for(lambda: len(journal.told) >= len(wanted))
    watched.stop()
    assert journal.versions_of("a") == wanted
    assert journal.wrong == []


def test_what_is_there_comes_first_and_then_what_happens(watch: Watch, ground: Ground) -> None:
    journal = Journal()
    ground.make_widget("a")
    watched = watch(ground.kube, journal, WIDGETS, namespace=ground.namespace)
    wait_for(lambda: watched.synced)
    assert watched.get("a", namespace=ground.namespace) is not None
    ground.patch_widget("a", {"spec": {"size": 1}})
    ground.make_widget("b")
    ground.kube.delete(WIDGETS, "a", namespace=ground.namespace)
    wait_for(lambda: len(journal.told) == 4)
    assert [(kind, key[1]) for kind, key, _ in journal.told] == [
        ("added", "a"),
        ("modified", "a"),
        ("added", "b"),
        ("deleted", "a"),
    ]
    silent_s = watched.silent_s()
    assert silent_s is not None
    watched.stop()
    assert watched.join(TIME_LIMIT_S)


def test_objects_that_a_selector_does_not_choose_any_more_are_gone(watch: Watch, ground: Ground) -> None:
    journal = Journal()
    watched = watch(ground.kube, journal, WIDGETS, namespace=ground.namespace, label_selector="x=1")
    ground.make_widget("a")
    for labels in ({"x": "1"}, {"x": "2"}):
        ground.patch_widget("a", {"metadata": {"labels": labels}})
    wait_for(lambda: len(journal.told) == 2)
    assert [kind for kind, _, _ in journal.told] == ["added", "deleted"]
    watched.stop()


def test_a_kind_without_namespaces_is_watched_as_well(watch: Watch, kube_server: KubeServer, kube: Kube) -> None:
    journal = Journal()
    watched = watch(kube, journal, NODES, namespace=None)
    kube_server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    wait_for(lambda: watched.get("n1"))
    watched.stop()


def test_a_watch_goes_on_from_where_it_was_without_listing_again(
    watch: Watch, kube_server: KubeServer, kube: Kube
) -> None:
    watched = watch(kube, Journal())
    for _ in range(3):
        wait_for(lambda: kube_server.watches == 1)
        kube_server.drop_watches()
        wait_for(lambda: kube_server.watches == 1)
    watched.stop()
    asked = [one for one in kube_server.asked if one.path.endswith("/configmaps")]
    assert sum("watch" not in one.query for one in asked) == 1


def test_bookmarks_keep_a_quiet_watch_from_expiring(watch: Watch, kube_server: KubeServer, kube: Kube) -> None:
    """Of another kind there is much news, of this one none; then all versions but the newest are forgotten."""
    watched = watch(kube, Journal(), watch_s=60.0)
    wait_for(lambda: watched.synced)
    for index in range(20):
        kube_server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{index}"}})
    newest = str(kube_server.store.version)
    wait_for(lambda: watched._mirror.version == newest)
    kube_server.expire()
    kube_server.drop_watches()
    wait_for(lambda: kube_server.watches == 1)
    watched.stop()
    assert sum("watch" not in one.query for one in kube_server.asked if one.path.endswith("/configmaps")) == 1


@WITH_TLS_TOO
def test_an_idle_watch_stops_at_once(watch: Watch, kube_server: KubeServer, kube: Kube) -> None:
    watched = watch(kube, Journal(), watch_s=300.0)
    wait_for(lambda: kube_server.watches == 1)
    watched.stop()
    assert watched.join(TIME_LIMIT_S), "it waits for the end of the watch, 300 s"


def test_nothing_is_told_after_stop_though_a_list_is_still_on_its_way(
    watch: Watch, kube_server: KubeServer, kube: Kube
) -> None:
    kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    kube_server.delay("GET .*configmaps", 0.5)
    journal = Journal()
    watched = watch(kube, journal)
    wait_for(lambda: kube_server.faults.left == 0)
    watched.stop()
    assert watched.join(TIME_LIMIT_S)
    assert journal.told == []


def test_a_listener_may_stop_its_watch(watch: Watch, kube_server: KubeServer, kube: Kube) -> None:
    for name in "ab":
        kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    told: list[str] = []
    started: queue.SimpleQueue[Informer] = queue.SimpleQueue()

    def listen(kind: ChangeKind, one: Json) -> None:
        told.append(one["metadata"]["name"])
        started.get(timeout=TIME_LIMIT_S).stop()  # it may be told before the test knows what it has started

    watched = watch(kube, listen)
    started.put(watched)
    assert watched.join(TIME_LIMIT_S)
    assert len(told) == 1


def test_a_listener_that_fails_misses_nothing_else(
    watch: Watch, kube_server: KubeServer, kube: Kube, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def listen(kind: ChangeKind, one: Json) -> None:
        told.append(one["metadata"]["name"])
        raise RuntimeError("a bug of the listener")

    watched = watch(kube, listen)
    for name in "abc":
        kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    wait_for(lambda: len(told) == 3)
    watched.stop()
    assert "a bug of the listener" in caplog.text


def test_a_kind_that_is_not_there_yet_is_watched_when_it_comes(
    watch: Watch, kube_server: KubeServer, kube: Kube
) -> None:
    later = Resource("later.longtake.dev", "v1", "laters", "Later")
    journal = Journal()
    watched = watch(kube, journal, later)
    wait_for(lambda: sum("laters" in one.path for one in kube_server.asked) > 2)
    assert not watched.synced
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Later", "listKind": "LaterList", "plural": "laters", "singular": "later"}
    spec = {"group": "later.longtake.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
    kube_server.put({**crd, "metadata": {"name": "laters.later.longtake.dev"}})
    kube.create(later, {"metadata": {"name": "a", "namespace": "default"}})
    wait_for(lambda: watched.get("a", namespace="default"))
    watched.stop()


def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause(
    watch: Watch, kube_server: KubeServer, kube: Kube
) -> None:
    """As a broken proxy may do it. The waits grow; here they are counted, not waited for."""
    waits: list[float] = []

    class Counting(Hasty):
        def uniform(self, a: float, b: float) -> float:
            waits.append(b)
            return 0.0

    kube_server.end_watch("GET .*watch=true", times=8)
    watched = watch(kube, Journal(), random=Counting())
    wait_for(lambda: len(waits) >= 6)
    watched.stop()
    assert waits[:6] == sorted(waits[:6])
    assert waits[5] > 4 * waits[0]


def test_many_informers_share_one_connection_pool(watch: Watch, kube_server: KubeServer, kube: Kube) -> None:
    informers = [watch(kube, Journal(), watch_s=30.0) for _ in range(20)]
    wait_for(lambda: kube_server.watches == 20)
    threads = threading.active_count()
    for one in informers:
        one.stop()
    assert all(one.join(TIME_LIMIT_S) for one in informers)
    assert threading.active_count() < threads
