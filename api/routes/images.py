"""The images of a dataset."""

from fastapi import APIRouter, Response, status

from api.dependencies import ReadableDataset, SessionDep, WritableDataset
from api.errors import unprocessable
from api.paging import PagingDep
from api.queries.images import (
    append_image,
    find_image,
    page_of_images,
    remove_image,
    replace_image,
)
from api.queries.jobs import require_no_submitted_job
from fractal_models.images import SingleImage, ZarrUrl
from fractal_models.images.schema import SingleImageUpdate
from fractal_models.rights import NotFoundError
from fractal_models.schemas.dataset import ImagePage, ImageQueryWithZarrUrl

router = APIRouter(
    prefix="/api/v2/project/{project_id}/dataset/{dataset_id}/images", tags=["Images"]
)


@router.post("/query/", response_model=ImagePage)
async def query_images(
    dataset: ReadableDataset,
    session: SessionDep,
    paging: PagingDep,
    query: ImageQueryWithZarrUrl | None = None,
) -> Response:
    """The images that pass the filters; attributes and types are those of the whole dataset."""
    query = query or ImageQueryWithZarrUrl()
    page = await page_of_images(session, dataset.id, query, paging, zarr_url=query.zarr_url)
    return Response(page, media_type="application/json")


@router.post("/", status_code=status.HTTP_201_CREATED)
async def add_image(dataset: WritableDataset, image: SingleImage, session: SessionDep) -> Response:
    """Add an image that is there already, wherever it lies."""
    await require_no_submitted_job(session, dataset, "dataset")
    if image.zarr_url == dataset.zarr_dir:
        raise unprocessable(f"{image.zarr_url!r} is the dataset's folder, not an image in it.")
    if await find_image(session, dataset.id, image.zarr_url) is not None:
        raise unprocessable(f"Image {image.zarr_url!r} is in dataset {dataset.id} already.")
    await append_image(session, dataset.id, image.model_dump())
    await session.commit()
    return Response(status_code=status.HTTP_201_CREATED)


@router.patch("/")
async def update_image(
    dataset: WritableDataset, changes: SingleImageUpdate, session: SessionDep
) -> SingleImage:
    """Give an image other attributes or types, in place of those it has."""
    await require_no_submitted_job(session, dataset, "dataset")
    found = await find_image(session, dataset.id, changes.zarr_url)
    if found is None:
        raise NotFoundError("Image", changes.zarr_url)
    image, index = found
    for field in ("attributes", "types"):
        if (values := getattr(changes, field)) is not None:
            image[field] = {key: value for key, value in values.items() if value is not None}
    edited = SingleImage.model_validate(image)
    await replace_image(session, dataset.id, index, edited.model_dump())
    await session.commit()
    return edited


@router.delete("/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_image(dataset: WritableDataset, zarr_url: ZarrUrl, session: SessionDep) -> None:
    """Take an image off the list; on disk it stays."""
    await require_no_submitted_job(session, dataset, "dataset")
    found = await find_image(session, dataset.id, zarr_url)
    if found is None:
        raise NotFoundError("Image", zarr_url)
    await remove_image(session, dataset.id, found[1], zarr_url)
    await session.commit()
