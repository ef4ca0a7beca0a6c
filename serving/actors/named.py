"""The farm's named actors: how each is found, started once, and ended for good."""

import time
from typing import Any

import ray

from serving import settings
from serving.errors import Fault

NAMESPACE = "longtake"
APP = "longtake"
DIRECTOR = "director"
ENDED_POLL_S = 0.05
"""Interval, in seconds, of checking whether an actor has ended."""

_SHARE = 0.001
"""Of CONTROL_RESOURCE, that one of them takes."""


def find_director() -> Any | None:
    """The Director's handle; None while there is none."""
    try:
        return ray.get_actor(DIRECTOR, namespace=NAMESPACE)
    except ValueError:
        return None


def end_actor(name: str) -> None:
    """End a named actor for good, and wait until its name is free. Raises Fault."""
    until = time.monotonic() + settings.KILLED_S
    while True:
        try:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
        except ValueError:
            return
        if time.monotonic() > until:
            raise Fault(f"the actor {name} does not end")
        time.sleep(ENDED_POLL_S)


def ensure_actor(actor: type, name: str, config: dict[str, Any]) -> Any:
    return (
        ray.remote(actor)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            num_cpus=0,
            resources={settings.CONTROL_RESOURCE: _SHARE},
        )
        .remote(config)
    )
