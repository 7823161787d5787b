"""Resources keep their work pool when they are renamed

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("work_pool", sa.String(), nullable=True))
    op.execute("UPDATE resource SET work_pool = name")
    op.alter_column("resource", "work_pool", nullable=False)
    op.create_unique_constraint(None, "resource", ["work_pool"])


def downgrade() -> None:
    op.drop_column("resource", "work_pool")
