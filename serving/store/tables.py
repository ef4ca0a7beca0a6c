"""The tables. A change here needs a migration beside it; a test compares the two on every database.

Rows that change every second (jobs, takes) are kept small: a job's storyboard never changes, and so lies apart. JSON is
kept as text, in the order in which it came; nothing is searched in it. What is searched has an index that also sorts.
"""

from collections.abc import Iterable

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from serving.store.records import LIVE, JobStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Json = JSON(none_as_null=True)
_Id = Text().with_variant(Text(collation="C"), "postgresql")  # by byte on every database, as Python sorts them
_Rising = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY counts up by itself in SQLite


def _quoted(statuses: Iterable[JobStatus]) -> str:
    return ", ".join(f"'{status}'" for status in statuses)


LIVE_JOB = text(f"status NOT IN ({_quoted(one for one in JobStatus if one not in LIVE)}) AND deleted_at IS NULL")
"""The jobs that a Director may take, word for word as queries must say it for the index to serve them. In terms of what
they are not, because for `status IN (...)` SQLite would choose the index of statuses, and then sort what it finds."""

THERE = text("deleted_at IS NULL")
"""Jobs that were not deleted, likewise."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("family", _Id, nullable=False),
    Column("parent", _Id),
    Column("storyboard_hash", Text, nullable=False),
    Column("steps", Integer),
    Column("model", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due_at", Double),
    Column("budget_usd", Double),
    Column("tags", _Json, nullable=False),
    Column("kind", Text, nullable=False),
    Column("progress", Double, nullable=False),
    Column("calls_total", Integer, nullable=False),
    Column("calls_done", Integer, nullable=False),
    Column("eta_at", Double),
    Column("at_risk", Boolean, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("wasted_gpu_seconds", Double, nullable=False),
    Column("usd", Double, nullable=False),
    Column("film", _Json),
    Column("error", _Json),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("updated_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_token", BigInteger, nullable=False),
    Column("lease_until", Double),
    Column("deleted_at", Double),
    UniqueConstraint("family", "version"),
    CheckConstraint(f"status IN ({_quoted(JobStatus)})", name="status_known"),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress_percent"),
    # Pages of a list, newest or oldest first, for one tenant or all, of one status or any.
    Index("ix_jobs_of_tenant", "tenant", "id", postgresql_where=THERE, sqlite_where=THERE),
    Index("ix_jobs_of_tenant_by_kind", "tenant", "kind", "id", postgresql_where=THERE, sqlite_where=THERE),
    Index("ix_jobs_of_tenant_by_status", "tenant", "status", "id", postgresql_where=THERE, sqlite_where=THERE),
    Index("ix_jobs_by_status", "status", "id", postgresql_where=THERE, sqlite_where=THERE),
    # What Directors look through for work: the few live jobs among all that ever were.
    Index("ix_jobs_live", text("priority DESC"), "id", postgresql_where=LIVE_JOB, sqlite_where=LIVE_JOB),
    Index(
        "ix_jobs_live_of_pool", "pool", text("priority DESC"), "id", postgresql_where=LIVE_JOB, sqlite_where=LIVE_JOB
    ),
)

storyboards = Table(
    "storyboards",
    metadata,
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("storyboard", _Json, nullable=False),
)

job_tags = Table(
    "job_tags",
    metadata,
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value", "job_id"),
)
"""The tags of jobs once more, to find jobs by them. Tags never change."""

assets = Table(
    "assets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("sha256", _Id, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False, index=True),
)

job_assets = Table(
    "job_assets",
    metadata,
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", _Id, primary_key=True, index=True),
)
"""The assets that a job's storyboard names."""

takes = Table(
    "takes",
    metadata,
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("content_key", Text, index=True),
    Column("status", Text, nullable=False),
    Column("latents", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("calls_total", Integer, nullable=False),
    Column("calls_done", Integer, nullable=False),
    Column("latents_finished", Integer, nullable=False),
    Column("frames_decoded", Integer, nullable=False),
    Column("head_frames", Integer, nullable=False, server_default="0"),
    Column("has_preview", Boolean, nullable=False, server_default=false()),
    Column("step_counts", _Json, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("wasted_gpu_seconds", Double, nullable=False),
    Column("shots", _Json, nullable=False),
    UniqueConstraint("job_id", "key"),
    CheckConstraint("status IN ('waiting', 'rendering', 'rendered', 'decoded')", name="status_known"),
)

events = Table(
    "events",
    metadata,
    Column("id", _Rising, primary_key=True),
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("data", _Json, nullable=False),
    Index(None, "job_id", "id"),
    Index(None, "tenant", "id"),
    sqlite_autoincrement=True,  # the id of an event that was forgotten is never given again
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", _Id, nullable=False, index=True),
    Column("tenant", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("take", Text, nullable=False),
    Column("shot", Text, nullable=False),
    Column("useful_s", Double, nullable=False),
    Column("wasted_s", Double, nullable=False),
    Column("usd", Double, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "tenant", "at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("job_id", _Id),
    Column("status_code", Integer),
    Column("answer", _Json),
    Column("expires_at", Double, nullable=False, index=True),
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", Text, primary_key=True),
    Column("weight", Double, nullable=False),
    Column("max_concurrent_jobs", Integer),
    Column("max_concurrent_calls", Integer),
    Column("requests_per_minute", Integer),
    Column("updated_at", Double, nullable=False),
    CheckConstraint("weight > 0", name="weight_positive"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant", Text, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant", Text, nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("endpoint_id", _Id, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("job_id", _Id, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Double, index=True),
    Column("delivered_at", Double),
    Column("error", Text),
    Index(None, "endpoint_id", "id"),
)
"""The outbox: written with the change that it tells of. `due_at` is empty once nothing more will be tried."""

audit = Table(
    "audit",
    metadata,
    Column("id", _Rising, primary_key=True),
    Column("at", Double, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "target", "id"),
    sqlite_autoincrement=True,
)

log_lines = Table(
    "log_lines",
    metadata,
    Column("id", _Rising, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("level", Integer, nullable=False),
    Column("action", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("job_id", _Id),
    Column("fields", _Json, nullable=False),
    Index(None, "job_id", "id"),
    sqlite_autoincrement=True,
)
"""What was logged of jobs, and of what went wrong. Few enough that those of a level are looked for one by one."""

learned = Table(
    "learned",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", _Json, nullable=False),
    Column("at", Double, nullable=False),
)
"""Small facts that outlive a process: numerics and supply of pools, measured costs, the Directors' generation."""
