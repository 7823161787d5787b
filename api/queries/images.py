"""Image lists, searched inside PostgreSQL: for a page of 50, no other image leaves it.

What there is to filter by, and how long the list is, is counted whenever the list changes (see
`fractal_models.tables.ImageFacet`).
"""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from sqlalchemy import BindParameter, ColumnElement, Integer, bindparam
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import JsonDocument, Paging
from api.long_answers import LongJsonDocument
from fractal_models.database import one_moment
from fractal_models.exact_json import loads
from fractal_models.image_list import IMAGE_JSON
from fractal_models.image_search import NOT_DONE, STATUS, ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.schemas.dataset import ImageQuery
from fractal_models.tables import DatasetImage, DatasetV2, ImageFacet

_SHORT, _BLOCKS_AT_ONCE = 1000, 4  # images of a page that is one string; blocks have 1024

_IMAGE_WITH_STATUS_JSON = f"""json_build_object(
    'zarr_url', image.zarr_url, 'origin', image.origin, 'types', image.types,
    'attributes', image.attributes || jsonb_build_object('{STATUS_ATTRIBUTE}', {STATUS}),
    'has_warnings', CASE WHEN :include_warnings THEN unit.has_warnings END)"""


async def page_of_images(
    session: AsyncSession,
    dataset_id: int | None,
    query: ImageQuery,
    paging: Paging,
    *,
    zarr_url: str | None = None,
) -> Response:
    """An `ImagePage`: the images that pass, in their order."""
    search = _search(dataset_id, query)
    if zarr_url is not None:
        search.only(zarr_url)
    return await _page(session, search, paging, IMAGE_JSON)


async def page_of_images_with_status(
    session: AsyncSession,
    dataset_id: int | None,
    workflowtask_id: int,
    query: ImageQuery,
    paging: Paging,
    *,
    include_warnings: bool,
) -> Response:
    """An `ImagePageWithWarnings`.

    Each image has the attribute STATUS_ATTRIBUTE: the status of the latest unit of the workflow
    task on it, or `unset`. It can be filtered by.
    """
    search = _search(dataset_id, query, workflowtask_id)
    given: tuple[BindParameter[Any], ...] = (
        bindparam("workflowtask_id", workflowtask_id),
        bindparam("include_warnings", include_warnings),
    )
    return await _page(session, search, paging, _IMAGE_WITH_STATUS_JSON, *given)


async def types_that_differ(
    session: AsyncSession, dataset_id: int | None, workflowtask_id: int, query: ImageQuery
) -> list[str]:
    """The types, sorted, that some of the images that pass have and others have not."""
    search = _search(dataset_id, query, workflowtask_id)
    found = await search.run(session, _DIFFERING.format(found=search.found))
    return list(found.scalars())


async def images_not_done(
    session: AsyncSession, dataset_id: int | None, workflowtask_id: int | None, query: ImageQuery
) -> Response:
    """A list: URLs of the images that pass and on which a workflow task is not done, in order."""
    search = _search(dataset_id, query, workflowtask_id)
    search.filter_by({}, {STATUS_ATTRIBUTE: NOT_DONE})
    listed = "SELECT coalesce(json_agg(image.zarr_url ORDER BY image.id), '[]')::text"
    found = await search.run(session, f"{listed} {search.found}")
    return JsonDocument(found.scalar_one())


def image_count() -> ColumnElement[int]:
    """How many images a dataset has, in a query of datasets."""
    counted = select(func.max(ImageFacet.count)).where(
        ImageFacet.dataset_id == DatasetV2.id, ImageFacet.kind == "image"
    )
    return func.coalesce(counted.scalar_subquery(), 0)


async def export_dataset(session: AsyncSession, dataset_id: int | None) -> Response:
    """A `DatasetExport`. The statements of the session see one moment."""
    search = ImageSearch(dataset_id)
    statement = _EXPORT.format(blocks=search.blocks, parts=_PARTS)
    dataset, parts = (await search.run(session, statement)).one()
    return await _with_images(session, search, dataset, "images", parts, IMAGE_JSON)


async def find_image(
    session: AsyncSession, dataset_id: int | None, zarr_url: str
) -> DatasetImage | None:
    """An image by its URL."""
    found = await session.exec(
        select(DatasetImage).where(
            DatasetImage.dataset_id == dataset_id, col(DatasetImage.zarr_url) == zarr_url
        )
    )
    return found.first()


def _search(
    dataset_id: int | None, query: ImageQuery, workflowtask_id: int | None = None
) -> ImageSearch:
    search = ImageSearch(dataset_id, workflowtask_id)
    search.filter_by(query.type_filters, query.attribute_filters)
    return search


async def _page(
    session: AsyncSession,
    search: ImageSearch,
    paging: Paging,
    image: str,
    *parameters: BindParameter[Any],
) -> Response:
    """A page of images; the values of an image's status, too, if it has one."""
    is_long = paging.page_size is None or paging.page_size > _SHORT
    statement = _PAGE.format(
        blocks=search.blocks,
        items=_PARTS if is_long else _images_in(search, "parts", image),
        statuses="" if search.workflowtask_id is None else _AND_STATUSES,
    )
    place = (
        bindparam("page", paging.page, Integer),
        bindparam("page_size", paging.page_size, Integer),
    )
    if not is_long:
        page, items = (await search.run(session, statement, *place, *parameters)).one()
        return JsonDocument(f'{page[:-1]}, "items": {items}}}')
    await one_moment(session)
    page, parts = (await search.run(session, statement, *place)).one()
    return await _with_images(session, search, page, "items", parts, image, *parameters)


async def _with_images(
    session: AsyncSession,
    search: ImageSearch,
    document: str,
    name: str,
    parts: str,
    image: str,
    *parameters: BindParameter[Any],
) -> Response:
    """A JSON object with all images of some parts, which are read some blocks at a time."""
    statement = f"SELECT {_images_in(search, _GIVEN_PARTS, image)}"
    left = loads(parts)

    async def arrays() -> AsyncIterator[str]:
        for start in range(0, len(left), _BLOCKS_AT_ONCE):
            given = bindparam("parts", left[start : start + _BLOCKS_AT_ONCE], JSONB)
            yield (await search.run(session, statement, given, *parameters)).scalar_one()

    answer = LongJsonDocument()
    await answer.write(document, name, arrays())
    return answer


def _images_in(search: ImageSearch, parts: str, image: str) -> str:
    """SQL of a JSON array: the images in parts of blocks, in their order."""
    return _IMAGES.format(in_block=search.in_block, units=search.units, parts=parts, image=image)


_AND_STATUSES = f"""|| jsonb_build_object(
    '{STATUS_ATTRIBUTE}', jsonb_build_array('done', 'submitted', 'failed', 'unset'))"""

_PARTS = "(SELECT coalesce(json_agg(parts ORDER BY block), '[]') FROM parts)::text"
_GIVEN_PARTS = "jsonb_to_recordset(:parts) AS parts(block bigint, skipped int, taken int)"

_IMAGES = """(
    WITH listed AS MATERIALIZED (
        SELECT image.* FROM {parts}, LATERAL (
            SELECT image.* {in_block} ORDER BY image.id LIMIT taken OFFSET skipped
        ) AS image
    )
    SELECT coalesce(json_agg({image} ORDER BY image.id), '[]') FROM listed AS image{units}
)::text"""

# A page after the last one is the last one. Images are read only from the blocks in which it lies.
_PAGE = """
WITH blocks AS MATERIALIZED ({blocks}),
total AS MATERIALIZED (SELECT coalesce(sum(count), 0)::int AS count FROM blocks),
place AS MATERIALIZED (
    SELECT count, coalesce(:page_size, count) AS size,
        least(:page, greatest(1, ceil(count::numeric / :page_size)))::int AS page
    FROM total
),
parts AS MATERIALIZED (
    SELECT block, skipped, ended - skipped AS taken FROM (
        SELECT block, greatest(0, (page - 1) * size - before) AS skipped,
            least(blocks.count, page * size - before) AS ended
        FROM place, (
            SELECT block, count, sum(count) OVER (ORDER BY block) - count AS before FROM blocks
        ) AS blocks
        WHERE before < page * size AND before + blocks.count > (page - 1) * size
    ) AS bounded
)
SELECT json_build_object(
    'current_page', page,
    'page_size', size,
    'total_count', count,
    'attributes', (
        SELECT coalesce(jsonb_object_agg(key, values), '{{}}') FROM (
            SELECT key, jsonb_agg(DISTINCT value) AS values FROM imagefacet
            WHERE dataset_id = :dataset_id AND kind = 'attribute' GROUP BY key
        ) AS by_key
    ) {statuses},
    'types', (
        SELECT coalesce(json_agg(key ORDER BY key COLLATE "C"), '[]') FROM (
            SELECT DISTINCT key FROM imagefacet WHERE dataset_id = :dataset_id AND kind = 'type'
        ) AS keys
    )
)::text, {items} FROM place
"""

# A type that an image lacks is false.
_DIFFERING = """
WITH found AS MATERIALIZED (SELECT image.types {found})
SELECT key FROM found, jsonb_each(types) GROUP BY key
HAVING count(*) FILTER (WHERE value = 'true') BETWEEN 1 AND (SELECT count(*) FROM found) - 1
ORDER BY key COLLATE "C"
"""

_EXPORT = """
WITH parts AS MATERIALIZED (SELECT block, 0 AS skipped, count AS taken FROM ({blocks}) AS blocks)
SELECT json_build_object('name', name, 'zarr_dir', zarr_dir)::text, {parts}
FROM datasetv2 WHERE id = :dataset_id
"""
