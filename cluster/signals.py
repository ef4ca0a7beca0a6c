"""One table of what says that a node will go: taints, conditions, labels, annotations and fields that clouds and
autoscalers set.

Pure. It reads a Node or a Pod and says what it means; what is drained when is for drain_plan.py to decide. A signal
that is not marked verified was not found in its source when the table was made (November 2026).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from cluster.contract.pools_and_nodes import DrainCause
from cluster.kube.timestamps import read_time
from cluster.topology import read_topology

Json = Mapping[str, Any]

AHEAD_S = 3600.0
"""Seconds before a maintenance of which the time is known that its node is emptied."""

STALE_S = 86_400.0
"""Seconds after which a time in the past says nothing any more: the label was left behind."""


@dataclass(frozen=True)
class Signal:
    """One thing that a node may carry."""

    kind: Literal["taint", "condition", "label", "annotation", "field"]
    key: str
    cause: DrainCause
    notice_s: float | None
    """Seconds from when we see it until the node may be gone, unless it says so itself. None: it may be taken back,
    so it is shown and nothing is drained for it."""
    forced: bool
    """Whether the node goes however we like it; else somebody waits, or can be made to."""
    source: str
    value: str | None = None
    """Of a taint or label, the value that counts; of a condition, how its message begins. None: any."""
    spot_notice_s: float | None = None
    """The same on a spot node, if that has less time."""
    verified: bool = True

    @property
    def name(self) -> str:
        """As people would write it."""
        return self.key if self.value is None else f"{self.key}={self.value}"


_NTH = "aws-node-termination-handler, README and pkg/node/node.go"
_KARPENTER = "karpenter.sh, Concepts: Disruption, and designs/no-schedule-taint.md"
_GKE = "cloud.google.com, Manage GKE node disruption for GPUs and TPUs; keys as programs that follow it have them"
_AKS = "learn.microsoft.com, AKS node auto-drain; messages as recorded in Azure/karpenter-provider-azure"
_NPD = "learn.microsoft.com, Node Problem Detector in AKS nodes"
_CA = "kubernetes/autoscaler, cluster-autoscaler/utils/taints/taints.go"
_K8S = "kubernetes.io, Well-Known Labels, Annotations and Taints"
_KUBELET = "kubernetes.io, Node Shutdowns: Graceful node shutdown"

SIGNALS: tuple[Signal, ...] = (
    # AWS. Two minutes are EC2's notice, and the grace that the handler gives pods by default.
    Signal("taint", "aws-node-termination-handler/spot-itn", "spot", 110, True, _NTH),
    Signal("taint", "aws-node-termination-handler/scheduled-maintenance", "maintenance", 120, True, _NTH),
    Signal("taint", "aws-node-termination-handler/asg-lifecycle-termination", "scale-down", 120, True, _NTH),
    Signal("taint", "aws-node-termination-handler/rebalance-recommendation", "spot", 600, False, _NTH),
    # Karpenter evicts at once and asks for no more than the pods' own grace; it has disruption budgets of its own.
    Signal("taint", "karpenter.sh/disrupted", "scale-down", 120, True, _KARPENTER, spot_notice_s=110),
    Signal("taint", "karpenter.sh/disruption", "scale-down", 120, True, _KARPENTER, "disrupting", spot_notice_s=110),
    # GKE. A spot VM has 30 s from its notice, of which pods get 15.
    Signal("taint", "cloud.google.com/impending-node-termination", "maintenance", 120, True, _GKE, spot_notice_s=15),
    Signal("label", "cloud.google.com/active-node-maintenance", "maintenance", 120, True, _GKE, "ONGOING", 15),
    Signal("taint", "cloud.google.com/maintenance-window-started", "maintenance", 600, False, _GKE),
    Signal("label", "cloud.google.com/scheduled-maintenance-time", "maintenance", 600, False, _GKE),
    # Azure. The message names the time. A freeze lasts seconds, which calls survive, so it is no signal.
    Signal("condition", "VMEventScheduled", "spot", 30, True, _AKS, "Preempt"),
    Signal("condition", "VMEventScheduled", "scale-down", 120, True, _AKS, "Terminate"),
    Signal("condition", "VMEventScheduled", "maintenance", 300, True, _AKS, "Redeploy"),
    Signal("condition", "VMEventScheduled", "maintenance", 300, True, _AKS, "Reboot"),
    Signal("condition", "PreemptionScheduled", "spot", 30, True, _AKS, "Preempt"),
    Signal("condition", "PreemptionScheduled", "spot", 600, False, _AKS, "SpotRebalanceRecommendation"),
    Signal("condition", "PreemptScheduled", "spot", 30, True, _NPD),
    Signal("condition", "TerminateScheduled", "scale-down", 120, True, _NPD),
    Signal("condition", "RedeployScheduled", "maintenance", 300, True, _NPD),
    Signal("condition", "RebootScheduled", "maintenance", 300, True, _NPD),
    Signal("taint", "remediator.kubernetes.azure.com/unschedulable", "maintenance", 120, True, _AKS, spot_notice_s=30),
    Signal("taint", "remediator.aks.microsoft.com/unschedulable", "maintenance", 120, True, _AKS, spot_notice_s=30),
    Signal(
        "taint", "cloudprovider.azure.microsoft.com/draining", "spot", 30, True, "cloud-provider-azure", "spot-eviction"
    ),
    # Cluster autoscaler. A candidate is often let go again, and draining it would make it the emptier one.
    Signal("taint", "ToBeDeletedByClusterAutoscaler", "scale-down", 120, True, _CA),
    Signal("taint", "DeletionCandidateOfClusterAutoscaler", "scale-down", None, False, _CA),
    # Kubernetes itself.
    Signal("taint", "node.kubernetes.io/out-of-service", "maintenance", 5, True, _K8S),
    Signal("taint", "node.cloudprovider.kubernetes.io/shutdown", "maintenance", 5, True, _K8S),
    Signal("condition", "Ready", "maintenance", 15, True, _KUBELET, "node is shutting down"),
    Signal("field", "metadata.deletionTimestamp", "scale-down", 60, True, _K8S),
    Signal("field", "spec.unschedulable", "operator", 300, False, _K8S),
    # Seen in other people's programs only.
    Signal("condition", "Terminating", "maintenance", 60, True, "unknown", verified=False),
    Signal("annotation", "karpenter.sh/delete-requested-at", "scale-down", 120, True, "unknown", verified=False),
)

CORDON = "spec.unschedulable"

POD_GOING = Signal("field", "pod metadata.deletionTimestamp", "scale-down", 30, True, "kubernetes.io, Pod Lifecycle")
POD_DISRUPTED = Signal(
    "condition", "pod DisruptionTarget", "scale-down", 30, True, "kubernetes.io, Pod disruption conditions"
)

_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, +\d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} (?:GMT|UTC)")


@dataclass(frozen=True)
class Notice:
    """What a signal says of one node, or pod, now."""

    signal: Signal
    left_s: float | None
    """Seconds until the node may be gone, not negative; None if it is only shown."""
    at: float | None
    """When that is, in Unix seconds, if the signal says so itself."""

    @property
    def acts(self) -> bool:
        """Whether something is to be drained for it."""
        return self.left_s is not None


def read_notices(node: Json, *, now: float, heed_cordons: bool = True) -> tuple[Notice, ...]:
    """What a Node says, the most urgent first. With `heed_cordons` false, one that is only cordoned says nothing."""
    spot = read_topology(node).spot is True
    found = [_notice(signal, node, spot, now) for signal in SIGNALS if heed_cordons or signal.key != CORDON]
    return _by_urgency(notice for notice in found if notice is not None)


def read_pod_notices(pod: Json, *, now: float) -> tuple[Notice, ...]:
    """What a Pod says of itself: it is being deleted, or was chosen to be evicted."""
    found = []
    going_at = read_time(pod["metadata"].get("deletionTimestamp"))
    if going_at is not None:  # of a pod, the end of its grace
        found.append(Notice(POD_GOING, max(0.0, going_at - now), going_at))
    elif _condition(pod, "DisruptionTarget", None, "True") is not None:
        grace_s = (pod.get("spec") or {}).get("terminationGracePeriodSeconds")
        found.append(Notice(POD_DISRUPTED, float(grace_s if isinstance(grace_s, int) else 30), None))
    return _by_urgency(found)


def _by_urgency(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    return tuple(sorted(notices, key=lambda one: (not one.acts, one.left_s or 0.0, not one.signal.forced)))


def _notice(signal: Signal, node: Json, spot: bool, now: float) -> Notice | None:
    said = _find(signal, node)
    if said is None:
        return None
    at = _time_in(signal, said)
    if at is not None and signal.kind == "label" and not -STALE_S < at - now <= AHEAD_S:
        return None
    if signal.notice_s is None:
        return Notice(signal, None, at)
    notice_s = signal.spot_notice_s if spot and signal.spot_notice_s is not None else signal.notice_s
    # A time that has passed long ago is of an event that is over, or of a clock that is wrong: then the usual notice.
    timed = at is not None and at - now > -STALE_S
    return Notice(signal, max(0.0, at - now) if at is not None and timed else notice_s, at if timed else None)


def _find(signal: Signal, node: Json) -> str | None:
    """What the node carries for a signal: value or message; None if it does not carry it."""
    if signal.kind == "taint":
        taints = (node.get("spec") or {}).get("taints") or ()
        values = (str(one.get("value") or "") for one in taints if one.get("key") == signal.key)
        return next((value for value in values if signal.value in (None, value)), None)
    if signal.kind in ("label", "annotation"):
        value = (node["metadata"].get(f"{signal.kind}s") or {}).get(signal.key)
        return value if value is not None and signal.value in (None, value) else None
    if signal.kind == "condition":
        # Of all conditions only Ready is good news when it is True.
        return _condition(node, signal.key, signal.value, "False" if signal.key == "Ready" else "True")
    part, _, name = signal.key.partition(".")
    value = (node.get(part) or {}).get(name)
    return str(value) if value else None


def _condition(about: Json, kind: str, words: str | None, status: str) -> str | None:
    """The message of a condition that has this status, and begins with these words. Those about a shutdown stand in the
    message or the reason of Ready: kubelets and their documentation differ."""
    for one in (about.get("status") or {}).get("conditions") or ():
        message = str(one.get("message") or "").strip()
        fits = words is None or message.startswith(words)
        fits = fits or (kind == "Ready" and str(words) in f"{one.get('reason')} {message}")
        if one.get("type") == kind and one.get("status") == status and fits:
            return message
    return None


def _time_in(signal: Signal, said: str) -> float | None:
    """The time that a signal names: an HTTP date in a message of Azure's, Unix seconds in a label of GKE's."""
    if signal.kind == "condition":
        date = _HTTP_DATE.search(said)
        return _http_time(date[0]) if date else None
    if signal.kind == "label" and re.fullmatch(r"\d{9,11}", said):
        return float(said)
    return None


def _http_time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text.replace("UTC", "GMT")).timestamp()
    except ValueError:
        return None
