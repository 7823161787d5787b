"""Core tasks, which administrators recommend: on a resource, one of each name of a package version.

A change is seen as a whole, or not at all; who calls this commits it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import tuple_
from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.tables import Resource, TaskGroupV2, TaskV2, UserGroup


class NamedTask(NamedTuple):
    """A task, by its package, the version of that, and its own name."""

    package: str
    version: str
    name: str


@dataclass(frozen=True)
class Place:
    """Task groups of a resource that are shared with a user group."""

    resource_id: int
    user_group_id: int


async def count_core_tasks(session: AsyncSession) -> int:
    """How many tasks are core, on all resources."""
    return (await session.exec(select(func.count()).where(col(TaskV2.is_core)))).one()


async def make_core(session: AsyncSession, task_ids: Sequence[int]) -> None:
    """Make tasks core.

    Raises:
        NotFoundError: some are not there.
        RefusedError: two of the same name and package version would be core on a resource.
    """
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("core tasks"))))
    await _set_core(session, task_ids, is_core=True)
    of_task: list[Any] = [
        TaskV2.name,
        TaskGroupV2.pkg_name,
        TaskGroupV2.version,
        TaskGroupV2.resource_id,
    ]
    columns: list[Any] = [*of_task, func.array_agg(TaskV2.id)]
    found = await session.execute(
        select(*columns)
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


async def make_not_core(session: AsyncSession, task_ids: Sequence[int]) -> None:
    """Make tasks not core.

    Raises:
        NotFoundError: some are not there.
    """
    await _set_core(session, task_ids, is_core=False)


async def replace_core_tasks(
    session: AsyncSession, named: Collection[NamedTask], places: Collection[Place]
) -> None:
    """Make just the named tasks core that are in these places.

    Tasks that are named and not there are left out.

    Raises:
        NotFoundError: a resource or a user group is not there.
        RefusedError: two of the same name and package version would be core on a resource.
    """
    await _require(session, Resource, [place.resource_id for place in places])
    await _require(session, UserGroup, [place.user_group_id for place in places])
    await session.execute(update(TaskV2).where(col(TaskV2.is_core)).values(is_core=False))
    chosen = await session.exec(
        select(col(TaskV2.id))
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(
            tuple_(col(TaskGroupV2.resource_id), col(TaskGroupV2.user_group_id)).in_(
                [(place.resource_id, place.user_group_id) for place in places]
            ),
            tuple_(*map(col, (TaskGroupV2.pkg_name, TaskGroupV2.version, TaskV2.name))).in_(named),
        )
    )
    await make_core(session, [each for each in chosen if each is not None])


async def _require(
    session: AsyncSession, kind: type[Resource] | type[UserGroup], ids: Collection[int]
) -> None:
    found = await session.exec(select(kind.id).where(col(kind.id).in_(ids)))
    if missing := set(ids).difference(found):
        raise NotFoundError(kind.__name__, ", ".join(map(str, sorted(missing))))


async def _set_core(session: AsyncSession, task_ids: Sequence[int], *, is_core: bool) -> None:
    changed = await session.execute(
        update(TaskV2)
        .where(col(TaskV2.id).in_(task_ids))
        .values(is_core=is_core)
        .returning(col(TaskV2.id))
    )
    if missing := set(task_ids).difference(changed.scalars()):
        raise NotFoundError("Task", ", ".join(map(str, sorted(missing))))
