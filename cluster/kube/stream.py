"""The answer to a watch: one JSON object per line for as long as the server keeps the connection.

Reads and takes lines apart; what an event means is informer.py's matter.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from cluster.kube.errors import Unavailable

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Bytes of one event. An object has 1.5 MiB at most in etcd; JSON with escapes and managedFields is longer."""

READ_BYTES = 64 * 1024


class WatchStream:
    """Events as they come. One thread reads, any thread may close it."""

    def __init__(self, response: urllib3.BaseHTTPResponse, *, what: str) -> None:
        self._response = response
        self._what = what
        self._reading = False
        self._closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Ends when the server ends the stream or it was closed. Raises Unavailable if the connection breaks, stays
        silent for too long, or carries something else than events."""
        self._reading = True
        try:
            if not self._closed:
                yield from events_of(self._response.stream(READ_BYTES, decode_content=True))
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            # AttributeError is the standard library's, when close() takes the socket away during a read.
            if not self._closed:
                raise Unavailable(f"{self._what}: the stream broke: {error}") from error
        finally:
            self._response.close()

    def close(self) -> None:
        """Give the connection up; a read in progress ends at once."""
        self._closed = True
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()
        if not self._reading:  # otherwise the reader closes it: a file may not be closed under a read
            self._response.close()


def events_of(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Each whole line of a stream that comes in pieces. A last line without an end was cut off and is dropped. Raises
    ValueError for a line that is no JSON object, or has more than MAX_EVENT_BYTES."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *lines, rest = rest.split(b"\n")
            yield from (_event(bytes(line)) for line in lines if line.strip())
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")


def _event(line: bytes) -> dict[str, Any]:
    event = json.loads(line)
    if not isinstance(event, dict):
        raise ValueError(f"an event that is no object: {line[:100]!r}")
    return event
