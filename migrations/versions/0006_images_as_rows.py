"""Images of datasets are rows, and what they can be filtered by is counted

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# 1 and 1.0 are one value: they group together, so they must have one text.
_FACETS = """
    SELECT dataset_id, md5(kind || ':' || key || ':' || value::text) AS digest, kind, key, value,
        count(*) AS count
    FROM (
        SELECT dataset_id, 'attribute' AS kind, key, CASE jsonb_typeof(value)
            WHEN 'number' THEN to_jsonb(trim_scale(value::numeric)) ELSE value END AS value
        FROM {images}, jsonb_each(attributes)
        UNION ALL
        SELECT dataset_id, 'type', key, value
        FROM {images}, jsonb_each(types)
        UNION ALL
        SELECT dataset_id, 'image', '', 'null'
        FROM {images}
    ) AS facets
    GROUP BY dataset_id, kind, key, value
"""

_COUNT_FACETS = f"""
CREATE FUNCTION count_image_facets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO imagefacet (dataset_id, digest, kind, key, value, count)
        {_FACETS.format(images="images_after")}
        ON CONFLICT (dataset_id, digest)
        DO UPDATE SET count = imagefacet.count + excluded.count;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        UPDATE imagefacet SET count = imagefacet.count - gone.count
        FROM ({_FACETS.format(images="images_before")}) AS gone
        WHERE imagefacet.dataset_id = gone.dataset_id AND imagefacet.digest = gone.digest;
        DELETE FROM imagefacet
        WHERE count = 0 AND dataset_id IN (SELECT DISTINCT dataset_id FROM images_before);
    END IF;
    RETURN NULL;
END
$$
"""

_TRIGGERS = {
    "INSERT": "NEW TABLE AS images_after",
    "UPDATE": "OLD TABLE AS images_before NEW TABLE AS images_after",
    "DELETE": "OLD TABLE AS images_before",
}


def upgrade() -> None:
    op.create_table(
        "datasetimage",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("zarr_url", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=True),
        sa.Column("attributes", JSONB(), server_default="{}", nullable=False),
        sa.Column("types", JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasetv2.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "id"),
    )
    op.create_index(
        "ix_datasetimage_zarr_url", "datasetimage", ["dataset_id", "zarr_url"], unique=True
    )
    op.create_table(
        "imagefacet",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", JSONB(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasetv2.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "digest"),
    )
    op.execute(_COUNT_FACETS)
    for event, tables in _TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER count_image_facets_on_{event.lower()} AFTER {event} ON datasetimage "
            f"REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION count_image_facets()"
        )
    op.execute(
        """
        INSERT INTO datasetimage (dataset_id, zarr_url, origin, attributes, types)
        SELECT dataset_id, zarr_url, image->>'origin',
            coalesce(image->'attributes', '{}'), coalesce(image->'types', '{}')
        FROM (
            SELECT DISTINCT ON (datasetv2.id, image->>'zarr_url')
                datasetv2.id AS dataset_id, image->>'zarr_url' AS zarr_url, image, place
            FROM datasetv2, jsonb_array_elements(images) WITH ORDINALITY AS listed(image, place)
            ORDER BY datasetv2.id, image->>'zarr_url', place
        ) AS first_of_each ORDER BY dataset_id, place
        """
    )
    op.drop_column("datasetv2", "images")


def downgrade() -> None:
    op.add_column("datasetv2", sa.Column("images", JSONB(), server_default="[]", nullable=False))
    op.execute(
        """
        UPDATE datasetv2 SET images = listed.images FROM (
            SELECT dataset_id, jsonb_agg(jsonb_build_object('zarr_url', zarr_url,
                'origin', origin, 'attributes', attributes, 'types', types) ORDER BY id) AS images
            FROM datasetimage GROUP BY dataset_id
        ) AS listed WHERE listed.dataset_id = datasetv2.id
        """
    )
    op.drop_table("imagefacet")
    op.drop_table("datasetimage")
    op.execute("DROP FUNCTION count_image_facets()")
