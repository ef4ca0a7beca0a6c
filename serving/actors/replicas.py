"""What every replica of Serve does first: its log, and its ports."""

import functools
from typing import Any

from serving.settings import ray_is_local
from serving.telemetry.logs import set_up_logs


def set_up_replica() -> None:
    """To be called in the constructor of each deployment."""
    set_up_logs()
    if ray_is_local():
        _keep_ports_local()


def _keep_ports_local() -> None:
    """Serve opens a gRPC port of every replica on all addresses and unpickles what comes; only Ray's token, if it is
    on, keeps others out. It has no setting for the address. The port is opened after the constructor."""
    from ray.serve._private import replica

    module: Any = replica
    if not isinstance(module.add_port_to_grpc_server, functools.partial):
        module.add_port_to_grpc_server = functools.partial(_add_local_port, module.add_port_to_grpc_server)


def _add_local_port(add_port: Any, server: Any, address: str) -> int:
    port: int = add_port(server, address.replace("[::]", "127.0.0.1"))
    return port
