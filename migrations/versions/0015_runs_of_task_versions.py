"""The runs of a task version are found by an index

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_historyrun_task_id_id", "historyrun", ["task_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_historyrun_task_id_id", "historyrun")
