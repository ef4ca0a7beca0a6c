"""Hub ids against a hub of our own on localhost: what is fetched when, and that no answer never means a long wait."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from serving.errors import ModelError
from serving.models.hub import Hub
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint

REPOSITORY, REVISION = "tiny/wan", "0123456789abcdef0123456789abcdef01234567"


class TinyHub(BaseHTTPRequestHandler):
    """As much of the hub's API as the client needs to download one repository."""

    folder: ClassVar[Path]
    served: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        resolve = f"/{REPOSITORY}/resolve/{REVISION}/"
        if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"):
            self._send(json.dumps({"id": REPOSITORY, "sha": REVISION, "siblings": []}).encode(), with_body=with_body)
        elif path == f"/api/models/{REPOSITORY}/tree/{REVISION}":
            self._send(json.dumps(self._tree()).encode(), with_body=with_body)
        elif path.startswith(resolve):
            name = path.removeprefix(resolve)
            self.served.append(name)
            self._send((self.folder / name).read_bytes(), with_body=with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def _tree(self) -> list[dict[str, Any]]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [
            {"type": "file", "path": path.relative_to(self.folder).as_posix(), "size": path.stat().st_size, "oid": "0"}
            for path in files
        ]

    def _send(self, body: bytes, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def tiny_hub(tmp_path: Path) -> Iterator[Hub]:
    TinyHub.folder = write_tiny_checkpoint(tmp_path / "repository", "2.1")
    (TinyHub.folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle that nobody asked for")
    TinyHub.served.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), TinyHub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Hub(endpoint=f"http://127.0.0.1:{server.server_port}", cache=tmp_path / "cache")
    server.shutdown()
    server.server_close()
    thread.join()


def test_opening_a_hub_id_fetches_configs_and_rendering_the_rest(tiny_hub: Hub) -> None:
    model = open_model(REPOSITORY, hub=tiny_hub)
    assert model.capabilities.window == 4
    assert model.denoiser_bytes("cpu") > 0
    assert not any(name.endswith(".safetensors") for name in TinyHub.served)

    model.open_codec()
    assert {name for name in TinyHub.served if name.endswith(".safetensors")} == {
        "vae/diffusion_pytorch_model.safetensors"
    }

    assert len(model.encode_prompts(["a red ball"])) == 1
    assert model.weights_hash() == open_model(str(TinyHub.folder)).weights_hash()
    assert not any(name.endswith(".bin") for name in TinyHub.served)


def test_what_was_fetched_opens_again_without_the_hub(tiny_hub: Hub) -> None:
    open_model(REPOSITORY, hub=tiny_hub).open_codec()
    unreachable = Hub(endpoint=closed_endpoint(), cache=tiny_hub.cache)

    model = open_model(REPOSITORY, hub=unreachable)

    model.open_codec()
    with pytest.raises(ModelError, match=r"cannot reach the hub, and the tokenizer .* was not fetched before"):
        model.encode_prompts(["a red ball"])


def test_an_id_that_the_hub_does_not_know_is_refused_with_the_nearest_match(tiny_hub: Hub) -> None:
    with pytest.raises(ModelError, match=r"no model 'Wan-AI/Wan2.1-T2V-1B-Diffusers'.*did you mean 'Wan-AI/Wan2.1"):
        open_model("Wan-AI/Wan2.1-T2V-1B-Diffusers", hub=tiny_hub)


def test_a_hub_that_cannot_be_reached_is_a_model_error_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ModelError, match=r"cannot reach the hub for 'Wan-AI/Wan2.2-TI2V-5B-Diffusers'"):
        open_model("Wan-AI/Wan2.2-TI2V-5B-Diffusers", hub=Hub(endpoint=closed_endpoint(), cache=tmp_path))
    assert waits == []


def test_a_hub_that_never_answers_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ModelError, match="cannot reach the hub"):
            open_model(REPOSITORY, hub=Hub(endpoint=endpoint, timeout_s=0.5, cache=tmp_path))


def test_offline_mode_of_the_hub_client_is_a_model_error(tmp_path: Path) -> None:
    program = "from serving.models.registry import open_model; open_model('tiny/wan')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert "ModelError: cannot reach the hub for 'tiny/wan'" in done.stderr


def closed_endpoint() -> str:
    """An address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
