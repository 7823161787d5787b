"""Datasets: lists of OME-Zarr images."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Index, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, json_list, json_object, timestamp
from fractal_models.tables.project import ProjectV2


class DatasetV2(SQLModel, table=True):
    """A list of images below one folder (see `DatasetImage`), and what was done to them.

    `history` holds one entry per ended HistoryRun, with its workflow task, status and counts.
    """

    __tablename__ = "datasetv2"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    project_id: int = Field(foreign_key="projectv2.id", index=True, ondelete="CASCADE")
    history: list[dict[str, Any]] = json_list()
    is_starred: bool = flag()
    timestamp_created: datetime = timestamp()
    zarr_dir: str

    project: ProjectV2 = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class DatasetImage(SQLModel, table=True):
    """An image of a dataset; the list is in the order of the ids.

    Fractal keeps the list in one JSONB column of the dataset, which has to be read and written
    whole: at 20,000 images that takes as long as all else in a request.
    """

    __tablename__ = "datasetimage"
    __table_args__ = (Index("ix_datasetimage_zarr_url", "dataset_id", "zarr_url", unique=True),)

    dataset_id: int = Field(primary_key=True, foreign_key="datasetv2.id", ondelete="CASCADE")
    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger, Identity(always=True), primary_key=True, nullable=False),
    )
    zarr_url: str
    origin: str | None = None
    attributes: dict[str, Any] = json_object()
    types: dict[str, bool] = json_object()


class ImageFacet(SQLModel, table=True):
    """How many images of a dataset have an attribute or a type of some value, and how many it has.

    A trigger on `datasetimage` keeps the counts, so that to tell what a list can be filtered by,
    and how many pass a filter, does not take reading it. `kind` is `attribute`, `type` or `image`
    (without key or value); `digest` stands for the three, as keys and values are of any length.
    """

    __tablename__ = "imagefacet"

    dataset_id: int = Field(primary_key=True, foreign_key="datasetv2.id", ondelete="CASCADE")
    digest: str = Field(primary_key=True)
    kind: str = Field(sa_type=String)
    key: str
    value: Any = Field(default=None, sa_column=Column(JSONB, nullable=False))
    count: int
