"""Image lists as a view, for those who read them by SQL

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE VIEW datasetv2_images AS
        SELECT datasetv2.id AS dataset_id, coalesce(
            (
                SELECT jsonb_agg(jsonb_build_object('zarr_url', zarr_url, 'origin', origin,
                    'attributes', attributes, 'types', types) ORDER BY datasetimage.id)
                FROM datasetimage WHERE datasetimage.dataset_id = datasetv2.id
            ), '[]') AS images
        FROM datasetv2
        """
    )


def downgrade() -> None:
    op.execute("DROP VIEW datasetv2_images")
