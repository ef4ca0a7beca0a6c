"""Keeps a mirror of one kind of object up to date, and reports changes.

A thread lists, then watches from the list's version on, and resumes whenever the watch ends; mirror.py decides
everything else. It never writes to the cluster.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from random import Random

from cluster.kube.client import Json, Kube
from cluster.kube.errors import KubeError
from cluster.kube.mirror import HEALTHY_S, ChangeKind, Key, Mirror, decide_next
from cluster.kube.resources import Resource
from cluster.kube.stream import WatchStream

WATCH_S = 60.0
"""Seconds of one watch. Short, because a connection that died without a word is noticed only when its watch should
have ended, and a spot node may be gone two minutes after its notice. Going on costs the server next to nothing."""

OnChange = Callable[[ChangeKind, Json], None]

log = logging.getLogger(__name__)


class Informer:
    """The objects of one kind, of one namespace or all, that selectors choose.

    `on_change` is called in the informer's thread, one call at a time, in the order of the changes of each object;
    first for every existing object. It should be quick. What it raises is logged and has no other effect. `random`
    spreads waits.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        on_change: OnChange,
        *,
        random: Random,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        watch_s: float = WATCH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._resource, self._on_change = kube, resource, on_change
        self._random, self._clock, self._watch_s = random, clock, watch_s
        self._namespace, self._label_selector, self._field_selector = namespace, label_selector, field_selector
        self._mirror = Mirror()
        self._lock = (
            threading.RLock()
        )  # of the mirror, the stream and telling; reentrant, so on_change may look and stop
        self._stream: WatchStream | None = None
        self._heard_at: float | None = None
        self._synced = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End at once: after it `on_change` is not called any more. A request in progress is left to its timeout."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread after stop(); whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def synced(self) -> bool:
        """Whether there was a list: before it, objects() is empty because nothing is known."""
        return self._synced.is_set()

    def objects(self) -> Mapping[Key, Json]:
        """All objects as last heard, by namespace and name. The objects are shared: nobody may change them."""
        with self._lock:
            return dict(self._mirror.objects)

    def get(self, name: str, *, namespace: str | None = None) -> Json | None:
        """One of them, or None."""
        with self._lock:
            return self._mirror.objects.get((namespace or "", name))

    def silent_s(self) -> float | None:
        """Seconds since the server last said anything, be it that nothing happened; None if it never did. More than
        twice the length of a watch means that objects() is out of date."""
        heard_at = self._heard_at
        return None if heard_at is None else self._clock() - heard_at

    # ------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        relist, failures = True, 0
        while not self._stopped.is_set():
            began, events, end = self._clock(), 0, None
            try:
                if relist:
                    self._list()
                    relist = False
                for event in self._events():
                    self._take(event)
                    events += 1
            except KubeError as error:
                end = error
            except Exception as error:  # our bug, or an answer that nobody foresaw: not a reason to go blind for good
                log.exception("watching %s failed", self._resource.plural, extra=self._log_fields("watch_bug"))
                end = KubeError(f"watch {self._resource.plural}: {error!r}")
            if self._stopped.is_set():
                return
            worked = events > 0 or (end is None and self._clock() - began >= min(HEALTHY_S, self._watch_s / 2))
            after = decide_next(end, worked=worked, failures=failures, random=self._random)
            if end is not None:
                self._log_end(end, after.pause_s)
            relist, failures = relist or after.relist, after.failures
            self._stopped.wait(after.pause_s)

    def _list(self) -> None:
        listing = self._kube.list_all(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        with self._lock:
            self._heard_at = self._clock()
            for change in self._mirror.relist(listing):
                self._tell(change.kind, change.object)
        self._synced.set()

    def _events(self) -> WatchStream:
        assert self._mirror.version is not None
        stream = self._kube.watch(
            self._resource,
            since=self._mirror.version,
            watch_s=self._watch_s,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        with self._lock:
            self._heard_at = self._clock()
            self._stream = stream
            if self._stopped.is_set():
                stream.close()
        return stream

    def _take(self, event: Json) -> None:
        with self._lock:
            self._heard_at = self._clock()
            for change in self._mirror.take(event, what=f"watch {self._resource.plural}"):
                self._tell(change.kind, change.object)

    def _tell(self, kind: ChangeKind, about: Json) -> None:
        if self._stopped.is_set():
            return
        try:
            self._on_change(kind, about)
        except Exception:
            log.exception("a change of %s was not handled", self._resource.plural, extra=self._log_fields("change_bug"))

    def _log_end(self, end: KubeError, pause_s: float) -> None:
        fields = self._log_fields("watch_ended") | {"pause_s": round(pause_s, 2)}
        log.warning("watching %s goes on in %.1f s: %s", self._resource.plural, pause_s, end, extra=fields)

    def _log_fields(self, action: str) -> dict[str, object]:
        return {"action": action, "resource": self._resource.plural, "namespace": self._namespace}
