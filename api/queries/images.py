"""Image lists, searched and edited inside PostgreSQL.

A list of 100,000 images is 20 MB of JSON: to parse it here, for a page of 50, would keep every
other request waiting. The filters follow the rules of `fractal_models.images.filter_images`.
"""

from typing import Any

from sqlalchemy import Integer, String, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.ext.asyncio.session import AsyncSession

from api.paging import Paging
from fractal_models.images import STATUS_ATTRIBUTE, Image
from fractal_models.schemas.dataset import ImageQuery

_LISTED = """
    SELECT image, place
    FROM datasetv2, jsonb_array_elements(images) WITH ORDINALITY AS listed(image, place)
    WHERE datasetv2.id = :dataset_id
"""

_LISTED_WITH_STATUS = f"""
    SELECT place, jsonb_set(
        CASE WHEN :include_warnings
            THEN image || jsonb_build_object('has_warnings', historyunit.has_warnings)
            ELSE image END,
        '{{attributes,{STATUS_ATTRIBUTE}}}',
        to_jsonb(coalesce(historyunit.status, 'unset'))
    ) AS image
    FROM ({_LISTED}) AS listed
    LEFT JOIN historyimagecache ON historyimagecache.dataset_id = :dataset_id
        AND historyimagecache.workflowtask_id = :workflowtask_id
        AND historyimagecache.zarr_url = image->>'zarr_url'
    LEFT JOIN historyunit ON historyunit.id = historyimagecache.latest_history_unit_id
"""

_PAGE = """
WITH listed AS MATERIALIZED ({listed}),
passing AS MATERIALIZED (
    SELECT image, place FROM listed
    WHERE (:absent_types || (image->'types')) @> :type_filters
    AND NOT EXISTS (
        SELECT FROM jsonb_each(:attribute_filters) AS wanted(key, values)
        WHERE NOT coalesce(wanted.values @> (image->'attributes'->wanted.key), false)
    )
    AND (:zarr_url IS NULL OR image->>'zarr_url' = :zarr_url)
),
total AS (SELECT count(*) AS count FROM passing)
SELECT json_build_object(
    'current_page', :page,
    'page_size', coalesce(:page_size, total.count),
    'total_count', total.count,
    'items', (
        SELECT coalesce(json_agg(image ORDER BY place), '[]')
        FROM (SELECT * FROM passing ORDER BY place LIMIT :page_size OFFSET :offset) AS paged
    ),
    'attributes', (
        SELECT coalesce(json_object_agg(key, values ORDER BY key), '{{}}') FROM (
            SELECT key, json_agg(value ORDER BY first) AS values FROM (
                SELECT key, value, min(place) AS first
                FROM listed, jsonb_each(image->'attributes') GROUP BY key, value
            ) AS distinct_values GROUP BY key
        ) AS by_key
    ),
    'types', (
        SELECT coalesce(json_agg(key ORDER BY key COLLATE "C"), '[]')
        FROM (SELECT DISTINCT jsonb_object_keys(image->'types') AS key FROM listed) AS keys
    )
)::text FROM total
"""

_PARAMETERS = (
    bindparam("absent_types", type_=JSONB),
    bindparam("type_filters", type_=JSONB),
    bindparam("attribute_filters", type_=JSONB),
    bindparam("zarr_url", type_=String),
    bindparam("page", type_=Integer),
    bindparam("page_size", type_=Integer),
    bindparam("offset", type_=Integer),
)
_QUERY = text(_PAGE.format(listed=_LISTED)).bindparams(*_PARAMETERS)
_QUERY_WITH_STATUS = text(_PAGE.format(listed=_LISTED_WITH_STATUS)).bindparams(*_PARAMETERS)

_EXPORT = text(
    "SELECT json_build_object('name', name, 'zarr_dir', zarr_dir, 'images', images)::text "
    "FROM datasetv2 WHERE id = :dataset_id"
)

_FIND = text(f"SELECT image, place FROM ({_LISTED}) AS l WHERE image->>'zarr_url' = :zarr_url")
_APPEND = text(
    "UPDATE datasetv2 SET images = images || jsonb_build_array(:image) WHERE id = :dataset_id"
).bindparams(bindparam("image", type_=JSONB))
_REPLACE = text(
    "UPDATE datasetv2 SET images = jsonb_set(images, ARRAY[:index], :image) WHERE id = :dataset_id"
).bindparams(bindparam("image", type_=JSONB), bindparam("index", type_=String))
_REMOVE = text("UPDATE datasetv2 SET images = images - :index WHERE id = :dataset_id").bindparams(
    bindparam("index", type_=Integer)
)
_FORGET = text(
    "DELETE FROM historyimagecache WHERE dataset_id = :dataset_id AND zarr_url = :zarr_url"
)


async def page_of_images(
    session: AsyncSession,
    dataset_id: int | None,
    query: ImageQuery,
    paging: Paging,
    *,
    zarr_url: str | None = None,
) -> str:
    """The JSON of an `ImagePage`: the images that pass, in their order."""
    parameters = {"dataset_id": dataset_id, **_filters(query), **_place(paging)}
    return await _scalar(session, _QUERY, {**parameters, "zarr_url": zarr_url})


async def page_of_images_with_status(
    session: AsyncSession,
    dataset_id: int | None,
    workflowtask_id: int,
    query: ImageQuery,
    paging: Paging,
    *,
    include_warnings: bool,
) -> str:
    """The JSON of an `ImagePageWithWarnings`.

    Each image has the attribute STATUS_ATTRIBUTE: the status of the latest unit of the workflow
    task on it, or `unset`. It can be filtered by.
    """
    parameters = {
        "dataset_id": dataset_id,
        "workflowtask_id": workflowtask_id,
        "include_warnings": include_warnings,
        "zarr_url": None,
    }
    return await _scalar(
        session, _QUERY_WITH_STATUS, {**parameters, **_filters(query), **_place(paging)}
    )


async def export_dataset(session: AsyncSession, dataset_id: int | None) -> str:
    """The JSON of a `DatasetExport`."""
    return await _scalar(session, _EXPORT, {"dataset_id": dataset_id})


async def find_image(
    session: AsyncSession, dataset_id: int | None, zarr_url: str
) -> tuple[Image, int] | None:
    """An image and its index in the list."""
    found = await session.execute(_FIND, {"dataset_id": dataset_id, "zarr_url": zarr_url})
    row = found.first()
    return None if row is None else (row.image, row.place - 1)


async def append_image(session: AsyncSession, dataset_id: int | None, image: Image) -> None:
    await session.execute(_APPEND, {"dataset_id": dataset_id, "image": image})


async def replace_image(
    session: AsyncSession, dataset_id: int | None, index: int, image: Image
) -> None:
    await session.execute(_REPLACE, {"dataset_id": dataset_id, "index": str(index), "image": image})


async def remove_image(
    session: AsyncSession, dataset_id: int | None, index: int, zarr_url: str
) -> None:
    """Take an image off the list, and forget which units ran on it last."""
    await session.execute(_REMOVE, {"dataset_id": dataset_id, "index": index})
    await session.execute(_FORGET, {"dataset_id": dataset_id, "zarr_url": zarr_url})


def _filters(query: ImageQuery) -> dict[str, Any]:
    return {
        "absent_types": dict.fromkeys(query.type_filters, False),
        "type_filters": query.type_filters,
        "attribute_filters": query.attribute_filters,
    }


def _place(paging: Paging) -> dict[str, Any]:
    return {"page": paging.page, "page_size": paging.page_size, "offset": paging.offset}


async def _scalar(session: AsyncSession, statement: Any, parameters: dict[str, Any]) -> str:
    document: str = (await session.execute(statement, parameters)).scalar_one()
    return document
