"""A farm for the controller's tests: real HTTP on loopback that keeps to cluster/contract/pools_and_nodes.py, and
faults to order.

It plays the Director: pools have gangs on nodes, terms are kept, a drain marks its node. Tests move it on by hand.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from pydantic import ValidationError

from cluster.contract.pools_and_nodes import (
    DrainRequest,
    NodeState,
    PoolDecision,
    PoolDemand,
    PoolState,
    PoolSupply,
    PoolTerms,
)
from testkit.json_object import Json

KEY = "lt_admin"


def pool_state(name: str = "wan", **changes: Any) -> PoolState:
    """A pool of the farm, with one gang that is busy."""
    supply = PoolSupply(ready=1, idle=0, starting=0, draining=0, cold_start_s=120.0)
    demand = PoolDemand(
        measured_at=0.0,
        backlog_gpu_s=1234.5,
        gpus_per_gang=2,
        calls_ready=3,
        calls_running=1,
        oldest_wait_s=1.0,
        required_gangs=0.5,
    )
    known = PoolState(
        name=name,
        model="Wan-AI/Wan2.2",
        gang_shape="ulysses=2",
        gpus_per_rank=1,
        terms=PoolTerms(),
        spot_applied="allow",
        demand=demand,
        supply=supply,
        decision=PoolDecision(gangs=1, reason="1 gang: it does", decided_at=0.0),
    )
    return known.model_copy(update=changes)


def node_state(name: str, *, address: str, gangs: tuple[str, ...] = (), **changes: Any) -> NodeState:
    """A Ray node; its id is made of its name."""
    known = NodeState(
        id=f"id-{name}",
        address=address,
        name=name,
        labels={},
        state="alive",
        gangs=gangs,
        timeline_hosts=(),
        calls=len(gangs),
    )
    return known.model_copy(update=changes)


@dataclass
class FarmDouble:
    """The farm. `with` starts it; its port stays the same over stop() and start()."""

    pools: dict[str, PoolState] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    terms_put: list[tuple[str, PoolTerms]] = field(default_factory=list)
    """Every change of terms that was carried out."""
    drains: list[tuple[str, DrainRequest]] = field(default_factory=list)
    """Every drain that was carried out, by id of the node."""
    asked: list[str] = field(default_factory=list)
    """Every request: `GET /v1/pools`."""
    writers: list[str] = field(default_factory=list)
    """User agent of every change, in order."""
    fail_next: int = 0
    """Requests that are answered with 503."""
    delay_s: float = 0.0
    refuse_terms: str = ""
    """Why terms are refused with 422, if they are."""
    refuse_drains: str = ""
    """Why drains are refused with 422, if they are."""
    port: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._http: ThreadingHTTPServer | None = None

    def add_pool(self, pool: PoolState) -> None:
        """The farm has one more pool, or another one of that name."""
        with self.lock:
            self.pools[pool.name] = pool

    def add_node(self, node: NodeState) -> None:
        """Its Ray cluster has one more node."""
        with self.lock:
            self.nodes[node.id] = node

    def change_node(self, node: str, **changes: Any) -> None:
        """Something happens to a node."""
        with self.lock:
            self.nodes[node] = self.nodes[node].model_copy(update=changes)

    def start(self) -> Self:
        """Answer."""
        self._http = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more; what it knows stays."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ------------------------------------------------------------------------------------------------ answers

    def answer(self, method: str, path: str, body: bytes, agent: str) -> tuple[int, Json]:
        parts = path.strip("/").split("/")
        with self.lock:
            self.asked.append(f"{method} {path}")
            if method != "GET":
                self.writers.append(agent)
            if self.fail_next > 0:
                self.fail_next -= 1
                return _problem(503, "a part of the farm cannot be reached")
            match [method, *parts]:
                case ["GET", "v1", "pools"]:
                    # As the real one: with members that the cluster does not know.
                    return 200, _list({**one.model_dump(mode="json"), "live": None} for one in self.pools.values())
                case ["GET", "v1", "nodes"]:
                    return 200, _list(one.model_dump(mode="json") for one in self.nodes.values())
                case ["PUT", "v1", "pools", name, "terms"]:
                    return self._put_terms(name, body)
                case ["POST", "v1", "nodes", name, "drain"]:
                    return self._drain(name, body)
        return _problem(404, "there is no such thing")

    def _put_terms(self, name: str, body: bytes) -> tuple[int, Json]:
        try:
            terms = PoolTerms.model_validate_json(body)
        except ValidationError as error:
            return _problem(422, str(error))
        if self.refuse_terms:
            return _problem(422, self.refuse_terms)
        if name not in self.pools:
            return _problem(404, f"there is no pool {name}")
        self.pools[name] = self.pools[name].model_copy(update={"terms": terms})
        self.terms_put.append((name, terms))
        return 200, self.pools[name].model_dump(mode="json")

    def _drain(self, node: str, body: bytes) -> tuple[int, Json]:
        try:
            request = DrainRequest.model_validate_json(body)
        except ValidationError as error:
            return _problem(422, str(error))
        if self.refuse_drains:
            return _problem(422, self.refuse_drains)
        if node not in self.nodes:
            return _problem(404, f"there is no node {node}")
        self.nodes[node] = self.nodes[node].model_copy(update={"state": "draining"})
        self.drains.append((node, request))
        return 200, self.nodes[node].model_dump(mode="json")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def _handler(farm: FarmDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if farm.delay_s:
                time.sleep(farm.delay_s)
            if self.headers.get("Authorization") == f"Bearer {KEY}":
                status, answer = farm.answer(self.command, self.path, body, str(self.headers.get("User-Agent")))
            else:
                status, answer = _problem(401, "an API key is needed")
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = _answer

        def log_message(self, *_: object) -> None:
            """Tests have `asked`."""

    return Handler


def _list(data: Any) -> Json:
    return {"object": "list", "data": list(data)}


def _problem(status: int, detail: str) -> tuple[int, Json]:
    return status, {"type": "about:blank", "title": "wrong", "status": status, "detail": detail, "code": "wrong"}
