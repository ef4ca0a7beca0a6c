"""Counts what a farm's Ray cluster holds, for `python -m testkit.chaos.ray_inventory GCS_ADDRESS`: JSON on standard
output.
"""

import json
import logging
import sys

import ray
from ray._private import state  # ray.util.state asks the dashboard, which a farm does not run
from ray.util import placement_group_table


def main() -> None:
    ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
    actors = [one for one in state.actors().values() if one["State"] != "DEAD"]
    groups = [one for one in placement_group_table().values() if one["state"] != "REMOVED"]
    print(
        json.dumps(
            {
                "actors": sorted(one["ActorClassName"] for one in actors),
                "placement_groups": sorted(one["state"] for one in groups),
            }
        )
    )


if __name__ == "__main__":
    main()
