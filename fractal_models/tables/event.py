"""What happened to jobs, for Prefect to hear of. Beyond Fractal."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import json_list, json_object, timestamp


class EventOutbox(SQLModel, table=True):
    """An event that Prefect is not known to have yet; written with the fact that it tells of.

    `occurred` is the time of the fact, `sent` that of the latest try. `event`, `resource`,
    `related` and `payload` are as Prefect wants them, and Prefect knows the event by its `id`.
    """

    __tablename__ = "eventoutbox"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    occurred: datetime = timestamp()
    sent: datetime | None = timestamp(optional=True)
    event: str
    resource: dict[str, str] = json_object()
    related: list[dict[str, str]] = json_list()
    payload: dict[str, Any] = json_object()
