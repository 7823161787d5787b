"""Core tasks: those that administrators recommend, each name once per package version."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.tables import TaskGroupV2, TaskV2


async def make_core(session: AsyncSession, task_ids: Sequence[int]) -> None:
    """Make tasks core, and commit.

    Raises:
        NotFoundError: some are not there.
        RefusedError: two of the same name and package version would be core on a resource.
    """
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("core tasks"))))
    await _set(session, task_ids, is_core=True)
    of_task: list[Any] = [
        TaskV2.name,
        TaskGroupV2.pkg_name,
        TaskGroupV2.version,
        TaskGroupV2.resource_id,
    ]
    found = await session.execute(
        select(*of_task, func.array_agg(TaskV2.id))
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(col(TaskV2.is_core))
        .group_by(*of_task)
        .having(func.count() > 1, func.bool_or(col(TaskV2.id).in_(task_ids)))
    )
    if (twice := found.first()) is not None:
        name, package, version, _, ids = twice
        raise RefusedError(
            f"Only one task {name!r} of {package} {version} can be core: of tasks "
            f"{', '.join(map(str, sorted(ids)))}, make the others not core."
        )
    await session.commit()


async def make_not_core(session: AsyncSession, task_ids: Sequence[int]) -> None:
    """Make tasks not core, and commit.

    Raises:
        NotFoundError: some are not there.
    """
    await _set(session, task_ids, is_core=False)
    await session.commit()


async def _set(session: AsyncSession, task_ids: Sequence[int], *, is_core: bool) -> None:
    changed = await session.execute(
        update(TaskV2)
        .where(col(TaskV2.id).in_(task_ids))
        .values(is_core=is_core)
        .returning(col(TaskV2.id))
    )
    if missing := set(task_ids).difference(changed.scalars()):
        raise NotFoundError("Task", ", ".join(map(str, sorted(missing))))
