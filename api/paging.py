"""Lists by pages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import Select, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.schemas.base import Item, Page


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a list is asked for, from 1; without a size, all of the list is one page."""

    page: int = 1
    page_size: int | None = None

    @property
    def offset(self) -> int:
        """How many items come before the page."""
        return (self.page - 1) * (self.page_size or 0)


async def _paging(
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
) -> Paging:
    if page_size is None and page > 1:
        raise RefusedError(f"Page {page} needs a page_size.")
    return Paging(page, page_size)


PagingDep = Annotated[Paging, Depends(_paging)]


async def page_of(
    session: AsyncSession, query: Select[Any], paging: Paging, read: Callable[[Any], Item]
) -> Page[Item]:
    """The page of an ordered query's rows, each turned into an item by `read`."""
    counted = select(func.count()).select_from(query.order_by(None).subquery())
    total = (await session.execute(counted)).scalar_one()
    rows = await session.execute(query.offset(paging.offset).limit(paging.page_size))
    found = rows.scalars() if len(rows.keys()) == 1 else rows
    return Page(
        current_page=paging.page,
        page_size=total if paging.page_size is None else paging.page_size,
        total_count=total,
        items=[read(row) for row in found],
    )
