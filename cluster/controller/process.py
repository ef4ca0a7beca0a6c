"""The controller's process: puts its parts together, runs them until SIGTERM, and gives its Lease back.

The only place that builds them. Threads: three watches, the election, the exporter, and the rounds in the main thread.
Run as `longtake cluster controller` or `python -m cluster.controller`.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from random import Random

from cluster.contract.log_lines import choose_formatter
from cluster.controller.drain_plan import DrainLimits
from cluster.controller.drainer import Drainer
from cluster.controller.exporter import Exporter
from cluster.controller.metrics import ControllerMetrics
from cluster.controller.reconciler import Reconciler
from cluster.controller.round_loop import RoundLoop
from cluster.controller.rounds import Rounds
from cluster.controller.settings import ControllerSettings, load_settings
from cluster.crd import RENDER_POOLS
from cluster.farm_client import FarmClient
from cluster.kube.client import Json, Kube, connect
from cluster.kube.election import Election
from cluster.kube.events import EventRecorder
from cluster.kube.informer import WATCH_S, Informer
from cluster.kube.lease import Timing
from cluster.kube.mirror import ChangeKind
from cluster.kube.resources import NODES, PODS
from cluster.signals import read_notices, read_pod_notices

log = logging.getLogger(__name__)

STUCK_S = 120.0
"""Seconds without a turn of the loop, beyond what a round may take, after which the process should be restarted."""


class Mirrors:
    """Mirrors of nodes, pods and RenderPools. `on_news` is called when something changed that a round acts on."""

    def __init__(
        self, kube: Kube, settings: ControllerSettings, *, on_news: Callable[[], None], random: Random
    ) -> None:
        self._on_news = on_news
        self._last: dict[str, list[object]] = {}
        space, pods = settings.namespace, settings.pod_selector
        self._pods = Informer(kube, PODS, self._on_pod, random=random, namespace=space, label_selector=pods)
        self._pools = Informer(kube, RENDER_POOLS, self._on_pool, random=random, namespace=space)
        self._nodes = Informer(kube, NODES, self._on_node, random=random) if settings.watch_nodes else None
        self.informers = [one for one in (self._nodes, self._pods, self._pools) if one is not None]

    def nodes(self) -> Sequence[Json]:
        """Kubernetes nodes."""
        return list(self._nodes.objects().values()) if self._nodes is not None else []

    def pods(self) -> Sequence[Json]:
        """Pods of the Ray cluster."""
        return list(self._pods.objects().values())

    def render_pools(self) -> Sequence[Json]:
        """RenderPools."""
        return list(self._pools.objects().values())

    # Heartbeats change nodes and pods all the time; a round is due only if their notices or specs changed.

    def _on_node(self, kind: ChangeKind, node: Json) -> None:
        notices = read_notices(node, now=time.time()) if kind != "deleted" else ()
        self._note(f"node {node['metadata']['name']}", [(one.signal.name, one.at) for one in notices])

    def _on_pod(self, kind: ChangeKind, pod: Json) -> None:
        notices = read_pod_notices(pod, now=time.time()) if kind != "deleted" else ()
        self._note(f"pod {pod['metadata']['name']}", [(one.signal.name, one.at) for one in notices])

    def _on_pool(self, kind: ChangeKind, pool: Json) -> None:
        # The status, which we write ourselves, changes no generation.
        meta = pool["metadata"]
        self._note(f"pool {meta['name']}", [meta.get("uid"), meta.get("generation")] if kind != "deleted" else [])

    def _note(self, about: str, state: list[object]) -> None:
        changed = state != self._last.get(about, [])
        if state:
            self._last[about] = state
        else:
            self._last.pop(about, None)
        if changed:
            self._on_news()


class Controller:
    """One process of the controller."""

    def __init__(
        self,
        settings: ControllerSettings,
        kube: Kube,
        *,
        random: Random | None = None,
        clock: Callable[[], float] = time.time,
        timing: Timing | None = None,
    ) -> None:
        random = random or Random()
        self.settings = settings
        self.me = f"{settings.name or socket.gethostname()}-{secrets.token_hex(4)}"
        self.metrics = ControllerMetrics()
        watching, kube = kube, kube.within(settings.request_timeout_s / 2)  # to connect, and to answer
        self._farm = FarmClient(
            settings.farm_url,
            api_key=settings.api_key,
            timeout_s=settings.request_timeout_s,
            agent=f"longtake-controller/{self.me}",
        )
        self.election = Election(
            kube,
            namespace=settings.namespace,
            name=settings.lease_name,
            me=self.me,
            random=random,
            timing=timing,
            on_change=lambda leads: self.loop.wake(),
        )
        self.mirrors = Mirrors(watching, settings, on_news=lambda: self.loop.wake(), random=random)
        rounds = Rounds(
            kube=kube,
            farm=self._farm,
            view=self.mirrors,
            drainer=Drainer(
                kube=kube,
                farm=self._farm,
                metrics=self.metrics,
                namespace=settings.namespace,
                limits=DrainLimits(settings.max_drained_share, settings.least_drain_s),
                heed_cordons=settings.heed_cordons,
            ),
            reconciler=Reconciler(kube=kube, farm=self._farm, metrics=self.metrics),
            events=EventRecorder(kube, self.me),
            metrics=self.metrics,
            namespace=settings.namespace,
            may_act=self._may_act,
            clock=clock,
        )
        self.loop = RoundLoop(
            rounds.run,
            leads=self._may_act,
            metrics=self.metrics,
            settle_s=settings.settle_s,
            resync_s=settings.resync_s,
            max_backoff_s=settings.max_backoff_s,
            random=random,
        )
        self.exporter = Exporter(
            settings.port, metrics=self.metrics.text, checks={"/healthz": self.sick, "/readyz": self.unready}
        )

    def run(self) -> None:
        """Work until stop(), then close everything and release the Lease."""
        log.info("the controller begins", extra={"action": "begin", "me": self.me})
        for informer in self.mirrors.informers:
            informer.start()
        self.election.start()
        try:
            self.loop.run()
        finally:
            self._close()
            log.info("the controller has ended", extra={"action": "end", "me": self.me})

    def stop(self) -> None:
        """End soon; from any thread, and from a signal's handler."""
        self.loop.stop()

    def sick(self) -> str:
        """Why the process should be restarted; empty if it is well."""
        if self.loop.silent_s() > STUCK_S + self.settings.resync_s + self.settings.max_backoff_s:
            return f"no round for {self.loop.silent_s():.0f} s"
        return ""

    def unready(self) -> str:
        """Why it could not take over now; empty if it could."""
        for informer in self.mirrors.informers:
            if not informer.synced:
                return "nothing is known of the cluster yet"
            if (informer.silent_s() or 0.0) > 3 * WATCH_S:
                return "nothing was heard of the cluster for long"
        return ""

    def _may_act(self) -> bool:
        # Before the first lists nothing is known, so nothing can be decided.
        return not self.loop.stopped and self.election.leads() and all(one.synced for one in self.mirrors.informers)

    def _close(self) -> None:
        """The Lease last: another controller may begin only when no request of ours is in progress."""
        within_s = self.settings.stop_s / 4
        for informer in self.mirrors.informers:
            informer.stop()
        self._farm.close()
        self.election.stop(2 * within_s)
        self.exporter.close()


def main(settings: ControllerSettings | None = None) -> int:
    """Run a controller until SIGTERM or SIGINT. Returns its exit code. Raises UserMistake for wrong settings."""
    settings = settings or load_settings(os.environ)
    set_up_logs(os.environ.get("LONGTAKE_LOG", ""))
    controller = Controller(settings, connect())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(controller))
    controller.run()
    return 0


def _end(controller: Controller) -> None:
    """Ask it to end, and force it after stop_s: a hanging request must not outlive the pod's grace period."""
    controller.stop()
    last = threading.Timer(controller.settings.stop_s, lambda: os._exit(1))
    last.daemon = True
    last.start()


def set_up_logs(form: str) -> None:
    """Lines on stderr; `form` as LONGTAKE_LOG has it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(choose_formatter(form, is_terminal=sys.stderr.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
