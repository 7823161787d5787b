"""Datasets: lists of OME-Zarr images."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, json_list, timestamp
from fractal_models.tables.project import ProjectV2


class DatasetV2(SQLModel, table=True):
    """A list of images below one folder, and what was done to them.

    `images` holds `{"zarr_url", "origin", "attributes", "types"}` per image. `history` holds one
    entry per ended HistoryRun, with its workflow task, status and counts.
    """

    __tablename__ = "datasetv2"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    project_id: int = Field(foreign_key="projectv2.id", index=True, ondelete="CASCADE")
    history: list[dict[str, Any]] = json_list()
    is_starred: bool = flag()
    timestamp_created: datetime = timestamp()
    zarr_dir: str
    images: list[dict[str, Any]] = json_list()

    project: ProjectV2 = Relationship(sa_relationship_kwargs={"lazy": "selectin"})

    @property
    def image_zarr_urls(self) -> list[str]:
        """The Zarr URLs of all images, in the order of the list."""
        return [image["zarr_url"] for image in self.images]
