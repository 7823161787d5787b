"""What databases of fractal-server have: records without a job, schemas whose order counts

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Clients show the fields of a form in the order of the schema, which JSONB does not keep.
_ORDERED = ("args_schema_non_parallel", "args_schema_parallel")


def upgrade() -> None:
    op.alter_column("accountingrecordslurm", "fractal_job_id", nullable=True)
    _change_type("JSON")


def downgrade() -> None:
    _change_type("JSONB")
    op.execute("DELETE FROM accountingrecordslurm WHERE fractal_job_id IS NULL")
    op.alter_column("accountingrecordslurm", "fractal_job_id", nullable=False)


def _change_type(type_: str) -> None:
    changes = ", ".join(
        f"ALTER COLUMN {column} TYPE {type_} USING {column}::{type_}" for column in _ORDERED
    )
    op.execute(f"ALTER TABLE taskv2 {changes}")
