"""How many images of a facet are in each block of a list, so that pages are found at once

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# 1 and 1.0 are one value: they group together, so they must have one text. A block is 1024 ids.
_FACETS = """
    SELECT dataset_id, id >> 10 AS block, 'attribute' AS kind, key, CASE jsonb_typeof(value)
        WHEN 'number' THEN to_jsonb(trim_scale(value::numeric)) ELSE value END AS value, {n} AS n
    FROM {images}, jsonb_each(attributes)
    UNION ALL
    SELECT dataset_id, id >> 10, 'type', key, value, {n}
    FROM {images}, jsonb_each(types)
    UNION ALL
    SELECT dataset_id, id >> 10, 'image', '', 'null', {n}
    FROM {images}
"""
_ADDED = _FACETS.format(images="images_after", n=1)
_REMOVED = _FACETS.format(images="images_before", n=-1)

_COUNT = """
    WITH changes AS MATERIALIZED (
        SELECT dataset_id, block, md5(kind || ':' || key || ':' || value::text) AS digest,
            kind, key, value, sum(n)::int AS count
        FROM ({facets}) AS facets
        GROUP BY dataset_id, block, kind, key, value HAVING sum(n) <> 0
    ),
    in_blocks AS (
        INSERT INTO facetblock (dataset_id, digest, block, count)
        SELECT dataset_id, digest, block, count FROM changes
        ON CONFLICT (dataset_id, digest, block)
        DO UPDATE SET count = facetblock.count + excluded.count
    )
    INSERT INTO imagefacet (dataset_id, digest, kind, key, value, count)
    SELECT dataset_id, digest, kind, key, value, sum(count)
    FROM changes GROUP BY dataset_id, digest, kind, key, value HAVING sum(count) <> 0
    ON CONFLICT (dataset_id, digest)
    DO UPDATE SET count = imagefacet.count + excluded.count;
"""

# What is counted fits into memory: to sort it takes twice as long.
_COUNT_FACETS = f"""
CREATE OR REPLACE FUNCTION count_image_facets() RETURNS trigger LANGUAGE plpgsql
SET enable_sort = off AS $$
DECLARE
    emptied record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        {_COUNT.format(facets=_ADDED)}
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' THEN
        {_COUNT.format(facets=f"{_ADDED} UNION ALL {_REMOVED}")}
    ELSIF EXISTS (
        SELECT FROM datasetv2 WHERE id = (SELECT dataset_id FROM images_before LIMIT 1)
    ) THEN
        {_COUNT.format(facets=_REMOVED)}
    ELSE  -- the dataset is being deleted, and its facets with it
        RETURN NULL;
    END IF;
    FOR emptied IN
        DELETE FROM imagefacet
        WHERE dataset_id = ANY (ARRAY(SELECT DISTINCT dataset_id FROM images_before)) AND count = 0
        RETURNING dataset_id, digest
    LOOP
        DELETE FROM facetblock
        WHERE dataset_id = emptied.dataset_id AND digest = emptied.digest;
    END LOOP;
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "facetblock",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasetv2.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "digest", "block"),
    )
    for column in ("dataset_id", "digest"):  # as in 0010: what belongs to others
        op.execute(f"ALTER TABLE facetblock ALTER COLUMN {column} SET STATISTICS 0")
    op.execute("LOCK TABLE datasetimage IN SHARE MODE")
    op.execute(
        f"""
        INSERT INTO facetblock (dataset_id, digest, block, count)
        SELECT dataset_id, md5(kind || ':' || key || ':' || value::text), block, count(*)
        FROM ({_FACETS.format(images="datasetimage", n=1)}) AS facets
        GROUP BY dataset_id, block, kind, key, value
        """
    )
    op.execute(_COUNT_FACETS)


def downgrade() -> None:
    before = context.script.get_revision("0006").module
    op.execute(before._COUNT_FACETS.replace("CREATE", "CREATE OR REPLACE", 1))
    op.drop_table("facetblock")
