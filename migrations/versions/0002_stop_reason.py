"""Jobs remember that they were told to stop

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobv2", sa.Column("stop_reason", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobv2", "stop_reason")
