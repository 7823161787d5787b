"""Lists that are narrowed by what a request asks for."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select

_Filters = Iterable[tuple[Any, Any]]


def narrowed(
    query: Select[Any],
    *,
    equal: _Filters = (),
    contains: _Filters = (),
    since: _Filters = (),
    until: _Filters = (),
) -> Select[Any]:
    """A query with filters of columns; those that are None are not asked for.

    `contains` is for texts, whatever their case; `since` and `until` are inclusive.
    """
    conditions = [
        *(column == value for column, value in equal if value is not None),
        *(column.icontains(text, autoescape=True) for column, text in contains if text is not None),
        *(column >= value for column, value in since if value is not None),
        *(column <= value for column, value in until if value is not None),
    ]
    return query.where(*conditions)
