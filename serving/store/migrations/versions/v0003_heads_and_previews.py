"""Which pictures of a take there are: the length of its head, and whether it has a preview."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Two columns of takes. Heads and previews from before are not named any more."""
    op.add_column("takes", sa.Column("head_frames", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("takes", sa.Column("has_preview", sa.Boolean(), nullable=False, server_default=sa.false()))
