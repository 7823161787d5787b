"""Plans that do not depend on what PostgreSQL knows of a dataset

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Columns that say what a row belongs to. With statistics, PostgreSQL expects one row of an owner
# that came after them, and joins row by row what are 100,000 rows. Without, it expects the same
# share of the table for each owner.
_OWNERS = {
    "datasetimage": ["dataset_id"],
    "imagefacet": ["dataset_id"],
    "historyrun": ["dataset_id", "workflowtask_id", "job_id"],
    "historyunit": ["history_run_id"],
    "historyimagecache": ["dataset_id", "workflowtask_id", "latest_history_unit_id"],
    "jobv2": ["project_id", "workflow_id", "dataset_id"],
}


def upgrade() -> None:
    op.drop_constraint("historyimagecache_pkey", "historyimagecache")
    op.create_primary_key(
        "historyimagecache_pkey", "historyimagecache", ["dataset_id", "workflowtask_id", "zarr_url"]
    )
    op.drop_index("ix_historyimagecache_dataset_id", "historyimagecache")
    op.create_index("ix_historyunit_history_run_id_id", "historyunit", ["history_run_id", "id"])
    op.drop_index("ix_historyunit_history_run_id", "historyunit")
    view = op.get_bind().exec_driver_sql("SELECT pg_get_viewdef('datasetv2_images')").scalar_one()
    op.execute("DROP VIEW datasetv2_images")
    for table, column in _owners():
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
        # Forgets the statistics that there are. As the type is the same, no row is written.
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE integer")
    op.execute(f"CREATE VIEW datasetv2_images AS {view}")


def downgrade() -> None:
    for table, column in _owners():
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1")
    op.create_index("ix_historyunit_history_run_id", "historyunit", ["history_run_id"])
    op.drop_index("ix_historyunit_history_run_id_id", "historyunit")
    op.create_index("ix_historyimagecache_dataset_id", "historyimagecache", ["dataset_id"])
    op.drop_constraint("historyimagecache_pkey", "historyimagecache")
    op.create_primary_key(
        "historyimagecache_pkey", "historyimagecache", ["zarr_url", "dataset_id", "workflowtask_id"]
    )


def _owners() -> list[tuple[str, str]]:
    return [(table, column) for table, columns in _OWNERS.items() for column in columns]
