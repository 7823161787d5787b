"""Rows by their ids, whoever they belong to: for administrators, who see all."""

from typing import TypeVar

from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError
from fractal_models.tables import (
    JobV2,
    Profile,
    ProjectV2,
    Resource,
    TaskGroupV2,
    UserGroup,
    UserOAuth,
)

Row = TypeVar("Row", bound=SQLModel)

_NAMES: dict[type[SQLModel], str] = {
    JobV2: "Job",
    Profile: "Profile",
    ProjectV2: "Project",
    Resource: "Resource",
    TaskGroupV2: "Task group",
    UserGroup: "Group",
    UserOAuth: "User",
}


async def find(session: AsyncSession, table: type[Row], row_id: int) -> Row:
    """A row of a table.

    Raises:
        NotFoundError: it has none with this id.
    """
    row = await session.get(table, row_id)
    if row is None:
        raise NotFoundError(_NAMES[table], row_id)
    return row
