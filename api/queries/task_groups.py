"""Task groups and their tasks: which a user sees, and whether they can run."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import AwareDatetime
from sqlalchemy import ColumnElement, ScalarSelect, Select
from sqlmodel import col, exists, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.lists import READER, if_asked
from fractal_models.errors import RefusedError
from fractal_models.json_rows import json_array, json_object, json_text
from fractal_models.rights import visible_to
from fractal_models.schemas import task as schemas
from fractal_models.tables import (
    LinkUserGroup,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
)
from fractal_models.task_versions import comparable, membership_of, preferred_by

IS_PRIVATE = col(TaskGroupV2.user_group_id).is_(None)
_LAST_USED = TaskGroupV2.timestamp_last_used


def _in_use() -> ColumnElement[bool]:
    return exists(
        select(WorkflowTaskV2.id)
        .join(TaskV2, col(TaskV2.id) == col(WorkflowTaskV2.task_id))
        .where(TaskV2.taskgroupv2_id == TaskGroupV2.id)
        .correlate(TaskGroupV2)
    )


def _tasks(schema: type[schemas.TaskReadSlim]) -> ScalarSelect[Any]:
    return (
        select(json_array(json_object(schema, TaskV2), TaskV2.id))
        .where(TaskV2.taskgroupv2_id == TaskGroupV2.id)
        .correlate(TaskGroupV2)
        .scalar_subquery()
    )


# A group with the email of its owner and whether it is in use.
_SHOWN: Select[Any] = select(
    TaskGroupV2, col(UserOAuth.email).label("user_email"), _in_use().label("in_use")
).join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
_SLIM = json_object(
    schemas.TaskGroupReadSlim,
    TaskGroupV2,
    user_email=UserOAuth.email,
    in_use=_in_use(),
    task_list=_tasks(schemas.TaskReadSlim),
)


@dataclass(frozen=True, slots=True)
class TaskGroupFilters:
    """Which task groups are asked for, of all that there are."""

    task_group_id: Annotated[int | None, lists.equals(TaskGroupV2.id)] = None
    user_id: Annotated[int | None, lists.equals(TaskGroupV2.user_id)] = None
    user_group_id: Annotated[int | None, lists.equals(TaskGroupV2.user_group_id)] = None
    private: Annotated[bool | None, lists.equals(IS_PRIVATE)] = None
    active: Annotated[bool | None, lists.equals(TaskGroupV2.active)] = None
    pkg_name: Annotated[str | None, lists.contains(TaskGroupV2.pkg_name)] = None
    origin: Annotated[schemas.Origin | None, lists.equals(TaskGroupV2.origin)] = None
    timestamp_last_used_min: Annotated[AwareDatetime | None, lists.at_least(_LAST_USED)] = None
    timestamp_last_used_max: Annotated[AwareDatetime | None, lists.at_most(_LAST_USED)] = None
    resource_id: Annotated[int | None, lists.equals(TaskGroupV2.resource_id)] = None
    in_use: Annotated[bool | None, lists.equals(_in_use())] = None

    def __post_init__(self) -> None:
        if self.private and self.user_group_id is not None:
            raise RefusedError("Private task groups have no user_group_id: ask for one of them.")

    def query(self) -> Select[Any]:
        """The groups as a `TaskGroupReadSuperuser` has them."""
        shown = _SHOWN.add_columns(_tasks(schemas.TaskRead).label("task_list"))
        return shown.where(*lists.asked_for(self)).order_by(col(TaskGroupV2.id))


_VERSION = (col(TaskGroupV2.pkg_name), col(TaskGroupV2.version))
_ORDER = (func.lower(TaskGroupV2.pkg_name), col(TaskGroupV2.id).desc())
_PREFERRED = (
    select(TaskGroupV2.id)
    .outerjoin(LinkUserGroup, membership_of(READER))
    .where(
        visible_to(READER),
        if_asked("only_active", col(TaskGroupV2.active)),
        if_asked("only_owner", TaskGroupV2.user_id == READER.id),
    )
    .distinct(*_VERSION)
    .order_by(*_VERSION, *preferred_by(READER))
)
# Of several task groups with the same version there is one, that which the user prefers.
VISIBLE = (
    select(json_text(json_array(func.json_build_array(*_VERSION, json_text(_SLIM)), *_ORDER)))
    .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
    .where(col(TaskGroupV2.id).in_(_PREFERRED))
    .scalar_subquery()
)


def by_package(visible: str) -> str:
    """The JSON of `TaskGroupReadSlim`s by package name, each with its newest version first."""
    packages: dict[str, list[tuple[str, str]]] = {}
    for name, number, document in orjson.loads(visible):
        packages.setdefault(name, []).append((str(number), document))
    documents = []
    for name, groups in packages.items():
        newest_first = sorted(groups, key=lambda group: comparable(group[0]), reverse=True)
        listed = ",".join(document for _, document in newest_first)
        documents.append(f"[{json.dumps(name)},[{listed}]]")
    return f"[{','.join(documents)}]"


async def describe(session: AsyncSession, group: TaskGroupV2) -> schemas.TaskGroupReadSuperuser:
    """A task group as clients see it."""
    found = await session.execute(_SHOWN.where(col(TaskGroupV2.id) == group.id))
    _, user_email, in_use = found.one()
    added = {"user_email": user_email, "in_use": in_use}
    return schemas.TaskGroupReadSuperuser.model_validate(
        {**group.model_dump(), "task_list": group.task_list, **added}
    )
