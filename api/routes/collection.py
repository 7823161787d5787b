"""Collection of tasks: from the package index, a wheel, a project of pixi, or what is installed."""

from typing import Annotated, NewType, Self

from fastapi import APIRouter, File, UploadFile, status
from pydantic import BaseModel, model_validator

from api.request_body import Body, takes
from api.rights import NewOwner
from api.services import LifecycleDep, SessionDep
from flows.activities.new_groups import add_installed
from fractal_models.database import release
from fractal_models.schemas import task as schemas
from fractal_models.schemas.base import NonEmpty

router = APIRouter(prefix="/api/v2/task/collect", tags=["Task Lifecycle"])

# FastAPI takes a plain bool that a form does not have for false, as an unchecked box, not for its
# default.
_Flag = NewType("_Flag", bool)


class PipCollection(schemas.PackageToCollect):
    """A package to install: its name on the package index, or the file of a wheel.

    Pinned versions, as JSON objects of name and version, are installed before or after it.
    """

    file: UploadFile | None = None

    @model_validator(mode="after")
    def _package_or_file(self) -> Self:
        if (self.package is None) == (self.file is None):
            raise ValueError("give either package or file")
        if self.file is not None and self.package_version is not None:
            raise ValueError("a wheel has its own version: give no package_version")
        return self


class PixiCollection(BaseModel):
    """The archive of a project (`name-version.tar.gz`), and with which pixi it is installed."""

    file: UploadFile
    pixi_version: NonEmpty | None = None
    use_pixi_lockfile: _Flag = _Flag(True)


@router.post("/pip/", status_code=status.HTTP_202_ACCEPTED)
@takes(Body.FILE)
async def collect_tasks_pip(
    request: Annotated[PipCollection, File()],
    owner: NewOwner,
    session: SessionDep,
    lifecycle: LifecycleDep,
) -> schemas.TaskGroupActivityRead:
    """Install a package into an environment of its own, and add its tasks; see the activity."""
    await release(session)
    if (file := request.file) is None:
        return await lifecycle.collect(await owner.package(request, None), None)
    return await lifecycle.collect(await owner.package(request, file.filename or ""), file.read)


@router.post("/pixi/", status_code=status.HTTP_202_ACCEPTED)
@takes(Body.FILE)
async def collect_tasks_pixi(
    request: Annotated[PixiCollection, File()], owner: NewOwner, lifecycle: LifecycleDep
) -> schemas.TaskGroupActivityRead:
    """Install a project into an environment of its own, and add its tasks; see the activity."""
    group = owner.pixi_project(request.pixi_version, request.file.filename or "")
    use_lockfile = request.use_pixi_lockfile
    return await lifecycle.collect(group, request.file.read, use_pixi_lockfile=use_lockfile)


@router.post("/custom/", status_code=status.HTTP_201_CREATED)
async def collect_tasks_custom(
    request: schemas.TaskCollectCustom, owner: NewOwner, session: SessionDep
) -> list[schemas.TaskRead]:
    """Add the tasks of a package that is installed already, by its manifest."""
    group = owner.group(origin="other", pkg_name=request.label, version=request.version)
    tasks = await add_installed(session, group, request)
    await session.commit()
    return [schemas.TaskRead.model_validate(task) for task in tasks]
