"""Pages of image lists as JSON that PostgreSQL writes: for a page of 50, no other image leaves it.

What there is to filter by, and how long the list is, is counted whenever the list changes (see
`fractal_models.tables.ImageFacet`).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Integer, bindparam
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.exact_json import loads
from fractal_models.image_list import IMAGE_JSON
from fractal_models.image_search import STATUS, ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.tables import DatasetV2, ImageFacet

_BLOCKS_AT_ONCE = 4  # of 1024 images each

_IMAGE_WITH_STATUS_JSON = f"""json_build_object(
    'zarr_url', image.zarr_url, 'origin', image.origin, 'types', image.types,
    'attributes', image.attributes || jsonb_build_object('{STATUS_ATTRIBUTE}', {STATUS}),
    'has_warnings', CASE WHEN :include_warnings THEN unit.has_warnings END)"""


@dataclass(slots=True)
class ImagePages:
    """The images that a search finds, in their order.

    If it is about a workflow task, each has the attribute STATUS_ATTRIBUTE, and `has_warnings`:
    null, unless these are included.
    """

    search: ImageSearch
    include_warnings: bool = False

    async def page(self, session: AsyncSession, page: int, page_size: int) -> str:
        """A page with its images. After the last page, it is the last one."""
        items = self._images_in("parts")
        head, images = await self._run_page(session, items, page, page_size, *self._parameters)
        return f'{head[:-1]}, "items": {images}}}'

    async def long_page(
        self, session: AsyncSession, page: int, page_size: int | None
    ) -> tuple[str, AsyncIterator[str]]:
        """A page without its images, and these as arrays; without a size, it has all of them.

        The statements of the session see one moment.
        """
        head, parts = await self._run_page(session, _PARTS, page, page_size)
        return head, self._arrays(session, parts)

    async def export(self, session: AsyncSession) -> tuple[str, AsyncIterator[str]]:
        """What is exported of the dataset, and all images as arrays.

        The statements of the session see one moment.
        """
        statement = _EXPORT.format(blocks=self.search.blocks, parts=_PARTS)
        dataset, parts = (await self.search.run(session, statement)).one()
        return dataset, self._arrays(session, parts)

    async def _run_page(
        self,
        session: AsyncSession,
        items: str,
        page: int,
        page_size: int | None,
        *parameters: BindParameter[Any],
    ) -> tuple[str, str]:
        of_task = self.search.workflowtask_id is not None
        statement = _PAGE.format(
            blocks=self.search.blocks, items=items, statuses=_AND_STATUSES if of_task else ""
        )
        place = bindparam("page", page, Integer), bindparam("page_size", page_size, Integer)
        head, found = (await self.search.run(session, statement, *place, *parameters)).one()
        return head, found

    async def _arrays(self, session: AsyncSession, parts: str) -> AsyncIterator[str]:
        """The images in these parts of blocks, some blocks at a time."""
        statement = f"SELECT {self._images_in(_GIVEN_PARTS)}"
        left = loads(parts)
        for start in range(0, len(left), _BLOCKS_AT_ONCE):
            given = bindparam("parts", left[start : start + _BLOCKS_AT_ONCE], JSONB)
            found = await self.search.run(session, statement, given, *self._parameters)
            yield found.scalar_one()

    def _images_in(self, parts: str) -> str:
        """SQL of a JSON array: the images in parts of blocks."""
        of_task = self.search.workflowtask_id is not None
        return _IMAGES.format(
            in_block=self.search.in_block,
            units=self.search.units,
            parts=parts,
            image=_IMAGE_WITH_STATUS_JSON if of_task else IMAGE_JSON,
        )

    @property
    def _parameters(self) -> tuple[BindParameter[Any], ...]:
        """Those of an image with its status."""
        if self.search.workflowtask_id is None:
            return ()
        return (
            bindparam("workflowtask_id", self.search.workflowtask_id),
            bindparam("include_warnings", self.include_warnings),
        )


async def types_that_differ(session: AsyncSession, search: ImageSearch) -> list[str]:
    """The types, sorted, that some of the images that are found have and others have not."""
    found = await search.run(session, _DIFFERING.format(found=search.found))
    return list(found.scalars())


async def urls_of_images(session: AsyncSession, search: ImageSearch) -> str:
    """A JSON array: the URLs of the images that are found, in their order."""
    listed = "SELECT coalesce(json_agg(image.zarr_url ORDER BY image.id), '[]')::text"
    urls: str = (await search.run(session, f"{listed} {search.found}")).scalar_one()
    return urls


def image_count() -> ColumnElement[int]:
    """How many images a dataset has, in a query of datasets."""
    counted = select(func.max(ImageFacet.count)).where(
        ImageFacet.dataset_id == DatasetV2.id, ImageFacet.kind == "image"
    )
    return func.coalesce(counted.scalar_subquery(), 0)


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
