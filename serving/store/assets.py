"""Assets: files that storyboards name, of one tenant each, known by the sha256 of their bytes.

Knowing a hash gives no access: what a tenant has not sent is not there for it. The bytes lie among the artifacts; what
is known of them, and who uses them, is here. A row is written after the bytes and deleted before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, or_, select, update

from serving.errors import NotFound, UserError, WrongState
from serving.store.artifact_keys import asset_artifact
from serving.store.artifacts import Artifacts
from serving.store.database import Database
from serving.store.records import ENDED
from serving.store.rows import batches, insert_or
from serving.store.tables import assets, job_assets, jobs


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of one tenant. Times are Unix seconds."""

    tenant: str
    sha256: str
    """Hexadecimal."""
    media_type: str
    bytes: int
    width: int
    """Pixels, as stored."""
    height: int
    created_at: float
    used_at: float
    """When it was sent, or a job that names it was accepted last."""


@dataclass(frozen=True)
class AssetQuota:
    """How much one tenant may keep."""

    files: int
    bytes: int


class TooManyAssets(UserError):
    """A tenant has as much as it may."""


class MissingAssets(UserError):
    """A job names assets that its tenant has not sent."""

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(f"{len(missing)} assets are not there; the first is sha256:{missing[0]}")


class Assets:
    """Every tenant's assets. Methods raise StoreUnavailable, and those that move bytes ArtifactsUnavailable."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database = database
        self._artifacts = artifacts

    def add(self, asset: Asset, content: bytes, quota: AssetQuota) -> Asset:
        """Keep a file; one that is there already is used anew, and answered as it was kept. Raises TooManyAssets, also
        for a file that alone is too much. Requests at the same moment may pass the quota by one each."""
        if (there := self.find(asset.tenant, asset.sha256)) is not None:
            self._use(asset.tenant, [asset.sha256], asset.used_at)
            return there
        files, kept = self.usage(asset.tenant)
        if files + 1 > quota.files or kept + asset.bytes > quota.bytes:
            raise TooManyAssets(
                f"a tenant may keep {quota.files} assets of {quota.bytes} bytes in all; there are {files} of {kept},"
                f" and this one has {asset.bytes}"
            )
        self._artifacts.create(asset_artifact(asset.tenant, asset.sha256), content)
        with self._database.begin() as connection:
            statement = insert_or(connection, assets).values(vars(asset))
            connection.execute(statement.on_conflict_do_nothing())
        return asset

    def find(self, tenant: str, sha256: str) -> Asset | None:
        """The tenant's asset of this hash."""
        with self._database.read() as connection:
            row = connection.execute(select(assets).where(_is(tenant, [sha256]))).one_or_none()
        return None if row is None else Asset(**row._mapping)

    def list(self, *, tenant: str, after: str | None = None, limit: int) -> Sequence[Asset]:
        """A page of a tenant's assets by hash. `after` is the last hash of the page before."""
        query = select(assets).where(assets.c.tenant == tenant).order_by(assets.c.sha256).limit(limit)
        if after is not None:
            query = query.where(assets.c.sha256 > after)
        with self._database.read() as connection:
            return [Asset(**row._mapping) for row in connection.execute(query)]

    def usage(self, tenant: str | None = None) -> tuple[int, int]:
        """Files and bytes that a tenant keeps, or all tenants together."""
        query = select(func.count(), func.coalesce(func.sum(assets.c.bytes), 0))
        if tenant is not None:
            query = query.where(assets.c.tenant == tenant)
        with self._database.read() as connection:
            files, kept = connection.execute(query).one()
        return int(files), int(kept)

    def read(self, tenant: str, sha256: str) -> bytes:
        """A file's bytes. Raises ArtifactMissing."""
        return self._artifacts.get(asset_artifact(tenant, sha256))

    def delete(self, tenant: str, sha256: str) -> None:
        """Remove a file. Raises NotFound, WrongState while a job that has not ended uses it."""
        with self._database.begin() as connection:
            if not _there(connection, tenant, [sha256]):
                raise NotFound(f"there is no asset sha256:{sha256}")
            user = connection.execute(_users(tenant, sha256)).scalars().first()
            if user is not None:
                raise WrongState(f"asset sha256:{sha256} is used by job {user}, which has not ended")
            connection.execute(delete(assets).where(_is(tenant, [sha256])))
        self._artifacts.delete([asset_artifact(tenant, sha256)])

    def expire(self, *, unused_since: float) -> int:
        """Remove files that nobody has used since then: neither sent, nor named by a job that was accepted, goes on or
        ended later. Returns how many."""
        used = (
            select(jobs.c.id)
            .join(job_assets, job_assets.c.job_id == jobs.c.id)
            .where(job_assets.c.sha256 == assets.c.sha256, jobs.c.tenant == assets.c.tenant)
            .where(or_(jobs.c.status.not_in(ENDED), jobs.c.finished_at > unused_since))
            .exists()
        )
        with self._database.begin() as connection:
            old = delete(assets).where(assets.c.used_at <= unused_since, ~used)
            gone = connection.execute(old.returning(assets.c.tenant, assets.c.sha256)).all()
        self._artifacts.delete([asset_artifact(row.tenant, row.sha256) for row in gone])
        return len(gone)

    def _use(self, tenant: str, sha256s: Sequence[str], now: float) -> None:
        with self._database.begin() as connection:
            connection.execute(update(assets).where(_is(tenant, sha256s)).values(used_at=now))


def use_assets(connection: Connection, job_id: str, tenant: str, sha256s: Sequence[str], now: float) -> None:
    """Note, in the transaction that accepts a job, which assets it names. Raises MissingAssets."""
    there = _there(connection, tenant, sha256s)
    if missing := [sha256 for sha256 in sha256s if sha256 not in there]:
        raise MissingAssets(missing)
    if sha256s:
        connection.execute(update(assets).where(_is(tenant, sha256s)).values(used_at=now))
        connection.execute(insert(job_assets), [{"job_id": job_id, "sha256": sha256} for sha256 in sha256s])


def _there(connection: Connection, tenant: str, sha256s: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for batch in batches(sha256s):
        found |= set(connection.execute(select(assets.c.sha256).where(_is(tenant, batch))).scalars())
    return found


def _is(tenant: str, sha256s: Sequence[str]) -> ColumnElement[bool]:
    return and_(assets.c.tenant == tenant, assets.c.sha256.in_(sha256s))


def _users(tenant: str, sha256: str) -> Select[tuple[str]]:
    return (
        select(jobs.c.id)
        .join(job_assets, job_assets.c.job_id == jobs.c.id)
        .where(job_assets.c.sha256 == sha256, jobs.c.tenant == tenant, jobs.c.status.not_in(ENDED))
        .limit(1)
    )
