"""Lists: which rows are asked for, all of them or by pages, as JSON that PostgreSQL writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from operator import eq, ge, le
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Response
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Text,
    column,
    func,
    inspect,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError

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


# --- JSON of PostgreSQL ------------------------------------------------------------------------
# Lists are written by PostgreSQL: no object is made here of each row.


class JsonDocument(Response):
    """JSON text; the endpoint's `response_model` says what is in it."""

    media_type = "application/json"


async def list_of(session: AsyncSession, schema: type[BaseModel], query: Any) -> JsonDocument:
    """The rows of an ordered query, whose columns have the names of the schema's fields."""
    listed = select(json_text(_items(schema))).select_from(query.subquery(_LISTED))
    return JsonDocument((await session.execute(listed)).scalar_one())


async def page_of(
    session: AsyncSession, schema: type[BaseModel], query: Any, paging: Paging, **others: Any
) -> JsonDocument:
    """A page of such a list; `others` are what it has beyond the fields of a `Page`."""
    each = query.with_only_columns(literal_column("1"), maintain_column_froms=True)
    total = select(func.count().label("count")).select_from(each.order_by(None).subquery()).cte()
    rows = query.offset(paging.offset).limit(paging.page_size).subquery(_LISTED)
    page = _object(
        current_page=paging.page,
        page_size=total.c.count if paging.page_size is None else paging.page_size,
        total_count=total.c.count,
        items=select(_items(schema)).select_from(rows).scalar_subquery(),
        **others,
    )
    found = await session.execute(select(json_text(page)).select_from(total))
    return JsonDocument(found.scalar_one())


_LISTED = "listed"


@cache
def _items(schema: type[BaseModel]) -> ColumnElement[Any]:
    """The rows of a subquery `listed` as an array of objects with the fields of a schema.

    It is a text that is made once, as SQLAlchemy takes milliseconds to go through as many columns.
    """
    columns = [
        column(name, DateTime() if _is_time(field.annotation) else None)
        for name, field in schema.model_fields.items()
    ]
    item = _object(**table(_LISTED, *columns).c)
    return literal_column(str(_array(func.json_agg(item))))


def _is_time(annotation: Any) -> bool:
    return annotation is AwareDatetime or any(map(_is_time, get_args(annotation)))


def json_object(schema: type[BaseModel], source: Any, **others: Any) -> ColumnElement[Any]:
    """An object with the fields of a schema: columns of a table, or others."""
    columns = {**inspect(source).selectable.c, **others}
    return _object(**{name: columns[name] for name in schema.model_fields})


def _object(**columns: Any) -> ColumnElement[Any]:
    parts: list[Any] = []
    for name, value in columns.items():
        parts += [_constant(name), _told(value)]
    return func.json_build_object(*parts)


def _constant(text: str) -> ColumnElement[str]:
    """In the text of a statement: it would be one more parameter otherwise."""
    return literal_column(f"'{text}'")


_UTC, _NO_FRACTION, _NOTHING = _constant("UTC"), _constant(".000000"), _constant("")
_SPELLING = _constant('YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')


def _told(value: Any) -> Any:
    """Times are spelled as Python does, which keeps zeros at the end of a fraction."""
    if not isinstance(getattr(value, "type", None), DateTime):
        return value
    spelled = func.to_char(func.timezone(_UTC, value), _SPELLING)
    return func.replace(spelled, _NO_FRACTION, _NOTHING)


def json_array(element: Any, order: Any) -> ColumnElement[Any]:
    """Elements, one of each row, in an order."""
    return _array(func.json_agg(aggregate_order_by(element, order)))


def _array(listed: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(listed, literal_column("'[]'::json"))


def json_text(document: ColumnElement[Any]) -> ColumnElement[str]:
    """A document as it is answered with."""
    return document.cast(Text)
