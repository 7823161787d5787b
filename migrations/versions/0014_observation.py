"""Counts of ended jobs and units, and signs of life of workers

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tally",
        _resource(),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("resource_id", "what", "outcome", "cause"),
    )
    op.create_table(
        "signoflife",
        _resource(),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("answered", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("resource_id", "part"),
    )


def downgrade() -> None:
    op.drop_table("signoflife")
    op.drop_table("tally")


def _resource() -> sa.Column[int]:
    key = sa.ForeignKey("resource.id", ondelete="CASCADE")
    return sa.Column("resource_id", sa.Integer(), key, nullable=False)
