"""What was reserved for the units of jobs, and what they used

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "allocation",
        sa.Column("job_id", sa.Integer(), sa.ForeignKey("jobv2.id"), nullable=False),
        sa.Column("batch", sa.String(), nullable=False),
        sa.Column("runner", sa.Integer(), nullable=False),
        sa.Column(
            "history_run_id", sa.Integer(), sa.ForeignKey("historyrun.id", ondelete="SET NULL")
        ),
        sa.Column("resource_id", sa.Integer(), sa.ForeignKey("resource.id", ondelete="SET NULL")),
        sa.Column("slurm_job_id", sa.String()),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("num_units", sa.Integer(), nullable=False),
        sa.Column("at_once", sa.Integer()),
        sa.Column("cpus", sa.Integer()),
        sa.Column("mem_mb", sa.BigInteger()),
        sa.Column("gpus", sa.Integer()),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_seconds", sa.Float(), nullable=False),
        sa.Column("gb_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "batch", "runner"),
    )
    op.create_index("ix_allocation_history_run_id", "allocation", ["history_run_id"])


def downgrade() -> None:
    op.drop_table("allocation")
