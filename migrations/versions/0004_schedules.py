"""Schedules

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_REFERENCES = {
    "project_id": "projectv2.id",
    "workflow_id": "workflowv2.id",
    "dataset_id": "datasetv2.id",
    "after_workflow_id": "workflowv2.id",
    "after_dataset_id": "datasetv2.id",
}


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("user_id", sa.Integer(), sa.ForeignKey("user_oauth.id"), nullable=False),
        *(
            sa.Column(name, sa.Integer(), sa.ForeignKey(target, ondelete="SET NULL"))
            for name, target in _REFERENCES.items()
        ),
        sa.Column("deployment_name", sa.String(), nullable=False, unique=True),
        sa.Column("deployment_id", sa.Uuid(), unique=True),
        sa.Column("automation_id", sa.Uuid()),
        sa.Column("notice", sa.String()),
        sa.Column("is_told", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("timestamp_created", sa.DateTime(timezone=True), nullable=False),
    )
    for name in ("user_id", *_REFERENCES):
        op.create_index(f"ix_schedule_{name}", "schedule", [name])


def downgrade() -> None:
    op.drop_table("schedule")
