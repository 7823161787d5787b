"""The image list of a dataset, for those who read the schema."""

from typing import Any

import pytest
import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.orm import undefer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

import fractal_models
from fractal_models import tables
from fractal_models.image_list import read_images, write_images
from fractal_models.image_search import ImageSearch
from fractal_models.tables import DatasetV2

IMAGES = [
    {"zarr_url": f"/{name}", "origin": origin, "attributes": {"n": number}, "types": {"t": True}}
    for name, origin, number in (("c", None, 10**25), ("a", "/c", 1.0), ("b", None, 3))
]


@pytest.fixture
async def dataset(session: AsyncSession, ids: dict[str, int]) -> DatasetV2:
    """A dataset beside another one, both with images, as it is read by default."""
    other = DatasetV2(name="other", project_id=ids["projectv2"], zarr_dir="/")
    dataset = DatasetV2(name="d", project_id=ids["projectv2"], zarr_dir="/")
    session.add_all([other, dataset])
    await session.flush()
    await write_images(session, other.id, IMAGES[1:])
    await write_images(session, dataset.id, IMAGES)
    session.expunge_all()
    return await session.get_one(DatasetV2, dataset.id)


async def test_images_are_read_when_they_are_asked_for(
    session: AsyncSession, dataset: DatasetV2
) -> None:
    with pytest.raises(sqlalchemy.exc.MissingGreenlet):
        dataset.images  # noqa: B018
    await session.refresh(dataset, ["images"])

    assert dataset.images == IMAGES
    assert repr(dataset.images[0]["attributes"]["n"]) == repr(10**25)
    assert dataset.image_zarr_urls == ["/c", "/a", "/b"]
    assert await read_images(session, ImageSearch(dataset.id)) == IMAGES


async def test_images_are_read_with_many_datasets(
    session: AsyncSession, dataset: DatasetV2, ids: dict[str, int]
) -> None:
    session.expunge_all()
    found = await session.exec(
        select(DatasetV2).options(undefer(DatasetV2.images)).order_by(col(DatasetV2.id))
    )
    lists = {each.name: each.image_zarr_urls for each in found if each.name in ("d", "other")}
    empty = await session.get_one(DatasetV2, ids["datasetv2"], options=[undefer(DatasetV2.images)])

    assert lists == {"other": ["/a", "/b"], "d": ["/c", "/a", "/b"]}
    await session.execute(text("DELETE FROM datasetimage WHERE dataset_id = :id"), {"id": empty.id})
    await session.refresh(empty, ["images"])
    assert empty.images == []


async def test_images_are_only_read(session: AsyncSession, dataset: DatasetV2) -> None:
    with pytest.raises(AttributeError, match="only read"):
        dataset.images = []
    assert await read_images(session, ImageSearch(dataset.id)) == IMAGES


async def test_images_are_read_by_sql(session: AsyncSession, dataset: DatasetV2) -> None:
    found = await session.execute(
        text("SELECT images FROM datasetv2_images WHERE dataset_id = :id"), {"id": dataset.id}
    )
    assert found.scalar_one() == IMAGES


@pytest.mark.parametrize("name", tables.__all__)
def test_tables_are_importable_from_the_package_itself(name: str) -> None:
    assert getattr(fractal_models, name) is getattr(tables, name)


def test_what_is_no_table_is_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _: Any = fractal_models.Nothing
