"""Datasets; their images are in `images.py`."""

import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Response, status
from sqlalchemy import Select
from sqlmodel import col, select

from api import lists
from api.errors import conflicts_as
from api.image_import import ImportRoute
from api.lists import PROJECT_ID, READER
from api.queries import images
from api.queries.users import owner_email
from api.readers import ProjectReader, VerifiedReader
from api.request_body import Body, takes
from api.rights import ReadableDataset, WritableDataset, WritableProject
from api.services import (
    PatientSessionDep,
    Services,
    ServicesDep,
    SessionDep,
    SnapshotDep,
    VerifiedUser,
)
from flows.records.jobs import require_no_submitted_job
from fractal_models.database import analyse, saved_id
from fractal_models.errors import ForbiddenError, RefusedError
from fractal_models.image_list import IMAGE_TABLES, append_images
from fractal_models.image_pages import image_count
from fractal_models.json_rows import json_object
from fractal_models.schemas.base import Page
from fractal_models.schemas.dataset import (
    DatasetCreate,
    DatasetExport,
    DatasetImport,
    DatasetRead,
    DatasetReadExpanded,
    DatasetUpdate,
)
from fractal_models.schemas.project import ProjectRead
from fractal_models.tables import DatasetV2, LinkUserProjectV2, ProjectV2, UserOAuth
from fractal_models.urls import join_url, lies_in, normalize_url

_OF_PROJECT: Any = {"prefix": "/api/v2/project/{project_id}/dataset", "tags": ["Dataset"]}
router = APIRouter(**_OF_PROJECT)
router_of_imports = APIRouter(**_OF_PROJECT, route_class=ImportRoute)
router_of_all = APIRouter(prefix="/api/v2/dataset", tags=["Dataset"])

# Looked up for each dataset that is answered with, not for all among which these are.
_PROJECT_OF_DATASET = (
    select(json_object(ProjectRead, ProjectV2))
    .where(col(ProjectV2.id) == DatasetV2.project_id)
    .correlate(DatasetV2)
    .scalar_subquery()
)
_PROJECT_NAME = (
    select(ProjectV2.name)
    .where(col(ProjectV2.id) == DatasetV2.project_id)
    .correlate(DatasetV2)
    .scalar_subquery()
)
_COLUMNS: list[Any] = [
    DatasetV2.id,
    DatasetV2.name,
    DatasetV2.project_id,
    _PROJECT_OF_DATASET.label("project"),
    DatasetV2.timestamp_created,
    DatasetV2.zarr_dir,
    DatasetV2.is_starred,
]


@dataclass(frozen=True, slots=True)
class DatasetFilters:
    """Which datasets are asked for, of all projects of a user."""

    project_name: Annotated[str | None, lists.contains(_PROJECT_NAME)] = None
    dataset_name: Annotated[str | None, lists.contains(DatasetV2.name)] = None


_WITH_OWNER: list[Any] = [
    *_COLUMNS,
    owner_email(DatasetV2.project_id).label("owner_email"),
    image_count().label("image_count"),
]
# Those with a star come first, and then the newest.
_MINE: Select[Any] = (
    select(*_WITH_OWNER)
    .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(DatasetV2.project_id))
    .where(LinkUserProjectV2.user_id == READER.id, col(LinkUserProjectV2.is_verified))
    .where(lists.if_asked("only_owned", col(LinkUserProjectV2.is_owner)))
    .order_by(col(DatasetV2.is_starred).desc(), col(DatasetV2.id).desc())
)
_MY_DATASETS = lists.Pages(DatasetReadExpanded, _MINE, DatasetFilters)
_OF_PROJECT_BY_NAME = lists.list_document(
    DatasetRead,
    select(*_COLUMNS)
    .where(DatasetV2.project_id == PROJECT_ID)
    .order_by(col(DatasetV2.is_starred).desc(), DatasetV2.name, col(DatasetV2.id)),
)


@router_of_all.get("/", response_model=Page[DatasetReadExpanded])
async def list_my_datasets(
    reader: VerifiedReader,
    paging: lists.PagingDep,
    filters: Annotated[DatasetFilters, lists.filters(DatasetFilters)],
    only_owned: bool = False,
) -> Response:
    """The datasets of all projects of the user, or of those that they own."""
    document = _MY_DATASETS.asked_for(filters)
    return await reader.answer(document, **paging.values, **asdict(filters), only_owned=only_owned)


@router.get("/", response_model=list[DatasetRead])
async def list_datasets(reader: ProjectReader) -> Response:
    return await reader.answer(_OF_PROJECT_BY_NAME)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_dataset(
    request: DatasetCreate, project: WritableProject, user: VerifiedUser, session: SessionDep
) -> DatasetRead:
    """Make an empty dataset; its images will lie in a folder of its own."""
    project_dir = request.project_dir or next(iter(user.project_dirs), None)
    if project_dir is None or project_dir not in user.project_dirs:
        raise ForbiddenError(f"project_dir must be one of yours: {_listed(user)}.")
    dataset = DatasetV2(
        name=request.name, project_id=saved_id(project), project=project, zarr_dir=project_dir
    )
    session.add(dataset)
    await session.flush()
    subfolder = request.zarr_subfolder or _default_subfolder(project, dataset)
    dataset.zarr_dir = normalize_url(join_url(project_dir, subfolder))
    await session.commit()
    return DatasetRead.model_validate(dataset)


@router_of_imports.post("/import/", status_code=status.HTTP_201_CREATED)
@takes(Body.IMAGES)
async def import_dataset(
    request: DatasetImport,
    project: WritableProject,
    user: VerifiedUser,
    session: PatientSessionDep,
    services: ServicesDep,
    later: BackgroundTasks,
) -> DatasetRead:
    """Make a dataset with images that are there already."""
    if not lies_in(request.zarr_dir, user.project_dirs):
        raise RefusedError(
            f"zarr_dir {request.zarr_dir!r} is in none of your folders: {_listed(user)}."
        )
    dataset = DatasetV2(
        name=request.name,
        zarr_dir=request.zarr_dir,
        project_id=saved_id(project),
        project=project,
    )
    session.add(dataset)
    await session.flush()
    async with conflicts_as("An image occurs more than once: each zarr_url must be unique."):
        for batch in request.images.batches():
            await append_images(session, dataset.id, batch)
    await session.commit()
    later.add_task(_analyse, services, len(request.images))
    return DatasetRead.model_validate(dataset)


async def _analyse(services: Services, images: int) -> None:
    async with services.sessions() as session:
        await analyse(session, images, *IMAGE_TABLES)


@router.get("/{dataset_id}/")
async def read_dataset(dataset: ReadableDataset) -> DatasetRead:
    return DatasetRead.model_validate(dataset)


@router.patch("/{dataset_id}/")
async def update_dataset(
    dataset: WritableDataset, changes: DatasetUpdate, session: SessionDep
) -> DatasetRead:
    dataset.sqlmodel_update(changes.given())
    await session.commit()
    return DatasetRead.model_validate(dataset)


@router.delete("/{dataset_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_dataset(dataset: WritableDataset, session: SessionDep) -> None:
    """Delete a dataset with its history; its images on disk stay."""
    await require_no_submitted_job(session, dataset)
    await session.delete(dataset)
    await session.commit()


@router.get("/{dataset_id}/export/", response_model=DatasetExport)
async def export_dataset(dataset: ReadableDataset, session: SnapshotDep) -> Response:
    """The dataset with its images, as `import/` takes it."""
    return await images.export_dataset(session, dataset.id)


@router.post("/{dataset_id}/star/")
async def star_dataset(dataset: WritableDataset, session: SessionDep) -> None:
    dataset.is_starred = True
    await session.commit()


@router.post("/{dataset_id}/unstar/")
async def unstar_dataset(dataset: WritableDataset, session: SessionDep) -> None:
    dataset.is_starred = False
    await session.commit()


def _listed(user: UserOAuth) -> str:
    return ", ".join(map(repr, user.project_dirs)) or "you have none, ask an administrator"


def _default_subfolder(project: ProjectV2, dataset: DatasetV2) -> str:
    return f"fractal/{project.id}_{_slug(project.name)}/{dataset.id}_{_slug(dataset.name)}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())
