"""Datasets: lists of OME-Zarr images."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Identity,
    Index,
    ScalarSelect,
    String,
    Table,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.orm import column_property
from sqlmodel import Field, Relationship, SQLModel, col

from fractal_models.tables.columns import flag, json_list, json_object, timestamp
from fractal_models.tables.project import ProjectV2


class DatasetV2(SQLModel, table=True):
    """A list of images below one folder (see `DatasetImage`), and the history of the images.

    `history` has one entry per HistoryRun that ended, with its workflow task, status and counts.
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

    # Read from `datasetimage` only on request (`undefer`, `session.refresh(..., ["images"])`), and
    # never written: see `fractal_models.image_list`.
    images: ClassVar[Any]

    @property
    def image_zarr_urls(self) -> list[str]:
        """The URLs of its images, in the order of the list; `images` must have been read."""
        return [image["zarr_url"] for image in self.images]


class DatasetImage(SQLModel, table=True):
    """An image of a dataset. The order of the list is that of the ids.

    Fractal itself keeps the list in one JSONB column of the dataset, which must be read and written
    as a whole: at 20,000 images that takes as long as everything else in a request.
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


def _images_of_dataset() -> ScalarSelect[Any]:
    """An SQL expression: the image list of a query's dataset, in Fractal's format."""
    fields = ("zarr_url", "origin", "attributes", "types")
    image = func.json_build_object(*(x for name in fields for x in (name, _IMAGES.c[name])))
    listed = func.json_agg(aggregate_order_by(image, _IMAGES.c.id))
    return (
        select(func.coalesce(listed, literal_column("'[]'::json"), type_=JSON))
        .where(_IMAGES.c.dataset_id == col(DatasetV2.id))
        .correlate_except(_IMAGES)
        .scalar_subquery()
    )


_IMAGES: Table = DatasetImage.metadata.tables["datasetimage"]
DatasetV2.images = column_property(_images_of_dataset(), deferred=True)


@event.listens_for(DatasetV2.images, "set")
def _refuse_images(*_: Any) -> None:
    raise AttributeError("DatasetV2.images is only read: see fractal_models.image_list.")


class ImageFacet(SQLModel, table=True):
    """How many images of a dataset have a value of an attribute or type; and how many there are.

    A trigger on `datasetimage` keeps the counts up to date. So the list need not be read to say by
    what it can be filtered, and how many images pass a filter. `kind` is `attribute`, `type` or
    `image` (without key and value). `digest` represents kind, key and value, which have any length.
    """

    __tablename__ = "imagefacet"

    dataset_id: int = Field(primary_key=True, foreign_key="datasetv2.id", ondelete="CASCADE")
    digest: str = Field(primary_key=True)
    kind: str = Field(sa_type=String)
    key: str
    value: Any = Field(default=None, sa_column=Column(JSONB, nullable=False))
    count: int


class FacetBlock(SQLModel, table=True):
    """How many images of a facet are in a block of the list: those whose ids are of one 1024.

    The same trigger keeps the counts. So a page is found wherever in the list its images are, and
    only the blocks in which they are must be read.
    """

    __tablename__ = "facetblock"

    dataset_id: int = Field(primary_key=True, foreign_key="datasetv2.id", ondelete="CASCADE")
    digest: str = Field(primary_key=True)
    block: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    count: int
