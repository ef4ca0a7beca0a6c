"""`python -m cluster.controller`: the controller as a process, with the same exit codes as the command line."""

import sys

from cluster.controller.process import main
from cluster.errors import ClusterError
from cluster.kube.errors import KubeError

if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClusterError, KubeError) as error:
        print(f"longtake: {error}", file=sys.stderr)
        sys.exit(2)
