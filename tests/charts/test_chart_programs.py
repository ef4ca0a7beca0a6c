"""The two programs that the chart carries: one fetches pinned weights, the other is `helm test`."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.charts.chart_rendering import CHART, only, render, values_of

KEY = "lt_1_secret"
TIMEOUT_S = 60
REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model_index.json": b"{}", "transformer/weights.safetensors": b"weights", "transformer/pickle.bin": b"evil"}


# -------------------------------------------------------------------------------------------------- helm test


class Farm(BaseHTTPRequestHandler):
    """As much of a farm's API as the test asks for."""

    ready = True

    def do_GET(self) -> None:
        if self.path == "/readyz":
            self._answer(200 if self.ready else 503, {"status": "ok" if self.ready else "unavailable"})
        elif self.headers.get("Authorization") != f"Bearer {KEY}":
            self._answer(401, {"title": "no such key"})
        else:
            self._answer(200, {"object": "list", "data": [{"name": "default"}, {"name": "other"}]})

    def _answer(self, code: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of its own at a free port of this machine; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def farm_url() -> Iterator[str]:
    with serving(Farm) as url:
        yield url


def run_test(url: str, *pools: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """Run it as the pod does, with the command and the program of the rendered pod."""
    (container,) = only(render(values_of("minimal")), "Pod")["spec"]["containers"]
    program, _, *_ = container["args"]
    assert container["command"] == ["python", "-c"]
    command = [sys.executable, "-c", program, url, *pools]
    environment = {"LONGTAKE_API_KEY": key, "NO_PROXY": "*"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


def test_helm_test_is_content_with_a_farm_that_has_the_pools(farm_url: str) -> None:
    done = run_test(farm_url, "default")
    assert (done.returncode, done.stdout) == (0, "ready default\n"), done.stderr


def test_helm_test_names_the_pool_that_is_missing(farm_url: str) -> None:
    done = run_test(farm_url, "default", "third")
    assert done.returncode == 1
    assert "has no pool third" in done.stderr


def test_helm_test_tells_that_the_key_is_wrong(farm_url: str) -> None:
    done = run_test(farm_url, "default", key="lt_1_other")
    assert done.returncode == 1
    assert "401" in done.stderr


def test_helm_test_tells_that_the_farm_is_not_ready(farm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Farm, "ready", False)
    done = run_test(farm_url, "default")
    assert done.returncode == 1
    assert "503" in done.stderr


def test_helm_test_tells_that_nobody_answers() -> None:
    done = run_test("http://127.0.0.1:9", "default")
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr


# ---------------------------------------------------------------------------------------------------- weights


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as fetching a snapshot asks for: one repository at one commit."""

    def do_GET(self) -> None:
        self._serve(True)

    def do_HEAD(self) -> None:
        self._serve(False)

    def _serve(self, with_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[4:6] == ["revision", REVISION]:
            about = {"id": "org/name", "sha": REVISION, "siblings": [{"rfilename": name} for name in FILES]}
            self._answer(json.dumps(about).encode(), {}, with_body)
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            tree = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in FILES.items()]
            self._answer(json.dumps(tree).encode(), {}, with_body)
        elif parts[2:4] == ["resolve", REVISION] and "/".join(parts[4:]) in FILES:
            body = FILES["/".join(parts[4:])]
            self._answer(body, {"X-Repo-Commit": REVISION, "ETag": f'"{len(body)}"'}, with_body)
        else:
            self.send_error(404)

    def _answer(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub_url() -> Iterator[str]:
    with serving(FakeHub) as url:
        yield url


def run_offline(home: Path, program: str) -> str:
    """What a program prints that has the fetched files and no network, as Ray's containers."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_weights_are_fetched_at_their_commit_and_found_offline(hub_url: str, tmp_path: Path) -> None:
    command = [sys.executable, str(CHART / "files" / "fetch_weights.py"), f"org/name@{REVISION}"]
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub_url, "PATH": "", "NO_PROXY": "*"}
    for _ in range(2):  # a second time it changes nothing
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
    program = (
        "from serving.models.hub import Hub; found = Hub().find('org/name'); found.fetch('transformer');"
        "print(found.offline, found.folder)"
    )
    offline, folder = run_offline(tmp_path, program).split()
    assert offline == "True"
    assert Path(folder).name == REVISION
    assert (Path(folder) / "transformer" / "weights.safetensors").read_bytes() == b"weights"
    assert not (Path(folder) / "transformer" / "pickle.bin").exists(), "nothing pickled is ever fetched"
    assert [path.name for path in (tmp_path / "hub" / "models--org--name" / "refs").iterdir()] == ["main"]


def test_a_commit_that_the_hub_does_not_have_stops_the_pod(hub_url: str, tmp_path: Path) -> None:
    command = [sys.executable, str(CHART / "files" / "fetch_weights.py"), f"org/name@{'f' * 40}"]
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub_url, "PATH": "", "NO_PROXY": "*"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode != 0
