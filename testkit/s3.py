"""A real S3 server (moto) for the tests of artifacts, one for the whole run."""

import contextlib
import logging
import uuid
from collections.abc import Iterator

import httpx
import pytest


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with an empty bucket `farm`; credentials are in the environment meanwhile."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/farm").raise_for_status()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of this session."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3_url(s3_endpoint: str) -> str:
    """The URL of an empty artifact store on that server."""
    return f"s3://farm/{uuid.uuid4().hex}?endpoint={s3_endpoint}&region=us-east-1"
