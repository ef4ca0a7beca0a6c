"""Log lines."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
RISING = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Log lines."""
    op.create_table(
        "log_lines",
        sa.Column("id", RISING, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("job_id", ID, nullable=True),
        sa.Column("fields", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_lines")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_log_lines_at"), "log_lines", ["at"], unique=False)
    op.create_index(op.f("ix_log_lines_job_id_id"), "log_lines", ["job_id", "id"], unique=False)
