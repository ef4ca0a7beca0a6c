"""A fake API server as a process of its own, spoken to over TLS: for tests, a cluster like any other.

    python -m tests.cluster.api_server KUBECONFIG

Writes a kubeconfig there once it listens, and serves until its standard input ends. With that file as
LONGTAKE_KUBECONFIG the tests go the way that they go with a real cluster, and can harm nothing.
"""

import sys
from pathlib import Path

from tests.cluster.api_server.server import KubeServer


def main(kubeconfig: Path) -> None:
    with KubeServer(tls=True) as server:
        beside = server.kubeconfig(kubeconfig.with_name(f"{kubeconfig.name}.new"))
        beside.rename(kubeconfig)  # so that a reader never sees half of it
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
