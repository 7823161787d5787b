"""Column types that several tables share."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Column, DateTime, Integer, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field


def now() -> datetime:
    """The current time, in UTC and time-zone aware."""
    return datetime.now(UTC)


def timestamp(*, optional: bool = False) -> Any:
    """A timestamp with time zone: set at creation or, if `optional`, null until set later."""
    column: Column[datetime] = Column(DateTime(timezone=True), nullable=optional)
    if optional:
        return Field(default=None, sa_column=column)
    return Field(default_factory=now, sa_column=column)


def json_object() -> Any:
    """A JSONB object that is never null; its default is `{}`."""
    return Field(
        default_factory=dict,
        sa_column=Column(JSONB(none_as_null=True), server_default="{}", nullable=False),
    )


def json_list() -> Any:
    """A JSONB array that is never null; its default is `[]`."""
    return Field(
        default_factory=list,
        sa_column=Column(JSONB(none_as_null=True), server_default="[]", nullable=False),
    )


def optional_json() -> Any:
    """A JSONB object or SQL NULL (never the JSON null)."""
    return Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))


def ordered_json() -> Any:
    """A JSON object that keeps the order of its keys, or SQL NULL (never the JSON null)."""
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


def flag(default: bool = False) -> Any:
    """A boolean that is never null."""
    return Field(
        default=default,
        sa_column=Column(
            Boolean, server_default=text("true") if default else false(), nullable=False
        ),
    )


def number() -> Any:
    """A number that begins at 0."""
    return Field(default=0, sa_column=Column(Integer, server_default="0", nullable=False))
