"""Lists written as JSON by PostgreSQL, where they are long: no object is made of each row here."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Text, func, literal_column
from sqlalchemy.dialects.postgresql import aggregate_order_by


def json_object(schema: type[BaseModel], columns: Mapping[str, Any]) -> ColumnElement[Any]:
    """An object with the fields of a schema, each from the column of its name."""
    fields = [part for name in schema.model_fields for part in (name, columns[name])]
    return func.json_build_object(*fields)


def json_array(element: ColumnElement[Any], order: Any) -> ColumnElement[Any]:
    """Elements, one of each row, in an order."""
    listed = func.json_agg(aggregate_order_by(element, order))
    return func.coalesce(listed, literal_column("'[]'::json"))


def json_text(document: ColumnElement[Any]) -> ColumnElement[str]:
    """A document as it is answered with."""
    return document.cast(Text)
