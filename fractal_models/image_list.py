"""The image lists of datasets in their table: read as a whole, written only where they change.

A list can have 100,000 images, so each statement takes or returns all of them as one JSON document.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.exact_json import loads
from fractal_models.images import Image

IMAGE_TABLES = ("datasetimage", "imagefacet")
# An image of the table as a JSON object, with its fields in their order.
IMAGE_JSON = """json_build_object(
    'zarr_url', image.zarr_url, 'origin', image.origin,
    'attributes', image.attributes, 'types', image.types)"""


async def read_images(session: AsyncSession, dataset_id: int | None) -> list[Image]:
    """The images of a dataset, in the order of the list."""
    found = await session.execute(_READ, {"dataset_id": dataset_id})
    images: list[Image] = loads(found.scalar_one())
    return images


async def write_images(
    session: AsyncSession, dataset_id: int | None, images: Sequence[Image]
) -> None:
    """Update the images that are in the list, append the others in this order (not committed)."""
    await session.execute(_WRITE, {"dataset_id": dataset_id, "images": images})


async def remove_images(
    session: AsyncSession, dataset_id: int | None, zarr_urls: Sequence[str]
) -> None:
    """Remove images from the list, and forget which units ran on them last (not committed)."""
    for statement in (_REMOVE, _FORGET):
        await session.execute(statement, {"dataset_id": dataset_id, "zarr_urls": zarr_urls})


_READ = text(
    f"SELECT coalesce(json_agg({IMAGE_JSON} ORDER BY id), '[]')::text "
    "FROM datasetimage AS image WHERE dataset_id = :dataset_id"
)

_WRITE = text(
    """
    INSERT INTO datasetimage (dataset_id, zarr_url, origin, attributes, types)
    SELECT :dataset_id, image->>'zarr_url', image->>'origin', image->'attributes', image->'types'
    FROM jsonb_array_elements(:images) WITH ORDINALITY AS listed(image, place)
    ORDER BY place
    ON CONFLICT (dataset_id, zarr_url)
    DO UPDATE SET origin = excluded.origin,
        attributes = excluded.attributes, types = excluded.types
    WHERE (datasetimage.origin, datasetimage.attributes, datasetimage.types)
        IS DISTINCT FROM (excluded.origin, excluded.attributes, excluded.types)
    """
).bindparams(bindparam("images", type_=JSONB))

_REMOVE = text(
    "DELETE FROM datasetimage WHERE dataset_id = :dataset_id AND zarr_url = ANY(:zarr_urls)"
)
# By the whole key, of which the index has the workflow task before the image.
_FORGET = text(
    """
    DELETE FROM historyimagecache AS cache
    USING (SELECT DISTINCT workflowtask_id FROM historyrun WHERE dataset_id = :dataset_id) AS ran
    WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = ran.workflowtask_id
        AND cache.zarr_url = ANY(:zarr_urls)
    """
)
