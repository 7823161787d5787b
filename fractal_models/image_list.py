"""The image lists of datasets in their table: only what is asked for is read, or changes written.

A list can have a million images, so each statement takes or returns many as one JSON document.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Result, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.exact_json import loads
from fractal_models.image_search import ImageSearch
from fractal_models.images import Image

IMAGE_TABLES = ("datasetimage", "imagefacet", "facetblock")
# An image of the table as a JSON object, with its fields in their order.
IMAGE_JSON = """json_build_object(
    'zarr_url', image.zarr_url, 'origin', image.origin,
    'attributes', image.attributes, 'types', image.types)"""


async def read_images(session: AsyncSession, search: ImageSearch) -> list[Image]:
    """The images that are found, in the order of the list."""
    return _images(await search.run(session, f"{_LISTED} {search.found}"))


async def read_named_images(
    session: AsyncSession, dataset_id: int | None, zarr_urls: Collection[str]
) -> list[Image]:
    """Those of these images that are in the list, in its order."""
    if not zarr_urls:
        return []
    given = {"dataset_id": dataset_id, "zarr_urls": list(zarr_urls)}
    return _images(await session.execute(_READ_NAMED, given))


async def count_images(session: AsyncSession, search: ImageSearch) -> int:
    """How many images are found."""
    counted = f"SELECT coalesce(sum(count), 0) FROM ({search.blocks}) AS blocks"
    return int((await search.run(session, counted)).scalar_one())


async def finds_any(session: AsyncSession, search: ImageSearch) -> bool:
    """Whether there is an image that is found."""
    found = await search.run(session, f"SELECT 1 {search.found} LIMIT 1")
    return found.first() is not None


def _images(found: Result[Any]) -> list[Image]:
    images: list[Image] = loads(found.scalar_one())
    return images


async def write_images(
    session: AsyncSession, dataset_id: int | None, images: Sequence[Image]
) -> None:
    """Update the images that are in the list, append the others in this order (not committed)."""
    await session.execute(_WRITE, {"dataset_id": dataset_id, "images": images})


async def append_images(session: AsyncSession, dataset_id: int | None, images: str) -> None:
    """Append a JSON array of images, none of which may be in the list (not committed).

    Raises:
        IntegrityError: one is, or is there twice.
    """
    await session.execute(_APPEND, {"dataset_id": dataset_id, "images": images})


async def remove_images(
    session: AsyncSession, dataset_id: int | None, zarr_urls: Sequence[str]
) -> None:
    """Remove images from the list, and forget which units ran on them last (not committed)."""
    for statement in (_REMOVE, _FORGET):
        await session.execute(statement, {"dataset_id": dataset_id, "zarr_urls": zarr_urls})


_LISTED = f"SELECT coalesce(json_agg({IMAGE_JSON} ORDER BY image.id), '[]')::text"
# OFFSET keeps PostgreSQL from reading the whole list: it looks up each image.
_READ_NAMED = text(
    f"""
    {_LISTED} FROM unnest(:zarr_urls) AS named(url), LATERAL (
        SELECT * FROM datasetimage
        WHERE dataset_id = :dataset_id AND zarr_url = named.url OFFSET 0
    ) AS image
    """
).bindparams(bindparam("zarr_urls", type_=ARRAY(TEXT)))

_INSERT = """
    INSERT INTO datasetimage (dataset_id, zarr_url, origin, attributes, types)
    SELECT :dataset_id, image->>'zarr_url', image->>'origin', image->'attributes', image->'types'
    FROM jsonb_array_elements(CAST(:images AS jsonb)) WITH ORDINALITY AS listed(image, place)
    ORDER BY place
"""

_APPEND = text(_INSERT).bindparams(bindparam("images", type_=TEXT))

_WRITE = text(
    f"""
    {_INSERT}
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
