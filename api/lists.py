"""Lists: which rows are asked for, all of them or by pages, as JSON that PostgreSQL writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import signature
from operator import eq, ge, le
from types import SimpleNamespace
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    ScalarSelect,
    bindparam,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.json_rows import json_of, json_rows, json_text
from fractal_models.tables import UserOAuth

# --- who asks, and of which project: in a statement that is made before anybody does ------------

PROJECT_ID = bindparam("in_project", type_=Integer())
_READER_ID = bindparam("reader_id", type_=Integer())
_ME = aliased(UserOAuth)
_MY_PROFILE = select(col(_ME.profile_id)).where(col(_ME.id) == _READER_ID).correlate(None)
# To be used like a `UserOAuth`.
READER: Any = SimpleNamespace(id=_READER_ID, profile_id=_MY_PROFILE.scalar_subquery())


def if_asked(name: str, condition: Any) -> ColumnElement[bool]:
    """A condition that counts if the parameter of this name is true."""
    return or_(condition, not_(bindparam(name, type_=Boolean())))


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
    return Condition(lambda column, text: func.strpos(_lower(column), _lower(text)) > 0, column)


def same_word(column: Any) -> Condition:
    """The column is this word, in capitals or not."""
    return Condition(lambda column, word: _lower(column) == _lower(word), column)


_lower = func.lower


def asked_for(filters: Any, conditions: Mapping[str, Condition] | None = None) -> list[Any]:
    """The conditions of those fields that have a value.

    Of a dataclass, the annotation of a field says what its condition is.
    """
    return [
        condition.compare(condition.column, value)
        for name, condition in (conditions or _conditions_of(filters)).items()
        if (value := getattr(filters, name)) is not None
    ]


def _conditions_of(filters: Any) -> dict[str, Condition]:
    return {
        field.name: each
        for field in fields(filters)
        for each in get_args(field.type)
        if isinstance(each, Condition)
    }


def filters(kind: type) -> Any:
    """A dependency: the filters of this kind. (FastAPI itself would make them in a thread.)"""

    async def chosen(**given: Any) -> Any:
        return kind(**given)

    chosen.__dict__["__signature__"] = signature(kind)
    return Depends(chosen)


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

    @property
    def values(self) -> dict[str, int | None]:
        """What the statement of a `page_document` is told."""
        return {"page": self.page, "page_size": self.page_size, "offset": self.offset}


async def _paging(
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
) -> Paging:
    if page_size is None and page > 1:
        raise RefusedError(f"Page {page} needs a page_size.")
    return Paging(page, page_size)


PagingDep = Annotated[Paging, Depends(_paging)]


# --- documents ---------------------------------------------------------------------------------


class JsonDocument(Response):
    """JSON text; the endpoint's `response_model` says what is in it."""

    media_type = "application/json"


Document = ScalarSelect[str]


async def list_of(session: AsyncSession, schema: type[BaseModel], query: Any) -> JsonDocument:
    """The rows of an ordered query, whose columns have the names of the schema's fields."""
    found = await session.execute(select(list_document(schema, query)))
    return JsonDocument(found.scalar_one())


def list_document(schema: type[BaseModel], query: Any) -> Document:
    """The JSON of such a list."""
    return select(json_text(json_rows(schema, query))).scalar_subquery()


async def page_of(
    session: AsyncSession, schema: type[BaseModel], query: Any, paging: Paging, **others: Any
) -> JsonDocument:
    """A page of such a list; `others` are what it has beyond the fields of a `Page`."""
    found = await session.execute(select(page_document(schema, query, **others)), paging.values)
    return JsonDocument(found.scalar_one())


def page_document(schema: type[BaseModel], query: Any, **others: Any) -> Document:
    """The JSON of such a page, for which the statement is told the `values` of a `Paging`."""
    each = query.with_only_columns(literal_column("1"), maintain_column_froms=True)
    total = select(func.count().label("count")).select_from(each.order_by(None).subquery()).cte()
    page = json_of(
        current_page=_PAGE,
        page_size=func.coalesce(_PAGE_SIZE, total.c.count),
        total_count=total.c.count,
        items=json_rows(schema, query.offset(_OFFSET).limit(_PAGE_SIZE)),
        **others,
    )
    return select(json_text(page)).select_from(total).scalar_subquery()


_PAGE, _PAGE_SIZE, _OFFSET = (
    bindparam(name, type_=Integer()) for name in ("page", "page_size", "offset")
)


class Pages:
    """Pages of a list with filters: a document for each choice of these, made once."""

    def __init__(self, schema: type[BaseModel], query: Any, filters: type) -> None:
        self._schema = schema
        self._query = query
        self._conditions = _conditions_of(filters)
        self._made: dict[frozenset[str], Document] = {}

    def asked_for(self, filters: Any) -> Document:
        """The document, for which the statement is told the values of those that are not None."""
        given = frozenset(n for n in self._conditions if getattr(filters, n) is not None)
        if given not in self._made:
            conditions = {name: self._conditions[name] for name in sorted(given)}
            where = [
                each.compare(each.column, bindparam(name, type_=each.column.type))
                for name, each in conditions.items()
            ]
            self._made[given] = page_document(self._schema, self._query.where(*where))
        return self._made[given]
