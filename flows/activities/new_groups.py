"""New task groups: their owner and content, and the check that no equal one exists."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from packaging.utils import canonicalize_name
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.commands import interpreter_of
from flows.activities.package_tasks import PackageError, executables_of, tasks_of
from flows.activities.packages import (
    installed_root,
    name_and_version_of_archive,
    name_and_version_of_wheel,
    version_on_index,
)
from flows.activities.pixi_commands import pixi_version_of
from flows.activities.site import Site, open_site
from fractal_models.database import release, saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.task import PackageToCollect, TaskCollectCustom
from fractal_models.tables import Resource, TaskGroupV2, TaskV2, UserOAuth


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of new task groups, the user group that shares them, and the resource for them.

    `folder` contains the environments of the user's tasks.
    """

    user: UserOAuth
    user_group_id: int | None
    resource: Resource
    folder: PurePosixPath

    def group(self, **fields: Any) -> TaskGroupV2:
        """A new task group of this owner."""
        return TaskGroupV2(
            user_id=saved_id(self.user),
            user_group_id=self.user_group_id,
            resource_id=saved_id(self.resource),
            **fields,
        )

    async def package(self, wanted: PackageToCollect, wheel: str | None) -> TaskGroupV2:
        """A new task group for a package: from a wheel with this file name, or else from the index.

        Raises:
            PackageError: there is no such package, version, wheel or interpreter.
        """
        default = self.resource.tasks_python_config["default_version"]
        python_version = wanted.python_version or default
        python = interpreter_of(self.resource, python_version)
        if wheel is not None:
            name, version = name_and_version_of_wheel(wheel)
        else:
            name = canonicalize_name(wanted.package or "")
            here = python if self.resource.type != "slurm_ssh" else None
            version = await version_on_index(name, wanted.package_version, here, python_version)
        folder = self.folder / name / version
        return self.group(
            origin="pypi" if wheel is None else "wheel-file",
            pkg_name=name,
            version=version,
            python_version=python_version,
            pip_extras=wanted.package_extras,
            pinned_package_versions_pre=wanted.pinned_package_versions_pre or {},
            pinned_package_versions_post=wanted.pinned_package_versions_post or {},
            path=str(folder),
            venv_path=str(folder / "venv"),
            archive_path=str(folder / wheel) if wheel else None,
            active=False,
        )

    def pixi_project(self, pixi_version: str | None, archive: str) -> TaskGroupV2:
        """A new task group for a pixi project, from an archive with this file name.

        Raises:
            PackageError: the resource lacks this pixi, or the name is not that of an archive.
        """
        pixi_version = pixi_version_of(self.resource, pixi_version)
        name, version = name_and_version_of_archive(archive)
        folder = self.folder / name / version
        return self.group(
            origin="pixi",
            pkg_name=name,
            version=version,
            pixi_version=pixi_version,
            path=str(folder),
            venv_path=str(folder / "project"),
            archive_path=str(folder / archive),
            active=False,
        )


async def add_installed(
    session: AsyncSession, group: TaskGroupV2, request: TaskCollectCustom
) -> list[TaskV2]:
    """Add a new task group with the tasks of a package that is installed already (not committed).

    Raises:
        PackageError: it is not, or the interpreter is not there.
        RefusedError: there is such a task group already.
    """
    await require_new(session, group)
    async with open_site(session, group) as site:
        await release(session)  # no connection is held while files are looked for
        group.task_list = await _installed_tasks(request, site)
    await require_new(session, group)
    session.add(group)
    return group.task_list


async def _installed_tasks(request: TaskCollectCustom, site: Site) -> list[TaskV2]:
    """The tasks of a package that is installed at a site; their files may come later."""
    python = request.python_interpreter
    if not await site.existing([python]):
        raise PackageError(f"The interpreter {python} does not exist.")
    found = request.package_root or await installed_root(str(request.package_name), python, site)
    if not await site.is_folder(found):
        raise PackageError(f"The folder {found} of the package does not exist.")
    root = PurePosixPath(found)
    files = executables_of(request.manifest, root)
    return tasks_of(request.manifest, python, root, request.version, files=files)


async def require_new(session: AsyncSession, group: TaskGroupV2) -> None:
    """Check that this package version is new for its user, its user group on the resource, and its
    folder.

    A lock is held until the transaction ends, so that two equal requests cannot both pass.

    Raises:
        RefusedError: such a task group exists already.
    """
    same = await _lock_and_find_same(session, group)
    mine = await session.exec(
        select(TaskGroupV2.id).where(*same, TaskGroupV2.user_id == group.user_id)
    )
    if (found := mine.first()) is not None:
        raise RefusedError(
            f"You have {group.pkg_name} {group.version} already: task group {found}."
        )
    await require_new_in(session, group, group.user_group_id)
    here = select(Resource.host).where(Resource.id == group.resource_id).scalar_subquery()
    in_folder = await session.exec(
        select(TaskGroupV2.id)
        .join(Resource, col(Resource.id) == col(TaskGroupV2.resource_id))
        .where(
            col(TaskGroupV2.path).is_not(None),
            TaskGroupV2.path == group.path,
            col(Resource.host).is_not_distinct_from(here),
        )
    )
    if (found := in_folder.first()) is not None:
        raise RefusedError(f"Task group {found}, of another resource, is in {group.path} already.")


async def require_new_in(
    session: AsyncSession, group: TaskGroupV2, user_group_id: int | None
) -> None:
    """Keep this package version unique in a user group on its resource, as `require_new`."""
    same = await _lock_and_find_same(session, group)
    shared = await session.exec(
        select(TaskGroupV2.id).where(
            *same,
            col(TaskGroupV2.user_group_id).is_not(None),
            TaskGroupV2.user_group_id == user_group_id,
        )
    )
    if (found := shared.first()) is not None:
        raise RefusedError(
            f"{group.pkg_name} {group.version} is shared with this user group already: "
            f"task group {found}."
        )


async def _lock_and_find_same(session: AsyncSession, group: TaskGroupV2) -> list[Any]:
    """What makes others the same package version on the same resource."""
    key = f"{group.pkg_name} {group.version}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
    return [
        col(TaskGroupV2.id).is_distinct_from(group.id),
        TaskGroupV2.pkg_name == group.pkg_name,
        TaskGroupV2.version == group.version,
        TaskGroupV2.resource_id == group.resource_id,
    ]
