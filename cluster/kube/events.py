"""Events: what a person sees under `kubectl describe` and `kubectl get events`.

An event that happens again is counted, not written again. Its name is made of what it says, so that this holds across
restarts and nothing is remembered here. Events are for people: failing to write one is logged and never stops work.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cluster.kube.client import FIELD_MANAGER, Json, Kube
from cluster.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from cluster.kube.resources import EVENTS

EventType = Literal["Normal", "Warning"]

MAX_REASON_CHARS = 128
MAX_MESSAGE_CHARS = 1024
"""Both are limits of the API."""

CLUSTER_WIDE = "default"
"""The namespace of events about what has none, such as nodes; the API allows no other."""

_TRIES = 3
"""Two controllers may count the same event at once."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EventRecorder:
    """Writes events in the name of one program."""

    kube: Kube
    instance: str
    """Which of several, such as a pod's name."""
    component: str = FIELD_MANAGER

    def record(self, about: Json, *, reason: str, message: str, now: float, kind: EventType = "Normal") -> bool:
        """Say that something happened to the object `about`, which needs apiVersion, kind and metadata. `reason` is one
        word in CamelCase; `now` in Unix seconds. Returns whether it was written."""
        event = describe(about, reason=reason, message=message, kind=kind, now=now)
        event |= {
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": self.instance[:128],
        }
        try:
            return any(self._write(event) for _ in range(_TRIES))
        except KubeError as error:
            fields = {"action": "event_lost", "reason": reason, "object": event["involvedObject"].get("name")}
            log.warning("an event was not written: %s", error, extra=fields)
            return False

    def _write(self, event: Json) -> bool:
        """Whether it is written now; False if another wrote at the same moment."""
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        try:
            self.kube.create(EVENTS, event)
            return True
        except AlreadyExists:
            pass
        try:
            known = self.kube.get(EVENTS, name, namespace=namespace)
            again = {
                "metadata": {"resourceVersion": known["metadata"]["resourceVersion"]},
                "count": int(known.get("count") or 1) + 1,
                "lastTimestamp": event["lastTimestamp"],
            }
            self.kube.patch(EVENTS, name, again, namespace=namespace)
            return True
        except (Conflict, NotFound):  # counted by another; or its time to live ran out just now
            return False


def describe(about: Json, *, reason: str, message: str, kind: EventType, now: float) -> Json:
    """The event as the API wants it, without its reporter. The same words about the same object get the same name."""
    meta = about["metadata"]
    reason, message = reason[:MAX_REASON_CHARS], message[:MAX_MESSAGE_CHARS]
    words = "\0".join((str(meta.get("uid", "")), about["kind"], kind, reason, message))
    when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    involved = {"apiVersion": about["apiVersion"], "kind": about["kind"], "name": meta["name"]}
    involved |= {key: meta[key] for key in ("namespace", "uid") if meta.get(key)}
    return {
        "metadata": {
            "name": f"{meta['name'][:200]}.{hashlib.sha256(words.encode()).hexdigest()[:16]}",
            "namespace": meta.get("namespace") or CLUSTER_WIDE,
        },
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": when,
        "lastTimestamp": when,
    }
