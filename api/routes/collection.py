"""Collection of tasks: from the package index, from a wheel, or of an environment that exists."""

from pathlib import PurePosixPath
from typing import Annotated, Self

from fastapi import APIRouter, File, UploadFile, status
from packaging.utils import canonicalize_name
from pydantic import BaseModel, model_validator

from api.dependencies import (
    Contributor,
    LifecycleDep,
    SessionDep,
    SharingGroup,
    TasksFolder,
    UserResource,
)
from api.queries.task_groups import require_new
from api.request_body import Body, takes
from flows.activities.commands import interpreter_of
from flows.activities.package_tasks import PackageError, executables_of, tasks_of
from flows.activities.packages import installed_root, name_and_version_of_wheel, version_on_index
from flows.activities.site import Site, open_site
from fractal_models.database import release, saved_id
from fractal_models.schemas.task import (
    PackageExtras,
    PackageName,
    PackageVersion,
    PinnedVersions,
    PythonVersion,
    TaskCollectCustom,
    TaskGroupActivityRead,
    TaskRead,
)
from fractal_models.tables import Resource, TaskGroupV2, TaskV2

router = APIRouter(prefix="/api/v2/task/collect", tags=["Task Lifecycle"])


class PipCollection(BaseModel):
    """A package to install: its name on the package index, or the file of a wheel.

    Pinned versions, as JSON objects of name and version, are installed before or after it.
    """

    package: PackageName | None = None
    package_version: PackageVersion | None = None
    package_extras: PackageExtras | None = None
    python_version: PythonVersion | None = None
    pinned_package_versions_pre: PinnedVersions = None
    pinned_package_versions_post: PinnedVersions = None
    file: UploadFile | None = None

    @model_validator(mode="after")
    def _package_or_file(self) -> Self:
        if (self.package is None) == (self.file is None):
            raise ValueError("give either package or file")
        if self.file is not None and self.package_version is not None:
            raise ValueError("a wheel has its own version: give no package_version")
        return self


@router.post("/pip/", status_code=status.HTTP_202_ACCEPTED)
@takes(Body.FILE)
async def collect_tasks_pip(
    request: Annotated[PipCollection, File()],
    user: Contributor,
    resource: UserResource,
    tasks_folder: TasksFolder,
    user_group_id: SharingGroup,
    session: SessionDep,
    lifecycle: LifecycleDep,
) -> TaskGroupActivityRead:
    """Install a package into an environment of its own, and add its tasks; see the activity."""
    await release(session)
    group = await _describe(request, saved_id(user), user_group_id, resource, tasks_folder)
    return await lifecycle.collect(group, request.file)


@router.post("/custom/", status_code=status.HTTP_201_CREATED)
async def collect_tasks_custom(
    request: TaskCollectCustom,
    user: Contributor,
    resource: UserResource,
    user_group_id: SharingGroup,
    session: SessionDep,
) -> list[TaskRead]:
    """Add the tasks of a package that is installed already, by its manifest."""
    group = TaskGroupV2(
        user_id=saved_id(user),
        user_group_id=user_group_id,
        resource_id=saved_id(resource),
        origin="other",
        pkg_name=request.label,
        version=request.version,
    )
    await require_new(session, group)
    async with open_site(session, group) as site:
        await session.commit()  # no connection is held while files are looked for
        tasks = await _installed_tasks(request, site)
    await require_new(session, group)
    group.task_list = tasks
    session.add(group)
    await session.commit()
    return [TaskRead.model_validate(task) for task in group.task_list]


async def _installed_tasks(request: TaskCollectCustom, site: Site) -> list[TaskV2]:
    """The tasks of a package that is installed at a site; their files may come later.

    Raises:
        PackageError: it is not, or the interpreter is not there.
    """
    python = request.python_interpreter
    if not await site.existing([python]):
        raise PackageError(f"The interpreter {python} does not exist.")
    found = request.package_root or await installed_root(str(request.package_name), python, site)
    if not await site.is_folder(found):
        raise PackageError(f"The folder {found} of the package does not exist.")
    root = PurePosixPath(found)
    files = executables_of(request.manifest, root)
    return tasks_of(request.manifest, python, root, request.version, files=files)


async def _describe(
    request: PipCollection,
    user_id: int,
    user_group_id: int | None,
    resource: Resource,
    tasks_folder: PurePosixPath,
) -> TaskGroupV2:
    """What is to be installed, and where; the newest version of those that are asked for.

    Raises:
        PackageError: there is no such package, version, wheel or interpreter.
    """
    python_version = request.python_version or resource.tasks_python_config["default_version"]
    group = TaskGroupV2(
        user_id=user_id,
        user_group_id=user_group_id,
        resource_id=saved_id(resource),
        origin="pypi" if request.file is None else "wheel-file",
        pkg_name=canonicalize_name(request.package or ""),
        version=request.package_version,
        python_version=python_version,
        pip_extras=request.package_extras,
        pinned_package_versions_pre=request.pinned_package_versions_pre or {},
        pinned_package_versions_post=request.pinned_package_versions_post or {},
        active=False,
    )
    python, filename = interpreter_of(resource, python_version), ""
    if request.file is not None:
        filename = request.file.filename or ""
        group.pkg_name, group.version = name_and_version_of_wheel(filename)
    else:
        here = python if resource.type != "slurm_ssh" else None
        group.version = await version_on_index(
            group.pkg_name, request.package_version, here, python_version
        )
    folder = tasks_folder / group.pkg_name / str(group.version)
    group.path, group.venv_path = str(folder), str(folder / "venv")
    group.archive_path = str(folder / filename) if filename else None
    return group
