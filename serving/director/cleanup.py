"""Periodically removes what has outlived its use, beside everything else that a Director does."""

import asyncio
import logging
from collections.abc import Callable, Collection

from serving.config.farm import RetentionConfig, seconds
from serving.errors import ArtifactsUnavailable, StoreUnavailable
from serving.store.artifact_retention import Retention, apply_retention, plan_retention
from serving.store.artifacts import Artifacts
from serving.store.assets import Assets
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.row_expiry import forget_old_rows

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 15.0
"""Seconds between two times that the Director removes unfinished writes of processes that were killed."""

CLEAN_EVERY_S = 3600.0
"""Seconds between two times that the Director removes what has outlived its use."""


class Cleanup:
    """Removes unfinished writes of dead writers, artifacts that no job needs any more, and old rows."""

    def __init__(
        self,
        database: Database,
        jobs: JobStore,
        artifacts: Artifacts,
        retention: RetentionConfig,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._artifacts = artifacts
        self._retention = retention
        self._clock = clock

    async def run(self, *, prompts_in_use: Callable[[], Collection[str]], is_retired: Callable[[], bool]) -> None:
        """Clean up periodically. A slow or absent store delays only this. A Director that has been replaced leaves all
        but unfinished writes to the next."""
        cleaned_at = 0.0
        while True:
            now = self._clock()
            try:
                await asyncio.to_thread(self._artifacts.sweep_partials, now=now)
                if now - cleaned_at >= CLEAN_EVERY_S and not is_retired():
                    cleaned_at = now
                    await asyncio.to_thread(self.remove_unused, now, prompts_in_use())
            except (StoreUnavailable, ArtifactsUnavailable) as error:
                log.warning("the cleanup is put off: %s", error, extra={"action": "tidy"})
            except Exception:
                log.exception("the cleanup failed", extra={"action": "tidy"})
            await asyncio.sleep(SWEEP_EVERY_S)

    def remove_unused(self, now: float, prompts_in_use: Collection[str]) -> int:
        """Forget old rows, then what no job needs any more; returns how many artifacts were removed.

        `prompts_in_use`: artifact keys of embeddings that are needed now. Raises StoreUnavailable,
        ArtifactsUnavailable.
        """
        kept = self._retention
        forget_old_rows(self._database, now=now, events_kept_s=seconds(kept.events_days))
        if (assets_kept_s := seconds(kept.assets_days)) is not None:
            Assets(self._database, self._artifacts).expire(unused_since=now - assets_kept_s)
        retention = Retention(unused_s=seconds(kept.takes_days), films_s=seconds(kept.films_days))
        artifacts = self._artifacts.list()  # before the jobs: what is made meanwhile is not among them
        doomed = plan_retention(
            artifacts, self._jobs.uses(), prompts_in_use=prompts_in_use, now=now, retention=retention
        )
        apply_retention(self._artifacts, doomed)
        if doomed:
            log.info("%d artifacts have outlived their use", len(doomed), extra={"action": "retention"})
        return len(doomed)
