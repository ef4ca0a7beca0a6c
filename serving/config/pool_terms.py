"""The terms of pools: how many gangs a pool may have, and who decides. farm.yaml has the first; those that were set
while the farm ran (PUT /v1/pools/{name}/terms) are facts in the store and come before it, also after a restart.
"""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cluster.contract.pools_and_nodes import PoolTerms
from serving.config.farm import FarmConfig

TERMS = "terms"
"""Kind of these facts in the store; their names are those of the pools."""

log = logging.getLogger(__name__)


def read_terms(config: FarmConfig, stored: Mapping[str, Any]) -> dict[str, PoolTerms]:
    """The terms of every pool of a farm. A pool of a fixed size keeps those of its configuration, and so does one
    whose stored terms cannot be read."""
    return {
        pool.name: pool.terms if pool.scaling is None else _read(pool.name, stored.get(pool.name), pool.terms)
        for pool in config.pools
    }


def with_stored_spot(config: FarmConfig, stored: Mapping[str, Any]) -> FarmConfig:
    """The farm as it is to be deployed: what its terms say of spot nodes comes into force now."""
    terms = read_terms(config, stored)
    pools = tuple(pool.model_copy(update={"spot": terms[pool.name].spot}) for pool in config.pools)
    return config.model_copy(update={"pools": pools})


def _read(name: str, stored: Any, own: PoolTerms) -> PoolTerms:
    if stored is None:
        return own
    try:
        return PoolTerms.model_validate(stored)
    except ValidationError as error:
        log.warning(
            "the stored terms of pool %s are not understood: %s", name, error, extra={"action": "terms", "pool": name}
        )
        return own
