"""Events for Prefect are written with what they tell of

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "eventoutbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("occurred", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("resource", JSONB(), server_default="{}", nullable=False),
        sa.Column("related", JSONB(), server_default="[]", nullable=False),
        sa.Column("payload", JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    op.drop_table("eventoutbox")
