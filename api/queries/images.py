"""Pages and exports of images as answers; a long one is read in pieces, and is of one moment."""

from collections.abc import AsyncIterator

from fastapi import Response
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import JsonDocument, Paging
from api.long_answers import LongJsonDocument
from fractal_models.database import one_moment
from fractal_models.image_pages import ImagePages
from fractal_models.image_search import ImageSearch
from fractal_models.schemas.dataset import ImageQuery

_SHORT = 1000  # images of a page that is one string


def search_for(
    query: ImageQuery, dataset_id: int | None, workflowtask_id: int | None = None
) -> ImageSearch:
    """The images of a dataset that pass; with the status of their latest units of a task."""
    search = ImageSearch(dataset_id, workflowtask_id)
    search.filter_by(query.type_filters, query.attribute_filters)
    return search


async def page_of_images(
    session: AsyncSession, search: ImageSearch, paging: Paging, *, include_warnings: bool = False
) -> Response:
    """An `ImagePage`; of a search about a workflow task, an `ImagePageWithWarnings`."""
    pages = ImagePages(search, include_warnings)
    if paging.page_size is not None and paging.page_size <= _SHORT:
        return JsonDocument(await pages.page(session, paging.page, paging.page_size))
    await one_moment(session)
    page, images = await pages.long_page(session, paging.page, paging.page_size)
    return await _long(page, "items", images)


async def export_dataset(session: AsyncSession, dataset_id: int | None) -> Response:
    """A `DatasetExport`. The statements of the session see one moment."""
    dataset, images = await ImagePages(ImageSearch(dataset_id)).export(session)
    return await _long(dataset, "images", images)


async def _long(document: str, name: str, arrays: AsyncIterator[str]) -> Response:
    answer = LongJsonDocument()
    await answer.write(document, name, arrays)
    return answer
