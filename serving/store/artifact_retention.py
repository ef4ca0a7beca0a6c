"""Which artifacts may be deleted: what no job can still need, and what nobody has used for long.

`plan_retention` decides, on facts that it is given; `apply_retention` deletes. Whoever calls them must know every job:
what no job names counts as unused.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from serving import settings
from serving.store.artifacts import ArtifactInfo, Artifacts
from serving.store.records import JobUse

DELETED_FILMS_S = 86_400.0
"""Seconds that the film of a deleted job is kept."""

ABANDONED_UPLOADS_S = 86_400.0
"""Seconds after its newest piece that an upload is taken for one that nobody goes on with."""


DELETE_AT_ONCE = 1000
"""Keys deleted in one request, the most that S3 takes."""

SUPERSEDED_HEADS_S = 3600.0
"""Seconds that a head of a take is kept after a longer one: whoever watches it may go on to its end."""

_HEAD = re.compile(r"takes/[^/]+/head-(\d+)\.mp4")
"""The head of a take; the number is its length in frames."""

_UNIT = re.compile(r"((?:takes|films)/[^/]+(?=/)|prompts/[^/]+/[^/]+$|uploads/[^/]+/[^/]+(?=/)).*")
"""What lives and dies together: all of a take, all that belongs to a film, one prompt, the pieces of one upload."""


@dataclass(frozen=True)
class Retention:
    """How long artifacts are kept, in seconds; None: forever."""

    unused_s: float | None = settings.UNUSED_ARTIFACTS_S
    """Takes and prompts, from the end of the last job that used them."""
    films_s: float | None = None
    """Films, from the end of their job."""
    deleted_films_s: float = DELETED_FILMS_S
    """Films, from the deletion of their job."""


def plan_retention(
    artifacts: Iterable[ArtifactInfo],
    jobs: Iterable[JobUse],
    *,
    prompts_in_use: Collection[str] = (),
    now: float,
    retention: Retention,
) -> list[str]:
    """The keys of all artifacts that may go, ascending. `prompts_in_use` are keys of prompts that are needed now.

    Nothing goes that a job needs which has not ended, nor what is younger than its time; of the heads of a take only
    the longest is needed. What follows no known layout
    is left alone. A job that is accepted between the listing of `jobs` and the deletion may find its takes gone, and
    then renders them again.
    """
    units: dict[str, list[ArtifactInfo]] = {}
    for info in artifacts:
        if match := _UNIT.fullmatch(info.key):
            units.setdefault(match[1], []).append(info)
    gone_at = _times_to_go(jobs, retention) | dict.fromkeys(prompts_in_use, math.inf)
    doomed = (infos for unit, infos in units.items() if _may_go(unit, infos, gone_at, now=now, retention=retention))
    superseded = (info for infos in units.values() for info in _superseded_heads(infos, now))
    return sorted({info.key for infos in doomed for info in infos} | {info.key for info in superseded})


def apply_retention(artifacts: Artifacts, keys: Sequence[str]) -> None:
    """Delete what `plan_retention` named. Raises ArtifactsUnavailable; the rest goes the next time."""
    for at in range(0, len(keys), DELETE_AT_ONCE):
        artifacts.delete(keys[at : at + DELETE_AT_ONCE])


def _times_to_go(jobs: Iterable[JobUse], retention: Retention) -> dict[str, float]:
    """When each unit that jobs use may go, in unix seconds."""
    times: dict[str, float] = {}
    for job in jobs:
        until = math.inf if job.ended_at is None else job.ended_at + _kept(retention.unused_s)
        for key in job.content_keys:
            times[f"takes/{key}"] = max(times.get(f"takes/{key}", 0.0), until)
        if job.deleted_at is not None:
            times[f"films/{job.job_id}"] = job.deleted_at + retention.deleted_films_s
        else:
            times[f"films/{job.job_id}"] = math.inf if job.ended_at is None else job.ended_at + _kept(retention.films_s)
    return times


def _may_go(
    unit: str, infos: Sequence[ArtifactInfo], times: Mapping[str, float], *, now: float, retention: Retention
) -> bool:
    written_at = max(info.modified_at for info in infos)
    if unit.startswith("films/"):
        return times.get(unit, written_at + retention.deleted_films_s) < now
    if unit.startswith("uploads/"):
        return written_at + ABANDONED_UPLOADS_S < now
    return max(times.get(unit, 0.0), written_at + _kept(retention.unused_s)) < now


def _superseded_heads(infos: Sequence[ArtifactInfo], now: float) -> Iterator[ArtifactInfo]:
    """Heads of a take that a longer one has replaced for long."""
    lengths = {int(match[1]): info for info in infos if (match := _HEAD.fullmatch(info.key))}
    heads = [lengths[frames] for frames in sorted(lengths)]
    for shorter, longer in itertools.pairwise(heads):
        if longer.modified_at + SUPERSEDED_HEADS_S < now:
            yield shorter


def _kept(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
