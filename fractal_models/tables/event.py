"""Events about jobs, to be sent to Prefect. Fractal does not have this table."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import json_list, json_object, timestamp


class EventOutbox(SQLModel, table=True):
    """An event that Prefect has not confirmed yet, written together with the fact that it reports.

    `occurred` is the time of the fact, `sent` that of the last attempt to send it. `event`,
    `resource`, `related` and `payload` are in Prefect's format; Prefect recognises the event by
    `id`.
    """

    __tablename__ = "eventoutbox"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    occurred: datetime = timestamp()
    sent: datetime | None = timestamp(optional=True)
    event: str
    resource: dict[str, str] = json_object()
    related: list[dict[str, str]] = json_list()
    payload: dict[str, Any] = json_object()
