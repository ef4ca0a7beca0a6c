"""What nodes and pods say of their end: every signal of the table, and what must not be taken for one."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.signals import AHEAD_S, SIGNALS, Signal, read_notices, read_pod_notices
from testkit.json_object import Json

NOW = 1_785_744_000.0  # Mon, 03 Aug 2026 08:00:00 GMT


def node(**parts: Any) -> Json:
    meta = {"name": "n1", "labels": parts.get("labels", {}), "annotations": parts.get("annotations", {})}
    meta |= parts.get("metadata", {})
    return {
        "metadata": meta,
        "spec": {"taints": parts.get("taints", []), **parts.get("spec", {})},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, *parts.get("conditions", [])]},
    }


def carrying(signal: Signal, **more: Any) -> Json:
    """A node that carries just that."""
    match signal.kind:
        case "taint":
            return node(taints=[{"key": signal.key, "value": signal.value or "", "effect": "NoSchedule"}], **more)
        case "label" | "annotation":
            value = str(int(NOW + 600)) if signal.key.endswith("scheduled-maintenance-time") else signal.value or "x"
            return node(**{f"{signal.kind}s": {signal.key: value}}, **more)
        case "condition":
            status = "False" if signal.key == "Ready" else "True"
            said = {"type": signal.key, "status": status, "message": f"{signal.value or 'soon'}"}
            found = node(conditions=[said], **more)
            if signal.key == "Ready":
                found["status"]["conditions"] = [said]
            return found
        case "field":
            part, _, name = signal.key.partition(".")
            return node(**{part: {name: "2026-08-03T08:00:00Z" if part == "metadata" else True}}, **more)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: f"{signal.kind}-{signal.name}")
def test_every_signal_of_the_table_is_seen_and_no_other_with_it(signal: Signal) -> None:
    (notice,) = read_notices(carrying(signal), now=NOW)
    assert notice.signal == signal
    assert notice.acts == (signal.notice_s is not None)


def test_an_ordinary_node_says_nothing() -> None:
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    taints += [{"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}]
    assert read_notices(node(taints=taints, labels={"karpenter.sh/capacity-type": "spot"}), now=NOW) == ()


def test_a_spot_node_has_less_time() -> None:
    taint = [{"key": "cloud.google.com/impending-node-termination", "effect": "NoSchedule"}]
    (usual,) = read_notices(node(taints=taint), now=NOW)
    (spot,) = read_notices(node(taints=taint, labels={"cloud.google.com/gke-spot": "true"}), now=NOW)
    assert (usual.left_s, spot.left_s) == (120, 15)


def azure(message: str, status: str = "True") -> Json:
    return node(conditions=[{"type": "VMEventScheduled", "status": status, "message": message}])


def test_azure_names_the_time_of_a_preemption() -> None:
    message = "Preempt Scheduled: Mon, 03 Aug 2026 08:00:39 GMT. DurationInSeconds: -1. EventId: 218E4ED7"
    (notice,) = read_notices(azure(message), now=NOW)
    assert (notice.signal.cause, notice.left_s, notice.signal.forced) == ("spot", 39.0, True)
    (late,) = read_notices(azure(message), now=NOW + 60)
    assert late.left_s == 0.0


@pytest.mark.parametrize(
    "message", ["Preempt Started: .", "Preempt Scheduled: soon", "Preempt Scheduled: Mon, 99 Xyz 2026"]
)
def test_a_preemption_without_a_time_has_the_usual_notice(message: str) -> None:
    (notice,) = read_notices(azure(message), now=NOW)
    assert (notice.left_s, notice.at) == (30, None)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Freeze Scheduled: Mon, 03 Aug 2026 08:00:39 GMT. DurationInSeconds: 5.", "True"),
        ("IMDS unavailable", "Unknown"),
        ("Preempt Scheduled: Mon, 03 Aug 2026 08:00:39 GMT.", "False"),
        ("VM has no scheduled event", "False"),
    ],
)
def test_a_freeze_and_an_event_that_is_over_are_no_signal(message: str, status: str) -> None:
    assert read_notices(azure(message, status), now=NOW) == ()


def test_a_maintenance_is_a_signal_only_shortly_before_it() -> None:
    label = "cloud.google.com/scheduled-maintenance-time"
    for ahead_s, seen in ((AHEAD_S + 60, False), (AHEAD_S - 60, True), (-60, True), (-2 * 86_400, False)):
        notices = read_notices(node(labels={label: str(int(NOW + ahead_s))}), now=NOW)
        assert bool(notices) == seen, ahead_s
        assert all(notice.left_s == max(0, ahead_s) for notice in notices)


def test_a_candidate_of_the_cluster_autoscaler_is_shown_and_not_drained() -> None:
    (notice,) = read_notices(node(taints=[{"key": "DeletionCandidateOfClusterAutoscaler"}]), now=NOW)
    assert not notice.acts


def test_a_cordon_can_be_left_alone() -> None:
    cordoned = node(spec={"unschedulable": True}, taints=[{"key": "node.kubernetes.io/unschedulable"}])
    assert [one.signal.cause for one in read_notices(cordoned, now=NOW)] == ["operator"]
    assert read_notices(cordoned, now=NOW, heed_cordons=False) == ()


def test_the_most_urgent_notice_comes_first() -> None:
    found = node(spec={"unschedulable": True}, taints=[{"key": "aws-node-termination-handler/spot-itn", "value": "e1"}])
    assert [one.signal.cause for one in read_notices(found, now=NOW)] == ["spot", "operator"]


def test_a_node_that_shuts_down_says_so_in_its_ready_condition() -> None:
    said = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "node is shutting down"}
    assert [one.left_s for one in read_notices({"metadata": {"name": "n"}, "status": {"conditions": [said]}}, now=NOW)]
    said = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "PLEG is not healthy"}
    assert not read_notices({"metadata": {"name": "n"}, "status": {"conditions": [said]}}, now=NOW)


def test_a_pod_that_is_deleted_says_until_when() -> None:
    (notice,) = read_pod_notices({"metadata": {"name": "p", "deletionTimestamp": "2026-08-03T08:01:00Z"}}, now=NOW)
    assert (notice.left_s, notice.signal.forced) == (60.0, True)


def test_a_pod_that_will_be_evicted_has_its_grace() -> None:
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    pod = {
        "metadata": {"name": "p"},
        "spec": {"terminationGracePeriodSeconds": 90},
        "status": {"conditions": conditions},
    }
    (notice,) = read_pod_notices(pod, now=NOW)
    assert notice.left_s == 90.0
    assert read_pod_notices({"metadata": {"name": "p"}, "spec": {}}, now=NOW) == ()


# What nobody foresaw must not stop the controller: other people's programs write these fields.
_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@given(
    taints=st.lists(st.dictionaries(st.sampled_from(["key", "value", "effect"]), _junk, max_size=3), max_size=3),
    conditions=st.lists(
        st.dictionaries(st.sampled_from(["type", "status", "message", "reason"]), _junk, max_size=4), max_size=3
    ),
    time=st.text(max_size=12) | st.integers().map(str),
)
def test_no_node_is_too_strange_to_be_read(taints: Any, conditions: Any, time: str) -> None:
    found = node(taints=taints, conditions=conditions, labels={"cloud.google.com/scheduled-maintenance-time": time})
    for notice in read_notices(found, now=NOW):
        assert notice.left_s is None or notice.left_s >= 0


def test_every_source_is_named_and_few_are_unverified() -> None:
    assert all(signal.source for signal in SIGNALS)
    assert {signal.key for signal in SIGNALS if not signal.verified} == {
        "Terminating",
        "karpenter.sh/delete-requested-at",
    }


def row(signal: Signal) -> str:
    """Of the table in the documentation."""
    notice = "shown only" if signal.notice_s is None else f"{signal.notice_s:g} s"
    if signal.spot_notice_s is not None:
        notice += f", on spot {signal.spot_notice_s:g} s"
    sure = "" if signal.verified else " (unverified)"
    forced = "yes" if signal.forced else "no"
    return f"| {signal.kind} | `{signal.name}` | {signal.cause} | {notice} | {forced} | {signal.source}{sure} |"


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs/controller.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| taint", "| condition", "| label"))]
    rows += [line for line in page.splitlines() if line.startswith(("| annotation", "| field"))]
    assert sorted(rows) == sorted(row(signal) for signal in SIGNALS)
