"""Lists: which rows are asked for, by pages, or all of them as JSON that PostgreSQL writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import eq, ge, le
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import ColumnElement, DateTime, Select, Text, func, literal_column, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.schemas.base import Item, Page

# --- filters -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """How a column is compared with a value that is asked for."""

    compare: Callable[[Any, Any], Any]
    column: Any


def equals(column: Any) -> Condition:
    """The column has this value."""
    return Condition(eq, column)


def at_least(column: Any) -> Condition:
    """The column has this value, or a greater one."""
    return Condition(ge, column)


def at_most(column: Any) -> Condition:
    """The column has this value, or a smaller one."""
    return Condition(le, column)


def contains(column: Any) -> Condition:
    """The column has this text in it, in capitals or not."""
    return Condition(lambda column, text: col(column).icontains(text, autoescape=True), column)


def same_word(column: Any) -> Condition:
    """The column is this word, in capitals or not."""
    return Condition(lambda column, word: func.lower(column) == word.lower(), column)


def asked_for(filters: Any, conditions: Mapping[str, Condition] | None = None) -> list[Any]:
    """The conditions of those fields that have a value.

    Of a dataclass, the annotation of a field says what its condition is.
    """
    conditions = conditions or {
        field.name: each
        for field in fields(filters)
        for each in get_args(field.type)
        if isinstance(each, Condition)
    }
    return [
        condition.compare(condition.column, value)
        for name, condition in conditions.items()
        if (value := getattr(filters, name)) is not None
    ]


# --- pages -------------------------------------------------------------------------------------


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


# --- JSON of PostgreSQL ------------------------------------------------------------------------
# For lists that are long: no object is made here of each row.


class JsonDocument(Response):
    """JSON text; the endpoint's `response_model` says what is in it."""

    media_type = "application/json"


def json_object(schema: type[BaseModel], columns: Mapping[str, Any]) -> ColumnElement[Any]:
    """An object with the fields of a schema, each from the column of its name."""
    parts = [part for name in schema.model_fields for part in (name, _told(columns[name]))]
    return func.json_build_object(*parts)


def _told(column: Any) -> Any:
    """Times are spelled as Python does, which keeps zeros at the end of a fraction."""
    if not isinstance(column.type, DateTime):
        return column
    spelled = func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
    return func.replace(spelled, ".000000", "")


def json_array(element: ColumnElement[Any], order: Any) -> ColumnElement[Any]:
    """Elements, one of each row, in an order."""
    listed = func.json_agg(aggregate_order_by(element, order))
    return func.coalesce(listed, literal_column("'[]'::json"))


def json_text(document: ColumnElement[Any]) -> ColumnElement[str]:
    """A document as it is answered with."""
    return document.cast(Text)
