"""Which rows a list is asked for."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import func
from sqlmodel import col

Comparison = Callable[[Any, Any], Any]


def asked_for(*comparisons: tuple[Comparison, Any, Any]) -> list[Any]:
    """The conditions of those comparisons, of a column with a value, whose value is given."""
    return [compare(column, value) for compare, column, value in comparisons if value is not None]


def contains(column: Any, text: str) -> Any:
    """Whether a column has some text in it, in capitals or not."""
    return col(column).icontains(text, autoescape=True)


def same_word(column: Any, word: str) -> Any:
    """Whether a column is a word, in capitals or not."""
    return func.lower(column) == word.lower()
