"""The images of a dataset."""

from fastapi import APIRouter, Response, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.gone_clients import only_reads
from api.lists import JsonDocument, PagingDep
from api.queries.images import page_of_images, search_for
from api.rights import ReadableDataset, ReadableWorkflow, WritableDataset
from api.services import SessionDep
from flows.records.jobs import require_no_submitted_job
from flows.units.plan import CONVERTERS
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.image_list import read_named_images, remove_images, write_images
from fractal_models.image_pages import types_that_differ, urls_of_images
from fractal_models.image_search import NOT_DONE
from fractal_models.images import STATUS_ATTRIBUTE, Image, SingleImage, ZarrUrl
from fractal_models.images.schema import SingleImageUpdate
from fractal_models.schemas.dataset import ImagePage, ImageQuery, ImageQueryWithZarrUrl
from fractal_models.tables import DatasetV2
from fractal_models.urls import not_below

router = APIRouter(
    prefix="/api/v2/project/{project_id}/dataset/{dataset_id}/images", tags=["Images"]
)


@router.post("/query/", response_model=ImagePage)
@only_reads
async def query_images(
    dataset: ReadableDataset,
    session: SessionDep,
    paging: PagingDep,
    query: ImageQueryWithZarrUrl | None = None,
) -> Response:
    """The images that pass the filters; attributes and types are those of the whole dataset."""
    query = query or ImageQueryWithZarrUrl()
    search = search_for(query, dataset.id)
    if query.zarr_url is not None:
        search.only(query.zarr_url)
    return await page_of_images(session, search, paging)


@router.post("/verify-unique-types/")
@only_reads
async def list_types_that_differ(
    dataset: ReadableDataset,
    workflowtask_id: int,
    session: SessionDep,
    query: ImageQuery | None = None,
) -> list[str]:
    """The types that only some of the images have which pass the filters.

    Filters by status are about the latest units of the workflow task.
    """
    search = search_for(query or ImageQuery(), dataset.id, workflowtask_id)
    return await types_that_differ(session, search)


@router.post("/non-processed/", response_model=list[str])
@only_reads
async def list_images_not_processed(
    dataset: ReadableDataset,
    workflow: ReadableWorkflow,
    workflowtask_id: int,
    filters: ImageQuery,
    session: SessionDep,
) -> Response:
    """Which images that pass the filters the task before this one has not done.

    None if that task is a converter or sets types, since it may make other images; or if this one
    is the first.
    """
    ids = [workflow_task.id for workflow_task in workflow.task_list]
    if workflowtask_id not in ids:
        raise NotFoundError("Workflow task", workflowtask_id)
    place = ids.index(workflowtask_id)
    before = workflow.task_list[place - 1]
    if place == 0 or before.task_type in CONVERTERS or before.task.output_types:
        return JsonDocument("[]")
    search = search_for(filters, dataset.id, before.id)
    search.filter_by({}, {STATUS_ATTRIBUTE: NOT_DONE})
    return JsonDocument(await urls_of_images(session, search))


@router.post("/", status_code=status.HTTP_201_CREATED)
async def add_image(dataset: WritableDataset, image: SingleImage, session: SessionDep) -> None:
    """Add an image that is there already, in the dataset's folder."""
    await require_no_submitted_job(session, dataset)
    if not_below([image.zarr_url], dataset.zarr_dir):
        raise RefusedError(
            f"{image.zarr_url!r} is not in the dataset's folder, {dataset.zarr_dir!r}."
        )
    if await read_named_images(session, dataset.id, [image.zarr_url]):
        raise RefusedError(f"Image {image.zarr_url!r} is in dataset {dataset.id} already.")
    await write_images(session, dataset.id, [image.model_dump()])
    await session.commit()


@router.patch("/")
async def update_image(
    dataset: WritableDataset, changes: SingleImageUpdate, session: SessionDep
) -> SingleImage:
    """Give an image other attributes or types, in place of those it has."""
    await require_no_submitted_job(session, dataset)
    before = await _image(session, dataset, changes.zarr_url)
    image = {**before, **changes.model_dump(exclude_unset=True, exclude_none=True)}
    await write_images(session, dataset.id, [image])
    await session.commit()
    return SingleImage.model_validate(image)


@router.delete("/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_image(dataset: WritableDataset, zarr_url: ZarrUrl, session: SessionDep) -> None:
    """Take an image off the list; on disk it stays."""
    await require_no_submitted_job(session, dataset)
    await _image(session, dataset, zarr_url)
    await remove_images(session, dataset.id, [zarr_url])
    await session.commit()


async def _image(session: AsyncSession, dataset: DatasetV2, zarr_url: str) -> Image:
    """Raises NotFoundError if the dataset has no such image."""
    found = await read_named_images(session, dataset.id, [zarr_url])
    if not found:
        raise NotFoundError("Image", zarr_url)
    return found[0]
