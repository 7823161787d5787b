"""Jobs can be retried, and run only on images that are not done

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobv2", sa.Column("retried_after", sa.Integer(), nullable=True))
    op.add_column(
        "jobv2",
        sa.Column("only_not_done", sa.Boolean(), server_default=sa.false(), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("jobv2", "only_not_done")
    op.drop_column("jobv2", "retried_after")
