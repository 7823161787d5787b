"""Jobs know the folder in which their user's tasks keep things

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobv2", sa.Column("cache_dir", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobv2", "cache_dir")
