"""What a controller relies on of an API server: true of the fake one, and of a real one if there is one."""

import threading
from typing import Any

import pytest

from cluster.kube.client import Kube
from cluster.kube.errors import AlreadyExists, Conflict, Gone, Invalid, KubeError, NotFound, Unavailable
from cluster.kube.resources import CRDS, EVENTS, LEASES, NODES, PODS, Resource
from testkit.json_object import Json
from tests.cluster.clusters import CONFIG_MAPS, NAMESPACES, WIDGET_CRD, WIDGETS, Ground, is_gone, wait_for, write_scale

pytest_plugins = ["tests.cluster.fixtures"]


def events_of(ground: Ground, since: str, number: int, **selectors: str) -> list[tuple[str, str]]:
    """The first events of a watch, bookmarks left out: type and name."""
    found: list[tuple[str, str]] = []
    stream = ground.kube.watch(WIDGETS, since=since, watch_s=20, namespace=ground.namespace, **selectors)
    for event in stream:
        if event["type"] != "BOOKMARK":
            found.append((event["type"], event["object"]["metadata"]["name"]))
        if len(found) == number:
            stream.close()
    return found


def version_of(ground: Ground) -> str:
    return ground.kube.list_all(WIDGETS, namespace=ground.namespace).version


# ------------------------------------------------------------------------------------------------ writing


def test_a_new_object_gets_what_the_server_alone_gives(ground: Ground) -> None:
    meta = ground.make_widget("a")["metadata"]
    assert meta["uid"]
    assert meta["creationTimestamp"]
    assert meta["resourceVersion"].isdigit()
    assert meta["generation"] == 1


def test_what_is_there_cannot_be_created(ground: Ground) -> None:
    ground.make_widget("a")
    with pytest.raises(AlreadyExists):
        ground.make_widget("a")


def test_a_name_is_made_up_where_a_prefix_is_given(ground: Ground) -> None:
    body = {"metadata": {"generateName": "a-", "namespace": ground.namespace}}
    names = {ground.kube.create(CONFIG_MAPS, body)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("a-") for name in names)


def test_nothing_is_created_in_a_namespace_that_is_not_there(ground: Ground) -> None:
    with pytest.raises(NotFound, match="namespaces"):
        ground.kube.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "longtake-nowhere"}})


def test_an_object_that_moved_on_is_not_replaced(ground: Ground) -> None:
    old = ground.make_widget("a")
    ground.patch_widget("a", {"metadata": {"labels": {"x": "1"}}})
    with pytest.raises(Conflict):
        ground.kube.replace(WIDGETS, old)


def test_a_patch_that_names_an_old_version_changes_nothing(ground: Ground) -> None:
    old = ground.make_widget("a", size=1)["metadata"]["resourceVersion"]
    ground.patch_widget("a", {"spec": {"size": 2}})
    with pytest.raises(Conflict):
        ground.patch_widget("a", {"metadata": {"resourceVersion": old}, "spec": {"size": 3}})
    assert ground.get_widget("a")["spec"]["size"] == 2


def test_a_custom_resource_is_not_replaced_without_a_version(ground: Ground) -> None:
    body = ground.make_widget("a")
    del body["metadata"]["resourceVersion"]
    with pytest.raises(Invalid, match="must be specified for an update"):
        ground.kube.replace(WIDGETS, body)


def test_a_write_that_changes_nothing_makes_no_new_version(ground: Ground) -> None:
    first = ground.make_widget("a", size=1)
    assert ground.patch_widget("a", {"spec": {"size": 1}}) == first
    assert ground.kube.replace(WIDGETS, first)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_json_patch_reaches_into_lists_and_tests(ground: Ground) -> None:
    ground.make_widget("a", tags=["x", "y"])
    change = [
        {"op": "replace", "path": "/spec/tags/0", "value": "z"},
        {"op": "add", "path": "/spec/tags/-", "value": "w"},
    ]
    assert ground.patch_widget("a", change, kind="json")["spec"]["tags"] == ["z", "y", "w"]
    wrong = [{"op": "test", "path": "/spec/tags/0", "value": "x"}, {"op": "remove", "path": "/spec/tags/0"}]
    with pytest.raises(Invalid):
        ground.patch_widget("a", wrong, kind="json")
    assert ground.get_widget("a")["spec"]["tags"] == ["z", "y", "w"]


def test_a_merge_patch_replaces_lists_and_removes_by_null(ground: Ground) -> None:
    ground.make_widget("a", tags=["x", "y"], size=1)
    spec = ground.patch_widget("a", {"spec": {"tags": ["z"], "size": None}})["spec"]
    assert spec["tags"] == ["z"]
    assert "size" not in spec


def test_custom_resources_have_no_strategic_merge(ground: Ground) -> None:
    ground.make_widget("a")
    with pytest.raises(Invalid) as refused:
        ground.patch_widget("a", {"spec": {"size": 1}}, kind="strategic")
    assert refused.value.status == 415


def test_a_strategic_merge_of_a_pod_knows_its_containers_by_name(ground: Ground) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": ground.namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    ground.kube.create(PODS, pod)
    change = {"spec": {"containers": [{"name": "c", "image": "j"}]}}
    spec = ground.kube.patch(PODS, "p", change, namespace=ground.namespace, kind="strategic")["spec"]
    assert [(one["name"], one["image"]) for one in spec["containers"]] == [("c", "j")]


def test_a_dry_run_answers_and_stores_nothing(ground: Ground) -> None:
    answer = ground.kube.create(WIDGETS, ground.widget("a"), dry_run=True)
    assert answer["spec"]["most"] == 10
    assert is_gone(ground.kube, WIDGETS, "a", namespace=ground.namespace)
    ground.kube.apply(WIDGETS, ground.widget("b"), dry_run=True)
    assert is_gone(ground.kube, WIDGETS, "b", namespace=ground.namespace)


def test_of_racing_writers_of_a_lease_exactly_one_wins(ground: Ground) -> None:
    body = {
        "metadata": {"name": "l", "namespace": ground.namespace},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 15},
    }
    lease, won = ground.kube.create(LEASES, body), []

    def race(who: str) -> None:
        try:
            ground.kube.replace(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": who}})
            won.append(who)
        except Conflict:
            pass

    racers = [threading.Thread(target=race, args=(f"r{index}",)) for index in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    holder = ground.kube.get(LEASES, "l", namespace=ground.namespace)["spec"]["holderIdentity"]
    assert won == [holder]


@pytest.mark.parametrize("duration", [0, -1])
def test_a_lease_lasts_longer_than_no_time(ground: Ground, duration: int) -> None:
    body = {"metadata": {"name": "l", "namespace": ground.namespace}, "spec": {"leaseDurationSeconds": duration}}
    with pytest.raises(Invalid, match="must be greater than 0"):
        ground.kube.create(LEASES, body)


# ------------------------------------------------------------------------------------------------ schema


def test_unknown_fields_are_pruned_and_defaults_set(ground: Ground) -> None:
    spec = ground.make_widget("a", typo=1)["spec"]
    assert spec == {"model": "wan", "most": 10, "mode": "a"}


def test_nulls_are_dropped_where_they_are_not_allowed(ground: Ground) -> None:
    spec = ground.make_widget("a", size=None, note=None, mode=None)["spec"]
    assert spec == {"model": "wan", "most": 10, "mode": "a", "note": None}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"size": "x"}, "spec.size"),
        ({"size": -1}, "spec.size"),
        ({"mode": "c"}, "spec.mode"),
        ({"model": ""}, "spec.model"),
        ({"model": None}, "spec.model"),
        ({"tags": "x"}, "spec.tags"),
        ({"parts": [{"count": 1}]}, r"spec.parts\[0\].name"),
        ({"parts": [{"name": "p"}, {"name": "p"}]}, r"spec.parts\[1\]"),
        ({"size": 11}, "size must be at most most"),
    ],
)
def test_what_the_schema_forbids_is_refused(ground: Ground, spec: Json, where: str) -> None:
    with pytest.raises(Invalid, match=where) as refused:
        ground.make_widget("a", **spec)
    assert refused.value.status == 422


def test_a_transition_rule_holds_between_versions_only(ground: Ground) -> None:
    ground.make_widget("a", model="wan")
    with pytest.raises(Invalid, match="model never changes"):
        ground.patch_widget("a", {"spec": {"model": "other"}})
    assert ground.patch_widget("a", {"spec": {"size": 3}})["spec"]["size"] == 3


def broken_crd(**changes: Any) -> Json:
    version = {**WIDGET_CRD["spec"]["versions"][0], **changes}
    names = {"kind": "Broken", "listKind": "BrokenList", "plural": "brokens", "singular": "broken"}
    spec = {**WIDGET_CRD["spec"], "names": names, "versions": [version]}
    return {"metadata": {"name": "brokens.test.longtake.dev"}, "spec": spec}


def schema_with(spec: Json) -> Json:
    return {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", **spec}}}}


@pytest.mark.parametrize(
    "crd",
    [
        broken_crd(schema=None),
        broken_crd(storage=False),
        broken_crd(schema=schema_with({"properties": {"a": {}}})),
        broken_crd(schema=schema_with({"properties": {"a": {"type": "string"}}, "additionalProperties": False})),
        broken_crd(schema=schema_with({"x-kubernetes-validations": [{"rule": "self.a <", "message": "m"}]})),
        broken_crd(subresources={"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ".status.y"}}),
        {**broken_crd(), "metadata": {"name": "others.test.longtake.dev"}},
    ],
    ids=["no-schema", "not-stored", "no-type", "closed", "broken-rule", "scale-elsewhere", "wrong-name"],
)
def test_a_crd_that_is_wrong_is_refused(ground: Ground, crd: Json) -> None:
    with pytest.raises(Invalid):
        ground.kube.create(CRDS, crd)
    assert is_gone(ground.kube, CRDS, crd["metadata"]["name"])


def test_a_crd_says_when_it_is_served(ground: Ground) -> None:
    crd = ground.kube.get(CRDS, "widgets.test.longtake.dev")
    conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert crd["status"]["storedVersions"] == ["v1"]


def test_an_unknown_kind_is_not_found(ground: Ground) -> None:
    nothing = Resource("test.longtake.dev", "v1", "nothings", "Nothing")
    with pytest.raises(NotFound):
        ground.kube.list_all(nothing, namespace=ground.namespace)
    assert not ground.kube.serves(nothing)
    assert not ground.kube.serves(Resource("nobody.longtake.dev", "v1", "nothings", "Nothing"))
    assert ground.kube.serves(NODES)


# ------------------------------------------------------------------------------------------------ subresources


def test_generations_count_changes_of_the_spec(ground: Ground) -> None:
    ground.make_widget("a")
    assert ground.patch_widget("a", {"metadata": {"labels": {"x": "1"}}})["metadata"]["generation"] == 1
    assert (
        ground.kube.patch_status(WIDGETS, "a", {"size": 1}, namespace=ground.namespace)["metadata"]["generation"] == 1
    )
    assert ground.patch_widget("a", {"spec": {"size": 1}})["metadata"]["generation"] == 2


def test_status_is_written_by_its_subresource_alone(ground: Ground) -> None:
    created = ground.kube.create(WIDGETS, {**ground.widget("a"), "status": {"size": 1}})
    assert "status" not in created
    assert "status" not in ground.patch_widget("a", {"status": {"size": 1}})
    changed = ground.patch_widget("a", {"spec": {"size": 5}, "status": {"size": 2}}, subresource="status")
    assert changed["status"] == {"size": 2}
    assert "size" not in changed["spec"]


def test_a_status_is_written_only_where_nothing_changed_meanwhile(ground: Ground) -> None:
    old = ground.make_widget("a")["metadata"]["resourceVersion"]
    ground.patch_widget("a", {"spec": {"size": 1}})
    with pytest.raises(Conflict):
        ground.kube.patch_status(WIDGETS, "a", {"size": 1}, namespace=ground.namespace, version=old)


def test_the_scale_of_a_widget_is_its_size(ground: Ground) -> None:
    ground.make_widget("a", size=1)
    status = {"size": 4, "selector": "pool=a"}
    ground.kube.patch_status(WIDGETS, "a", status, namespace=ground.namespace)
    scale = write_scale(ground.kube, WIDGETS, "a", 3, namespace=ground.namespace)
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"]["replicas"], scale["status"]) == (3, {"replicas": 4, "selector": "pool=a"})
    now = ground.get_widget("a")
    assert (now["spec"]["size"], now["metadata"]["generation"]) == (3, 2)


def test_a_scale_that_the_schema_forbids_is_refused(ground: Ground) -> None:
    ground.make_widget("a", size=1)
    with pytest.raises(Invalid, match="size must be at most most"):
        write_scale(ground.kube, WIDGETS, "a", 11, namespace=ground.namespace)


def test_a_widget_without_a_size_has_no_scale_to_read_but_one_to_write(ground: Ground) -> None:
    ground.make_widget("a")
    path = WIDGETS.path(namespace=ground.namespace, name="a", subresource="scale")
    with pytest.raises(Unavailable, match="does not exist"):
        ground.kube._ask("GET", path)
    assert write_scale(ground.kube, WIDGETS, "a", 2, namespace=ground.namespace)["spec"]["replicas"] == 2


# ------------------------------------------------------------------------------------------------ apply


def other(ground: Ground, patch: Json) -> Json:
    """A merge patch by somebody else."""
    path = WIDGETS.path(namespace=ground.namespace, name="a")
    query = {"fieldManager": "somebody"}
    return ground.kube._ask("PATCH", path, body=patch, query=query, media_type="application/merge-patch+json")


def managers(one: Json) -> set[tuple[str, str, str]]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", ""))
        for entry in one["metadata"]["managedFields"]
    }


def test_apply_makes_what_is_not_there_and_again_changes_nothing(ground: Ground) -> None:
    made = ground.kube.apply(WIDGETS, ground.widget("a", size=1))
    assert managers(made) == {("longtake-controller", "Apply", "")}
    again = ground.kube.apply(WIDGETS, ground.widget("a", size=1))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_apply_removes_what_it_set_before_and_leaves_out_now(ground: Ground) -> None:
    ground.kube.apply(WIDGETS, ground.widget("a", size=1, tags=["x"]))
    other(ground, {"spec": {"most": 20}})
    spec = ground.kube.apply(WIDGETS, ground.widget("a", size=2))["spec"]
    assert spec == {"model": "wan", "size": 2, "most": 20, "mode": "a"}


def test_apply_does_not_take_what_another_set(ground: Ground) -> None:
    ground.kube.apply(WIDGETS, ground.widget("a", size=1))
    other(ground, {"spec": {"size": 2}})
    with pytest.raises(Conflict) as refused:
        ground.kube.apply(WIDGETS, ground.widget("a", size=3))
    assert list(refused.value.fields) == [".spec.size"]
    assert "somebody" in refused.value.fields[".spec.size"]
    assert ground.get_widget("a")["spec"]["size"] == 2
    forced = ground.kube.apply(WIDGETS, ground.widget("a", size=3), force=True)
    assert forced["spec"]["size"] == 3
    assert managers(forced) == {("longtake-controller", "Apply", "")}


def test_apply_shares_what_another_set_to_the_same(ground: Ground) -> None:
    ground.kube.apply(WIDGETS, ground.widget("a", size=1))
    other(ground, {"spec": {"size": 2}})
    ground.kube.apply(WIDGETS, ground.widget("a", size=2))
    assert ground.kube.apply(WIDGETS, ground.widget("a"))["spec"]["size"] == 2  # still somebody's


def test_apply_merges_lists_by_their_keys(ground: Ground) -> None:
    ground.kube.apply(WIDGETS, ground.widget("a", parts=[{"name": "p", "count": 1}, {"name": "q"}]))
    change = [{"op": "add", "path": "/spec/parts/-", "value": {"name": "r"}}]
    ground.patch_widget("a", change, kind="json")
    parts = ground.kube.apply(WIDGETS, ground.widget("a", parts=[{"name": "p", "count": 2}]))["spec"]["parts"]
    assert {part["name"]: part.get("count") for part in parts} == {"p": 2, "r": None}


def test_apply_of_a_status_leaves_the_spec_alone(ground: Ground) -> None:
    ground.kube.apply(WIDGETS, ground.widget("a", size=1))
    named = {"metadata": {"name": "a", "namespace": ground.namespace}}
    ready = [{"type": "Ready", "status": "True"}]
    ground.kube.apply(WIDGETS, {**named, "status": {"size": 1, "conditions": ready}}, subresource="status")
    one = ground.kube.apply(WIDGETS, {**named, "status": {"conditions": ready}}, subresource="status")
    assert one["status"] == {"conditions": ready}
    assert one["spec"]["size"] == 1
    assert managers(one) == {("longtake-controller", "Apply", ""), ("longtake-controller", "Apply", "status")}
    assert ground.kube.apply(WIDGETS, ground.widget("a", size=2))["status"] == {"conditions": ready}


def test_a_status_of_nothing_cannot_be_applied(ground: Ground) -> None:
    named = {"metadata": {"name": "a", "namespace": ground.namespace}}
    with pytest.raises(NotFound):
        ground.kube.apply(WIDGETS, {**named, "status": {"size": 1}}, subresource="status")


def test_apply_keeps_labels_of_others(ground: Ground) -> None:
    body = ground.widget("a")
    body["metadata"]["labels"] = {"ours": "1"}
    ground.kube.apply(WIDGETS, body)
    other(ground, {"metadata": {"labels": {"theirs": "1"}}})
    assert ground.kube.apply(WIDGETS, ground.widget("a"))["metadata"]["labels"] == {"theirs": "1"}


# ------------------------------------------------------------------------------------------------ reading


def test_selectors_choose_by_labels(ground: Ground) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {})):
        ground.kube.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": ground.namespace, "labels": labels}})

    def chosen(selector: str) -> list[str]:
        listing = ground.kube.list_all(CONFIG_MAPS, namespace=ground.namespace, label_selector=selector)
        return [name for one in listing.items if (name := one["metadata"]["name"]) in ("a", "b", "c")]

    assert chosen("x=1") == ["a"]
    assert chosen("x!=1") == ["b", "c"]
    assert chosen("x in (1, 2),y") == ["b"]
    assert chosen("x notin (2)") == ["a", "c"]
    assert chosen("!x") == ["c"]


def test_selectors_choose_pods_by_their_node(ground: Ground) -> None:
    for name, node in (("p1", "n1"), ("p2", "n2")):
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        ground.kube.create(PODS, {"metadata": {"name": name, "namespace": ground.namespace}, "spec": spec})
    found = ground.kube.list_all(PODS, namespace=ground.namespace, field_selector="spec.nodeName=n2").items
    assert [one["metadata"]["name"] for one in found] == ["p2"]
    with pytest.raises(Invalid, match="field label not supported"):
        ground.kube.list_all(PODS, namespace=ground.namespace, field_selector="spec.nonsense=1")


def test_pages_show_one_moment(ground: Ground) -> None:
    for name in "abcde":
        ground.make_widget(name)
    path = WIDGETS.path(namespace=ground.namespace)
    first = ground.kube._ask("GET", path, query={"limit": "2"})
    ground.make_widget("f")
    ground.kube.delete(WIDGETS, "c", namespace=ground.namespace)
    query = {"limit": "10", "continue": first["metadata"]["continue"]}
    second = ground.kube._ask("GET", path, query=query)
    names = [one["metadata"]["name"] for page in (first, second) for one in page["items"]]
    assert names == list("abcde")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["continue"] == "", "of a custom resource"
    path = PODS.path(namespace=ground.namespace)
    assert "continue" not in ground.kube._ask("GET", path, query={"limit": "10"})["metadata"], (
        "of a kind that is built in"
    )


def test_a_list_can_be_asked_for_as_it_was(ground: Ground) -> None:
    ground.make_widget("a")
    then = version_of(ground)
    ground.make_widget("b")
    path = WIDGETS.path(namespace=ground.namespace)
    query = {"resourceVersion": then, "resourceVersionMatch": "Exact"}
    assert [one["metadata"]["name"] for one in ground.kube._ask("GET", path, query=query)["items"]] == ["a"]
    query["resourceVersionMatch"] = "NotOlderThan"
    assert [one["metadata"]["name"] for one in ground.kube._ask("GET", path, query=query)["items"]] == ["a", "b"]
    with pytest.raises(Invalid):
        ground.kube._ask("GET", path, query={"resourceVersionMatch": "Exact"})


def test_items_of_lists_say_what_they_are(ground: Ground) -> None:
    ground.make_widget("a")
    ground.kube.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": ground.namespace}})
    for resource in (WIDGETS, CONFIG_MAPS):
        for one in ground.kube.list_all(resource, namespace=ground.namespace).items:
            assert (one["apiVersion"], one["kind"]) == (resource.api_version, resource.kind)


# ------------------------------------------------------------------------------------------------ watching


def test_a_watch_tells_what_happened_after_its_version_in_order(ground: Ground) -> None:
    ground.make_widget("a")
    since = version_of(ground)
    ground.make_widget("b")
    ground.patch_widget("b", {"spec": {"size": 1}})
    ground.patch_widget("b", {"spec": {"size": 1}})  # changes nothing
    ground.kube.delete(WIDGETS, "b", namespace=ground.namespace)
    assert events_of(ground, since, 3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


def test_a_watch_tells_of_what_happens_while_it_waits(ground: Ground) -> None:
    since, found = version_of(ground), []
    watcher = threading.Thread(target=lambda: found.extend(events_of(ground, since, 1)))
    watcher.start()
    ground.make_widget("a")
    watcher.join(30)
    assert found == [("ADDED", "a")]


def test_to_a_watch_with_a_selector_objects_come_and_go_as_they_fit(ground: Ground) -> None:
    ground.make_widget("a")
    since = version_of(ground)
    for labels in ({"x": "1"}, {"x": "1", "y": "1"}, {"x": "2"}):
        ground.patch_widget("a", {"metadata": {"labels": labels}})
    found = events_of(ground, since, 3, label_selector="x=1")
    assert [kind for kind, _ in found] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_ends_when_it_was_told_to(ground: Ground) -> None:
    stream = ground.kube.watch(WIDGETS, since=version_of(ground), watch_s=1, namespace=ground.namespace)
    assert all(event["type"] == "BOOKMARK" for event in stream)


def test_a_watch_of_a_forgotten_version_is_gone(ground: Ground) -> None:
    def first_event() -> Json:
        return next(iter(ground.kube.watch(WIDGETS, since="1", watch_s=2, namespace=ground.namespace)))

    try:
        event = first_event()
    except Gone:  # some servers say it by the status of the answer
        return
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


# ------------------------------------------------------------------------------------------------ deleting


def test_finalizers_hold_a_deletion(ground: Ground) -> None:
    body = ground.widget("a")
    body["metadata"]["finalizers"] = ["test.longtake.dev/hold"]
    ground.kube.create(WIDGETS, body)
    ground.kube.delete(WIDGETS, "a", namespace=ground.namespace)
    assert ground.get_widget("a")["metadata"]["deletionTimestamp"]
    with pytest.raises(KubeError):
        ground.patch_widget("a", {"metadata": {"finalizers": ["test.longtake.dev/hold", "test.longtake.dev/more"]}})
    ground.patch_widget("a", {"metadata": {"finalizers": None}})
    assert is_gone(ground.kube, WIDGETS, "a", namespace=ground.namespace)


def test_only_the_object_that_was_meant_is_deleted(ground: Ground) -> None:
    old = ground.make_widget("a")["metadata"]
    ground.patch_widget("a", {"spec": {"size": 1}})
    with pytest.raises(Conflict):
        ground.kube.delete(WIDGETS, "a", namespace=ground.namespace, uid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(Conflict):
        ground.kube.delete(WIDGETS, "a", namespace=ground.namespace, version=old["resourceVersion"])
    ground.kube.delete(WIDGETS, "a", namespace=ground.namespace, uid=old["uid"])
    with pytest.raises(NotFound):
        ground.kube.delete(WIDGETS, "a", namespace=ground.namespace)


def test_what_belonged_to_the_deleted_is_deleted_too(ground: Ground) -> None:
    owner = ground.make_widget("a")
    reference = {"apiVersion": "test.longtake.dev/v1", "kind": "Widget", "name": "a", "uid": owner["metadata"]["uid"]}
    meta = {"name": "child", "namespace": ground.namespace, "ownerReferences": [reference]}
    ground.kube.create(CONFIG_MAPS, {"metadata": meta})
    ground.kube.delete(WIDGETS, "a", namespace=ground.namespace)
    wait_for(lambda: is_gone(ground.kube, CONFIG_MAPS, "child", namespace=ground.namespace))


def test_a_namespace_takes_along_what_is_in_it(ground: Ground) -> None:
    name = f"{ground.namespace}-more"
    ground.kube.create(NAMESPACES, {"metadata": {"name": name}})
    ground.kube.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": name}})
    ground.kube.delete(NAMESPACES, name)
    wait_for(lambda: is_gone(ground.kube, CONFIG_MAPS, "a", namespace=name))
    wait_for(lambda: is_gone(ground.kube, NAMESPACES, name))


# ------------------------------------------------------------------------------------------------ the rest


def test_we_may_do_what_the_server_lets_us(ground: Ground) -> None:
    assert ground.kube.may("patch", WIDGETS, namespace=ground.namespace, subresource="status").allowed


def test_the_server_says_its_version(ground: Ground) -> None:
    assert ground.kube.server_version().startswith("v1.")


def test_an_event_stands_in_the_namespace_of_what_it_is_about(ground: Ground) -> None:
    about = {"kind": "Widget", "name": "a", "namespace": "default"}
    body = {"metadata": {"name": "e", "namespace": ground.namespace}, "involvedObject": about}
    with pytest.raises(Invalid, match=r"involvedObject.namespace"):
        ground.kube.create(EVENTS, body)


def test_one_connection_serves_many_threads(ground: Ground) -> None:
    def make(kube: Kube, index: int) -> None:
        kube.create(CONFIG_MAPS, {"metadata": {"name": f"c{index}", "namespace": ground.namespace}})

    makers = [threading.Thread(target=make, args=(ground.kube, index)) for index in range(20)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    found = ground.kube.list_all(CONFIG_MAPS, namespace=ground.namespace).items
    assert {f"c{index}" for index in range(20)} <= {one["metadata"]["name"] for one in found}


def test_unknown_fields_are_errors_where_they_are_asked_to_be(ground: Ground) -> None:
    path, body = WIDGETS.path(namespace=ground.namespace), ground.widget("a", typo=1)
    body |= {"apiVersion": WIDGETS.api_version, "kind": WIDGETS.kind}
    with pytest.raises(Invalid, match=r"unknown field .*spec.typo"):
        ground.kube._ask("POST", path, body=body, query={"fieldValidation": "Strict"})
