"""Assets: files that storyboards name, and the jobs that do."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Two tables; jobs from before name no assets."""
    op.create_table(
        "assets",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "sha256", name="pk_assets"),
    )
    op.create_index("ix_assets_used_at", "assets", ["used_at"])
    op.create_table(
        "job_assets",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "sha256", name="pk_job_assets"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_assets_job_id", ondelete="CASCADE"),
    )
    op.create_index("ix_job_assets_sha256", "job_assets", ["sha256"])
