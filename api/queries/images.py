"""Image lists, searched inside PostgreSQL: for a page of 50, no other image leaves it.

What there is to filter by, and how long the list is, is counted whenever the list changes (see
`fractal_models.tables.ImageFacet`). The filters follow `fractal_models.images.filter_images`.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Integer, Result, String, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import Paging
from fractal_models.image_list import IMAGE_JSON
from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.schemas.dataset import ImageQuery
from fractal_models.tables import DatasetImage, DatasetV2, ImageFacet

_STATUS = "coalesce(unit.status, 'unset')"

# LIMIT keeps PostgreSQL from joining all units with all images: it looks up that of each image.
_WITH_UNITS = """
    LEFT JOIN LATERAL (
        SELECT unit.status, unit.has_warnings FROM historyimagecache AS cache
        JOIN historyunit AS unit ON unit.id = cache.latest_history_unit_id
        WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = :workflowtask_id
            AND cache.zarr_url = image.zarr_url
        LIMIT 1
    ) AS unit ON true"""

_IMAGE_WITH_STATUS_JSON = f"""json_build_object(
    'zarr_url', image.zarr_url, 'origin', image.origin, 'types', image.types,
    'attributes', image.attributes || jsonb_build_object('{STATUS_ATTRIBUTE}', {_STATUS}),
    'has_warnings', CASE WHEN :include_warnings THEN unit.has_warnings END)"""


_COUNT = "SELECT sum(count) FROM imagefacet WHERE dataset_id = :dataset_id AND kind ="
_COUNT_ALL = f"{_COUNT} 'image'"


@dataclass(slots=True)
class _Search:
    """The images of a dataset that pass filters: SQL from FROM on, and its parameters."""

    dataset_id: int | None
    workflowtask_id: int | None = None  # whose latest units are joined
    conditions: list[str] = field(default_factory=list)
    by_status: bool = False  # whether one of the conditions is about the units
    counts: list[str] = field(default_factory=list)  # how many pass each of them, if that is known
    parameters: list[BindParameter[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters.append(bindparam("dataset_id", self.dataset_id))

    @property
    def found(self) -> str:
        """The images of the dataset that pass."""
        units = _WITH_UNITS if self.by_status else ""
        listed = f"FROM datasetimage AS image{units} WHERE image.dataset_id = :dataset_id"
        return " AND ".join([listed, *self.conditions])

    @property
    def units(self) -> str:
        """The join of the latest units to images that have been found."""
        return "" if self.workflowtask_id is None else _WITH_UNITS

    @property
    def count(self) -> str:
        """How many pass: it takes reading all images only if there are several conditions."""
        if not self.conditions:
            return _COUNT_ALL
        if len(self.conditions) == len(self.counts) == 1:
            return self.counts[0]
        return f"SELECT count(*) {self.found}"

    def look_at_units(self) -> None:
        """Have the latest units joined to all images, for a condition."""
        self.by_status = True
        self.parameters.append(bindparam("workflowtask_id", self.workflowtask_id))

    def where(self, condition: str, *parameters: BindParameter[Any]) -> None:
        self.conditions.append(condition)
        self.parameters += parameters

    def filter_by(self, query: ImageQuery) -> None:
        for n, (key, wanted) in enumerate(query.type_filters.items()):
            given = bindparam(f"type_{n}", {key: True}, JSONB)
            self.where(f"{'' if wanted else 'NOT '}image.types @> :type_{n}", given)
            having = f"{_COUNT} 'type' AND jsonb_build_object(key, value) = :type_{n}"
            self.counts.append(having if wanted else f"({_COUNT_ALL}) - coalesce(({having}), 0)")
        for n, (key, values) in enumerate(query.attribute_filters.items()):
            value = f"image.attributes -> :key_{n}"
            if key == STATUS_ATTRIBUTE and self.workflowtask_id is not None:
                value = f"to_jsonb({_STATUS})"
                self.look_at_units()
            else:
                self.parameters.append(bindparam(f"key_{n}", key, String))
                having = f"{_COUNT} 'attribute' AND key = :key_{n} AND :values_{n} @> value"
                self.counts.append(having)
            self.where(f":values_{n} @> ({value})", bindparam(f"values_{n}", values, JSONB))

    async def run(
        self, session: AsyncSession, statement: str, *parameters: BindParameter[Any]
    ) -> Result[Any]:
        return await session.execute(text(statement).bindparams(*self.parameters, *parameters))


async def page_of_images(
    session: AsyncSession,
    dataset_id: int | None,
    query: ImageQuery,
    paging: Paging,
    *,
    zarr_url: str | None = None,
) -> str:
    """The JSON of an `ImagePage`: the images that pass, in their order."""
    search = _Search(dataset_id)
    search.filter_by(query)
    if zarr_url is not None:
        search.where("image.zarr_url = :zarr_url", bindparam("zarr_url", zarr_url))
    return await _page(session, search, paging, IMAGE_JSON)


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
    search = _Search(dataset_id, workflowtask_id)
    search.parameters += (
        bindparam("workflowtask_id", workflowtask_id),
        bindparam("include_warnings", include_warnings),
    )
    search.filter_by(query)
    return await _page(session, search, paging, _IMAGE_WITH_STATUS_JSON, _AND_STATUSES)


async def types_that_differ(
    session: AsyncSession, dataset_id: int | None, workflowtask_id: int, query: ImageQuery
) -> list[str]:
    """The types, sorted, that some of the images that pass have and others have not."""
    search = _Search(dataset_id, workflowtask_id)
    search.filter_by(query)
    found = await search.run(session, _DIFFERING.format(found=search.found))
    return list(found.scalars())


async def images_not_done(
    session: AsyncSession, dataset_id: int | None, workflowtask_id: int | None, query: ImageQuery
) -> list[str]:
    """The URLs of the images that pass and on which a workflow task is not done, in their order."""
    search = _Search(dataset_id, workflowtask_id)
    search.filter_by(query)
    search.where(f"{_STATUS} <> 'done'")
    search.look_at_units()
    found = await search.run(session, f"SELECT image.zarr_url {search.found} ORDER BY image.id")
    return list(found.scalars())


def image_count() -> ColumnElement[int]:
    """How many images a dataset has, in a query of datasets."""
    counted = select(func.max(ImageFacet.count)).where(
        ImageFacet.dataset_id == DatasetV2.id, ImageFacet.kind == "image"
    )
    return func.coalesce(counted.scalar_subquery(), 0)


async def export_dataset(session: AsyncSession, dataset_id: int | None) -> str:
    """The JSON of a `DatasetExport`."""
    search = _Search(dataset_id)
    exported: str = (await search.run(session, _EXPORT.format(found=search.found))).scalar_one()
    return exported


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


async def _page(
    session: AsyncSession, search: _Search, paging: Paging, image: str, statuses: str = ""
) -> str:
    """A page of images as JSON."""
    statement = _PAGE.format(
        found=search.found,
        count=search.count,
        image=image,
        units=search.units,
        statuses=statuses,
    )
    place = (
        bindparam("page", paging.page, Integer),
        bindparam("page_size", paging.page_size, Integer),
    )
    page: str = (await search.run(session, statement, *place)).scalar_one()
    return page


_AND_STATUSES = f"""|| jsonb_build_object(
    '{STATUS_ATTRIBUTE}', jsonb_build_array('done', 'submitted', 'failed', 'unset'))"""

# A page after the last one is the last one. The page is read along the primary key, up to its end.
_PAGE = """
WITH total AS MATERIALIZED (SELECT coalesce(({count}), 0)::int AS count),
place AS MATERIALIZED (
    SELECT count, least(:page, greatest(1, ceil(count::numeric / :page_size)))::int AS page
    FROM total
),
listed AS MATERIALIZED (
    SELECT image.* {found} ORDER BY image.id
    LIMIT :page_size OFFSET (SELECT (page - 1) * coalesce(:page_size, 0) FROM place)
)
SELECT json_build_object(
    'current_page', page,
    'page_size', coalesce(:page_size, count),
    'total_count', count,
    'items', (
        SELECT coalesce(json_agg({image} ORDER BY image.id), '[]')
        FROM listed AS image{units}
    ),
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
)::text FROM place
"""

# A type that an image lacks is false.
_DIFFERING = """
WITH found AS MATERIALIZED (SELECT image.types {found})
SELECT key FROM found, jsonb_each(types) GROUP BY key
HAVING count(*) FILTER (WHERE value = 'true') BETWEEN 1 AND (SELECT count(*) FROM found) - 1
ORDER BY key COLLATE "C"
"""

_EXPORT = f"""
SELECT json_build_object('name', name, 'zarr_dir', zarr_dir, 'images', (
    SELECT coalesce(json_agg({IMAGE_JSON} ORDER BY image.id), '[]') {{found}}
))::text FROM datasetv2 WHERE id = :dataset_id
"""
