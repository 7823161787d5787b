"""Rows as JSON that PostgreSQL writes, as the schemas have it: no object is made here of each."""

from functools import cache
from typing import Any, get_args

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import (
    ColumnElement,
    DateTime,
    ScalarSelect,
    Text,
    TextClause,
    column,
    func,
    inspect,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by


def json_rows(schema: type[BaseModel], query: Any) -> ScalarSelect[Any]:
    """An array of the rows of an ordered query, whose columns are named like the schema's fields.

    It writes rows as they are faster than objects that are built of each, field by field.
    """
    rows = select(_fields(schema)).select_from(query.subquery(_LISTED)).subquery(_ROW)
    listed = select(_array(func.json_agg(literal_column(_ROW)))).select_from(rows)
    return listed.scalar_subquery()


_LISTED, _ROW = "listed", "listed_row"


@cache
def _fields(schema: type[BaseModel]) -> TextClause:
    """A text that is made once, as SQLAlchemy takes milliseconds to go through as many columns."""
    columns = [
        column(name, DateTime() if _is_time(field.annotation) else None)
        for name, field in schema.model_fields.items()
    ]
    fields = table(_LISTED, *columns).c
    told = ", ".join(f'{_told(field)} AS "{field.name}"' for field in fields)
    return text(told.replace(":", r"\:"))


def _is_time(annotation: Any) -> bool:
    return annotation is AwareDatetime or any(map(_is_time, get_args(annotation)))


def json_object(schema: type[BaseModel], source: Any, **others: Any) -> ColumnElement[Any]:
    """An object with the fields of a schema: columns of a table, or others."""
    columns = {**inspect(source).selectable.c, **others}
    return json_of(**{name: columns[name] for name in schema.model_fields})


def json_of(**columns: Any) -> ColumnElement[Any]:
    """An object with these fields."""
    parts: list[Any] = []
    for name, value in columns.items():
        parts += [_constant(name), _told(value)]
    return func.json_build_object(*parts)


def _constant(value: str) -> ColumnElement[str]:
    """In the text of a statement: it would be one more parameter otherwise."""
    return literal_column(f"'{value}'")


_UTC, _NO_FRACTION, _NOTHING = _constant("UTC"), _constant(".000000"), _constant("")
_SPELLING = _constant('YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')


def _told(value: Any) -> Any:
    """Times are spelled as Python does, which keeps zeros at the end of a fraction."""
    if not isinstance(getattr(value, "type", None), DateTime):
        return value
    spelled = func.to_char(func.timezone(_UTC, value), _SPELLING)
    return func.replace(spelled, _NO_FRACTION, _NOTHING)


def json_array(element: Any, *order: Any) -> ColumnElement[Any]:
    """Elements, one of each row, in an order."""
    return _array(func.json_agg(aggregate_order_by(element, *order)))


def _array(listed: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(listed, literal_column("'[]'::json"))


def json_text(document: ColumnElement[Any]) -> ColumnElement[str]:
    """A document as it is answered with."""
    return document.cast(Text)
