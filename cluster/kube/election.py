"""Leader election by a Lease: one of several controllers works, the others stand by.

Carries out what lease.py decides, in a thread of its own, so that slow work never delays a renewal. It knows
nothing of the work: callers ask `leads()` before each action.
"""

import logging
import threading
import time
from collections.abc import Callable
from random import Random

from cluster.kube.client import Json, Kube
from cluster.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from cluster.kube.lease import Candidacy, Timing, decide, granted, lease_spec, record_of, released_spec, resigned, see
from cluster.kube.resources import LEASES

log = logging.getLogger(__name__)


class Election:
    """One candidate for one Lease. `me` must differ between any two processes that ever run, so a pod's name and
    something random. `on_change` is called in the election's thread whenever leadership was won or lost; leads() may
    be False a little before it says so. `clock` is monotonic, `wall_clock` in Unix seconds and for people only."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        me: str,
        random: Random,
        timing: Timing | None = None,
        on_change: Callable[[bool], None] = lambda leads: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if not me:
            raise ValueError("a candidate needs a name")
        timing = timing or Timing()
        # One request must not use up the time in which another could still save the leadership.
        self._kube = kube.within(min(kube.timeout_s, timing.renew_deadline_s / 2))
        self._namespace, self._name, self._random = namespace, name, random
        self._on_change, self._clock, self._wall_clock = on_change, clock, wall_clock
        self._known = Candidacy(me, timing)
        self._told = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def start(self) -> None:
        """Stand for election; returns at once."""
        self._thread.start()

    def leads(self) -> bool:
        """Whether we lead at this moment. What is begun under it must be over within the time between renew_deadline_s
        and duration_s, so give requests a timeout of less than that."""
        return not self._stopped.is_set() and self._known.leads(self._clock())

    @property
    def term(self) -> int:
        """Of our last leadership; it rises from leader to leader."""
        return self._known.term

    @property
    def leader(self) -> str:
        """Who holds the Lease, as far as we know; empty if nobody does."""
        return self._known.seen.holder if self._known.seen is not None else ""

    def stop(self, timeout_s: float) -> bool:
        """Stop leading and give the Lease back, so that another can begin at once. Call it when the work has ended.
        Returns whether the thread has ended within `timeout_s`."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._try_once()
            except (Conflict, AlreadyExists):
                pass  # another was faster; the next look tells who
            except KubeError as error:
                log.warning("the lease %s was not reached: %s", self._name, error, extra={"action": "lease_unreached"})
            except Exception:
                log.exception("standing for the lease %s failed", self._name, extra={"action": "election_bug"})
            self._tell()
            # A little at random, so that candidates do not run into each other each time.
            self._stopped.wait(self._known.timing.retry_s * self._random.uniform(0.8, 1.2))
        self._release()

    def _try_once(self) -> None:
        """Look at the Lease and do what is to be done about it. Raises KubeError."""
        try:
            lease = self._kube.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            lease = None
        now = self._clock()
        record = None if lease is None else record_of(lease, self._known.timing)
        self._known = see(self._known, record, now)
        decision = decide(self._known, now)
        if decision == "wait" or self._stopped.is_set():
            return
        spec = lease_spec(self._known, decision, self._wall_clock())
        sent_at = self._clock()
        stored = self._write(lease, spec)
        record = record_of(stored, self._known.timing)
        self._known = granted(self._known, record, sent_at=sent_at, now=self._clock())

    def _write(self, lease: Json | None, spec: Json) -> Json:
        """Store `spec` if the Lease is still as it was seen. Raises Conflict, AlreadyExists and other KubeErrors."""
        if lease is None:
            meta = {"name": self._name, "namespace": self._namespace}
            return self._kube.create(LEASES, {"metadata": meta, "spec": spec})
        return self._kube.replace(LEASES, {**lease, "spec": {**lease["spec"], **spec}})

    def _tell(self) -> None:
        leads = self.leads()
        if leads == self._told:
            return
        self._told = leads
        fields = {"action": "election", "leads": leads, "me": self._known.me, "term": self.term}
        log.info("we lead" if leads else "we do not lead any more", extra=fields)
        try:
            self._on_change(leads)
        except Exception:
            log.exception("a change of leadership was not handled", extra={"action": "election_bug"})

    def _release(self) -> None:
        """Give back what we hold. If that fails it runs out by itself."""
        self._known = resigned(self._known)
        self._tell()
        try:
            lease = self._kube.get(LEASES, self._name, namespace=self._namespace)
            record = record_of(lease, self._known.timing)
            if record.holder == self._known.me:
                self._write(lease, released_spec(record, self._wall_clock()))
        except KubeError as error:
            log.warning("the lease %s was not released: %s", self._name, error, extra={"action": "lease_unreleased"})
