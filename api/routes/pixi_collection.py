"""Collection of tasks from projects of pixi."""

from typing import Annotated, NewType

from fastapi import APIRouter, File, UploadFile, status
from pydantic import BaseModel

from api.dependencies import (
    Contributor,
    LifecycleDep,
    SharingGroup,
    TasksFolder,
    UserResource,
)
from api.request_body import Body, takes
from flows.activities.packages import name_and_version_of_archive
from flows.activities.pixi_commands import pixi_version_of
from fractal_models.database import saved_id
from fractal_models.schemas.base import NonEmpty
from fractal_models.schemas.task import TaskGroupActivityRead
from fractal_models.tables import TaskGroupV2

router = APIRouter(prefix="/api/v2/task/collect", tags=["Task Lifecycle"])

# FastAPI takes a plain bool that a form does not have for false, as an unchecked box, not for its
# default.
_Flag = NewType("_Flag", bool)


class PixiCollection(BaseModel):
    """The archive of a project (`name-version.tar.gz`), and with which pixi it is installed."""

    file: UploadFile
    pixi_version: NonEmpty | None = None
    use_pixi_lockfile: _Flag = _Flag(True)


@router.post("/pixi/", status_code=status.HTTP_202_ACCEPTED)
@takes(Body.FILE)
async def collect_tasks_pixi(
    request: Annotated[PixiCollection, File()],
    user: Contributor,
    resource: UserResource,
    tasks_folder: TasksFolder,
    user_group_id: SharingGroup,
    lifecycle: LifecycleDep,
) -> TaskGroupActivityRead:
    """Install a project into an environment of its own, and add its tasks; see the activity."""
    filename = request.file.filename or ""
    pixi_version = pixi_version_of(resource, request.pixi_version)
    name, version = name_and_version_of_archive(filename)
    folder = tasks_folder / name / version
    group = TaskGroupV2(
        user_id=saved_id(user),
        user_group_id=user_group_id,
        resource_id=saved_id(resource),
        origin="pixi",
        pkg_name=name,
        version=version,
        pixi_version=pixi_version,
        path=str(folder),
        venv_path=str(folder / "project"),
        archive_path=str(folder / filename),
        active=False,
    )
    use_lockfile = request.use_pixi_lockfile
    return await lifecycle.collect(group, request.file, use_pixi_lockfile=use_lockfile)
