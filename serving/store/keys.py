"""API keys and what each tenant may do.

A secret is 256 random bits, so its SHA-256 is kept and no slow hash: those protect passwords that people choose and
others can guess; nobody guesses 256 bits, and every request would pay for the slowness.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from serving.errors import NotFound, UserError
from serving.store.database import Database
from serving.store.ids import new_id
from serving.store.rows import insert_or
from serving.store.tables import api_keys, tenants

_WORD = "lt"

MIN_SECRET_CHARS = 32
"""Characters of a secret that was not made here: 16 random bytes in hexadecimal are this many."""


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret."""

    id: str
    tenant: str
    name: str
    """What its owner calls it."""
    created_at: float
    revoked_at: float | None = None

    @property
    def actor(self) -> str:
        """Who acts with it, as events and the audit log say."""
        return f"{self.tenant}/{self.name}"


@dataclass(frozen=True)
class TenantSettings:
    """What a tenant may do. None: as the farm's limits say."""

    name: str
    weight: float = 1.0
    """Share of the farm against other tenants that want it at the same time."""
    max_concurrent_jobs: int | None = None
    max_concurrent_calls: int | None = None
    requests_per_minute: int | None = None


class ApiKeys:
    """Keys and tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, tenant: str, name: str, now: float) -> tuple[ApiKey, str]:
        """A new key and its secret, which is shown this once and kept nowhere."""
        key = ApiKey(new_id("key", now), tenant, name, created_at=now)
        secret = f"{_WORD}_{key.id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"
        with self._database.begin() as connection:
            connection.execute(insert(api_keys).values(**asdict(key), secret_sha256=_digest(secret)))
        return key, secret

    def adopt(self, secret: str, *, tenant: str, name: str, now: float) -> ApiKey:
        """Make a key of a secret that somebody else made, `lt_<id>_<MIN_SECRET_CHARS characters or more>`.

        A second time changes nothing. Raises UserError for another form, for the id of another key, and for a revoked
        key.
        """
        word, _, rest = secret.partition("_")
        identity, _, chance = rest.partition("_")
        form = f"{_WORD}_<id>_<secret>, the id of 1 to 40 letters and digits, the secret of {MIN_SECRET_CHARS} or more"
        known = secret.isascii() and secret.isprintable() and " " not in secret
        if word != _WORD or not (known and re.fullmatch(r"[A-Za-z0-9]{1,40}", identity)):
            raise UserError(f"an administrator's key must be written {form}")
        if len(chance) < MIN_SECRET_CHARS:
            raise UserError(
                f"the secret of an administrator's key has {len(chance)} characters; it must be written {form}"
            )
        key = ApiKey(f"key_{identity}", tenant, name, created_at=now)
        with self._database.begin() as connection:
            statement = insert_or(connection, api_keys).values(**asdict(key), secret_sha256=_digest(secret))
            connection.execute(statement.on_conflict_do_nothing(index_elements=["id"]))
        found = self.find(secret)
        if found is None:
            raise UserError(f"the id {identity} belongs to another key, or to one that was revoked; make a new one")
        return found

    def find(self, secret: str) -> ApiKey | None:
        """The key of a secret, unless it is revoked or there is none."""
        word, _, rest = secret.partition("_")
        identity, _, chance = rest.partition("_")
        if word != _WORD or not (chance and secret.isascii() and secret.isprintable()):
            return None
        row = self._valid(f"key_{identity}")
        if row is None or not hmac.compare_digest(row.secret_sha256, _digest(secret)):
            return None
        return ApiKey(row.id, row.tenant, row.name, row.created_at)

    def sign(self, key_id: str, message: bytes) -> str:
        """A signature of a message by a key, URL-safe. Raises NotFound if the key is revoked or there is none."""
        row = self._valid(key_id)
        if row is None:
            raise NotFound(f"there is no key {key_id}, or it is revoked")
        return _signature(row.secret_sha256, message)

    def find_signer(self, key_id: str, message: bytes, signature: str) -> ApiKey | None:
        """The key, if the signature is its own and it is not revoked."""
        row = self._valid(key_id)
        if row is None or not hmac.compare_digest(_signature(row.secret_sha256, message).encode(), signature.encode()):
            return None
        return ApiKey(row.id, row.tenant, row.name, row.created_at)

    def list(self, *, tenant: str | None = None) -> Sequence[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        fields = (api_keys.c.id, api_keys.c.tenant, api_keys.c.name, api_keys.c.created_at, api_keys.c.revoked_at)
        query = select(*fields).order_by(api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        with self._database.read() as connection:
            return [ApiKey(**row._mapping) for row in connection.execute(query)]

    def revoke(self, key_id: str, *, now: float, tenant: str | None = None) -> ApiKey:
        """End a key at once; a second time changes nothing. Raises NotFound."""
        theirs = (api_keys.c.id == key_id, *(() if tenant is None else (api_keys.c.tenant == tenant,)))
        with self._database.begin() as connection:
            valid = api_keys.c.revoked_at.is_(None)
            connection.execute(update(api_keys).where(*theirs, valid).values(revoked_at=now))
            row = connection.execute(select(api_keys).where(*theirs)).first()
        if row is None:
            raise NotFound(f"there is no key {key_id}")
        return ApiKey(row.id, row.tenant, row.name, row.created_at, row.revoked_at)

    def _valid(self, key_id: str) -> Row[Any] | None:
        query = select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            return connection.execute(query).first()

    # ------------------------------------------------------------------------------------------------ tenants

    def tenant(self, name: str) -> TenantSettings:
        """What a tenant may do; the defaults if nothing was set."""
        return self.tenants().get(name, TenantSettings(name))

    def tenants(self) -> dict[str, TenantSettings]:
        """All tenants for which something was set, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(tenants).order_by(tenants.c.name)).all()
        return {
            row.name: TenantSettings(
                row.name, row.weight, row.max_concurrent_jobs, row.max_concurrent_calls, row.requests_per_minute
            )
            for row in rows
        }

    def put_tenant(self, tenant: TenantSettings, *, now: float) -> None:
        """Set what a tenant may do. Raises ValueError for a weight that is not above 0 or a limit below 0."""
        limits = (tenant.max_concurrent_jobs, tenant.max_concurrent_calls, tenant.requests_per_minute)
        if not 0 < tenant.weight < float("inf") or any(limit is not None and limit < 0 for limit in limits):
            raise ValueError(f"a weight must be above 0 and a limit not below: {tenant}")
        row = {**asdict(tenant), "updated_at": now}
        with self._database.begin() as connection:
            statement = insert_or(connection, tenants).values(row)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _signature(secret_sha256: str, message: bytes) -> str:
    """HMAC-SHA256 (RFC 2104), keyed with the digest of the API key: as hard to guess as its secret, and known to the
    store alone."""
    made = hmac.digest(secret_sha256.encode(), message, "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()
