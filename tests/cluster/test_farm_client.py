"""The controller's client against the farm's real API and against the farm of these tests: the two must not differ."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.contract.pools_and_nodes import DrainRequest, PoolTerms
from cluster.errors import FarmRefused, FarmUnavailable
from cluster.farm_client import FarmClient
from serving.config.farm import PoolConfig, ScalingConfig
from tests.cluster.controller.farm_double import KEY, FarmDouble, node_state, pool_state
from tests.serving.api.api_double import running

DRAIN = DrainRequest(cause="spot", reason="the cloud takes it back", deadline_s=100.0)


@dataclass
class Farm:
    """A farm with the pool `wan` and the node `a`."""

    url: str
    key: str

    def client(self, key: str | None = None) -> FarmClient:
        return FarmClient(self.url, api_key=key or self.key, timeout_s=5.0)


@pytest.fixture(params=["double", "real"])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    node = node_state("a", address="10.0.0.1", gangs=("wan-x-0",))
    if request.param == "double":
        with FarmDouble() as double:
            double.add_pool(pool_state())
            double.add_node(node)
            yield Farm(double.url, KEY)
        return
    pool = PoolConfig(name="wan", min_gangs=0, max_gangs=1, scaling=ScalingConfig())
    with running(tmp_path, auth="on", pools=(pool,)) as api:
        api.live.there = [node]
        yield Farm(api.url, api.key("admin")["Authorization"].removeprefix("Bearer "))


def test_pools_and_nodes_are_understood(farm: Farm) -> None:
    with farm.client() as client:
        (pool,) = client.pools()
        (node,) = client.nodes()
    assert (pool.name, pool.terms) == ("wan", PoolTerms())
    assert (node.name, node.address, node.gangs) == ("a", "10.0.0.1", ("wan-x-0",))


def test_terms_are_taken_and_shown(farm: Farm) -> None:
    terms = PoolTerms(min_gangs=1, max_gangs=5, mode="external", replicas=3, spot="avoid")
    with farm.client() as client:
        client.put_terms("wan", terms)
        client.put_terms("wan", terms)
        (pool,) = client.pools()
    assert pool.terms == terms


def test_a_drain_is_taken_twice(farm: Farm) -> None:
    with farm.client() as client:
        (node,) = client.nodes()
        client.drain(node.id, DRAIN)
        client.drain(node.id, DRAIN)


def test_what_is_not_there_is_refused_with_the_farms_words(farm: Farm) -> None:
    with farm.client() as client:
        with pytest.raises(FarmRefused) as refused:
            client.put_terms("no such/pool", PoolTerms())
        assert (refused.value.status, bool(refused.value.code)) == (404, True)
        with pytest.raises(FarmRefused) as refused:
            client.drain("nosuch", DRAIN)
        assert refused.value.status == 404


def test_a_wrong_key_is_refused(farm: Farm) -> None:
    with farm.client("lt_wrong") as client, pytest.raises(FarmRefused) as refused:
        client.nodes()
    assert refused.value.status == 401


class Odd(BaseHTTPRequestHandler):
    """Answers that no farm gives."""

    def do_GET(self) -> None:
        status, body = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "does not answer as a farm does"),
        (200, b"[]", "does not answer as a farm does"),
        (200, b"{}", "does not answer as a farm of this release does"),
        (200, json.dumps({"data": [{"name": "wan"}]}).encode(), "does not answer as a farm of this release does"),
        (503, b"", "the farm answered 503"),
        (429, json.dumps({"detail": "too many"}).encode(), "too many"),
    ],
)
def test_an_answer_that_is_none_may_be_better_later(status: int, body: bytes, words: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        server.answers = [(status, body)]  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with (
            FarmClient(f"http://127.0.0.1:{server.server_port}", api_key=None, timeout_s=5) as client,
            pytest.raises(FarmUnavailable, match=words) as unavailable,
        ):
            client.pools()
        thread.join()
    assert unavailable.value.retry_after_s == (7.0 if status != 200 else None)


def test_a_farm_that_is_not_there_or_says_nothing_is_unavailable_within_the_timeout() -> None:
    with HTTPServer(("127.0.0.1", 0), Odd) as server, pytest.raises(FarmUnavailable, match="does not answer in time"):
        # It listens, and nobody takes the request.
        FarmClient(f"http://127.0.0.1:{server.server_port}", api_key=None, timeout_s=0.2).pools()
    with pytest.raises(FarmUnavailable, match=r"does not answer \(ConnectError\)"):
        FarmClient("http://127.0.0.1:9", api_key=None, timeout_s=1.0).pools()
