"""Which artifacts may be deleted: what no job can still need, and what nobody has used for long.

`plan_retention` decides, on facts that it is given; `apply_retention` deletes. Whoever calls them must know every job:
what no job names counts as unused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from serving import settings
from serving.store.artifacts import ArtifactInfo, Artifacts

DELETE_AT_ONCE = 1000
"""Keys deleted in one request, the most that S3 takes."""

_UNIT = re.compile(r"((?:takes|films)/[^/]+(?=/)|prompts/[^/]+/[^/]+$).*")
"""What lives and dies together: all of a take, all that belongs to a film, one prompt."""


@dataclass(frozen=True)
class Retention:
    """How long artifacts are kept that no live job needs."""

    unused_s: float = settings.UNUSED_ARTIFACTS_S
    """Seconds for takes and prompts, from the end of the last job that used them."""
    deleted_films_s: float = settings.DELETED_FILMS_S
    """Seconds for films, from the deletion of their job. The film of a job that is not deleted is kept for ever."""


@dataclass(frozen=True)
class JobUse:
    """A job and the artifacts that it was, is or will be made from."""

    job_id: str
    content_keys: frozenset[str]
    """Of its takes."""
    prompt_keys: frozenset[str] = frozenset()
    """Artifact keys of the embeddings of its prompts."""
    ended_at: float | None = None
    """Unix seconds when it was completed, failed or cancelled, or deleted; None while it may still go on."""
    deleted_at: float | None = None
    """Unix seconds when it was deleted; None while it exists."""


def plan_retention(
    artifacts: Iterable[ArtifactInfo], jobs: Iterable[JobUse], *, now: float, retention: Retention
) -> list[str]:
    """The keys of all artifacts that may go, ascending.

    Nothing goes that a job needs which has not ended, nor the film of a job that exists, nor what is younger than its
    time. What follows no known layout is left alone. No job may be accepted between the listing of `jobs` and the
    deletion; one that were could find its takes gone, and would render them again.
    """
    units: dict[str, list[ArtifactInfo]] = {}
    for info in artifacts:
        if match := _UNIT.fullmatch(info.key):
            units.setdefault(match[1], []).append(info)
    uses = _last_uses(jobs)
    doomed = (infos for unit, infos in units.items() if _may_go(unit, infos, uses, now=now, retention=retention))
    return sorted(info.key for infos in doomed for info in infos)


def apply_retention(artifacts: Artifacts, keys: Sequence[str]) -> None:
    """Delete what `plan_retention` named. Raises ArtifactsUnavailable; the rest goes the next time."""
    for at in range(0, len(keys), DELETE_AT_ONCE):
        artifacts.delete(keys[at : at + DELETE_AT_ONCE])


def _last_uses(jobs: Iterable[JobUse]) -> Mapping[str, float]:
    """When each unit was last needed, in unix seconds: infinity where it still is."""
    uses: dict[str, float] = {}
    for job in jobs:
        for unit, until in _uses_of(job):
            uses[unit] = max(uses.get(unit, until), until)
    return uses


def _uses_of(job: JobUse) -> Iterator[tuple[str, float]]:
    forever = float("inf")
    yield f"films/{job.job_id}", forever if job.deleted_at is None else job.deleted_at
    until = forever if job.ended_at is None else job.ended_at
    yield from ((f"takes/{key}", until) for key in job.content_keys)
    yield from ((key, until) for key in job.prompt_keys)


def _may_go(
    unit: str, infos: Sequence[ArtifactInfo], uses: Mapping[str, float], *, now: float, retention: Retention
) -> bool:
    """Whether the last use of a unit, and the last write to it, lie far enough back."""
    keep_s = retention.deleted_films_s if unit.startswith("films/") else retention.unused_s
    last = max(uses.get(unit, 0.0), *(info.modified_at for info in infos))
    return last + keep_s < now
