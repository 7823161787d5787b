"""Which images are found, and read by name."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.image_kinds import attribute_values, image_kinds
from fractal_models.image_list import (
    count_images,
    finds_any,
    read_images,
    read_named_images,
    write_images,
)
from fractal_models.image_search import ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE, Image, passes_types
from fractal_models.tables import DatasetV2
from tests.api.history_rows import write_done_units
from tests.fractal_models.conftest import Ids


def image(url: str, attributes: dict[str, Any] | None = None, **types: bool) -> Image:
    return {"zarr_url": url, "origin": None, "attributes": attributes or {}, "types": types}


IMAGES = [
    image("/a", {"well": "A01", "n": 1}, is_3D=True),
    image("/b", {"well": "A02", "n": True}, is_3D=False),
    image("/c", {"well": "A01", "n": 1.0, "plate": "p"}),
    image("/d", {"n": "1"}, is_3D=True, corrected=True),
]


@pytest.fixture
async def dataset_id(session: AsyncSession, ids: Ids) -> int:
    """A dataset with IMAGES, beside another one; a workflow task is done with the first."""
    dataset = DatasetV2(name="with images", project_id=ids["projectv2"], zarr_dir="/")
    session.add(dataset)
    await session.flush()
    await write_images(session, ids["datasetv2"], IMAGES)
    await write_images(session, dataset.id, IMAGES)
    await write_done_units(session, saved_id(dataset), ids["workflowtaskv2"], ids["historyrun"])
    await session.execute(
        text("DELETE FROM historyimagecache WHERE dataset_id = :id AND zarr_url <> '/a'"),
        {"id": dataset.id},
    )
    return saved_id(dataset)


@pytest.mark.parametrize(
    ("types", "attributes", "urls"),
    [
        ({}, {}, "/a /b /c /d"),
        ({"is_3D": True}, {}, "/a /d"),
        ({"is_3D": False}, {}, "/b /c"),
        ({"unheard_of": False}, {}, "/a /b /c /d"),
        ({"unheard_of": True}, {}, ""),
        ({"is_3D": True, "corrected": False}, {}, "/a"),
        ({}, {"well": ["A01"]}, "/a /c"),
        ({}, {"well": ["A01", "A02"]}, "/a /b /c"),
        ({}, {"well": ["a01"]}, ""),
        ({}, {"unheard_of": ["x"]}, ""),
        ({}, {"n": [1]}, "/a /c"),
        ({}, {"n": [1.0]}, "/a /c"),
        ({}, {"n": [True]}, "/b"),
        ({}, {"n": [False]}, ""),
        ({}, {"n": ["1"]}, "/d"),
        ({}, {"well": ["A01"], "plate": ["p", "q"]}, "/c"),
        ({"is_3D": True}, {"well": ["A01"]}, "/a"),
    ],
)
async def test_the_images_are_found_that_pass_all_filters(
    types: dict[str, bool],
    attributes: dict[str, list[Any]],
    urls: str,
    dataset_id: int,
    session: AsyncSession,
) -> None:
    search = ImageSearch(dataset_id)
    search.filter_by(types, attributes)

    assert [image["zarr_url"] for image in await read_images(session, search)] == urls.split()
    assert await count_images(session, search) == len(urls.split())
    assert await finds_any(session, search) == bool(urls)
    kinds = await image_kinds(session, dataset_id, attributes, [])
    passing = [kind for kind in kinds if kind.passes and passes_types(kind.types, types)]
    assert sum(kind.number for kind in passing) == len(urls.split())
    by_one_after_the_other = ImageSearch(dataset_id)
    for name, value in types.items():
        by_one_after_the_other.filter_by({name: value}, {})
    for name, values in attributes.items():
        by_one_after_the_other.filter_by({}, {name: values})
    assert await count_images(session, by_one_after_the_other) == len(urls.split())


@pytest.mark.parametrize(
    ("types", "statuses", "urls"),
    [
        ({}, ["done"], "/a"),
        ({}, ["unset", "failed"], "/b /c /d"),
        ({"is_3D": True}, ["unset"], "/d"),
        ({}, [1], ""),
    ],
)
async def test_images_are_found_by_the_status_of_a_workflow_task(
    types: dict[str, bool],
    statuses: list[Any],
    urls: str,
    dataset_id: int,
    ids: Ids,
    session: AsyncSession,
) -> None:
    search = ImageSearch(dataset_id, ids["workflowtaskv2"])
    search.filter_by(types, {STATUS_ATTRIBUTE: statuses})

    assert [image["zarr_url"] for image in await read_images(session, search)] == urls.split()
    assert await count_images(session, search) == len(urls.split())


async def test_kinds_of_images_have_their_statuses(
    dataset_id: int, ids: Ids, session: AsyncSession
) -> None:
    never_run = 0
    kinds = await image_kinds(session, dataset_id, {"n": [1]}, [ids["workflowtaskv2"], never_run])

    told = {kind.examples: (kind.number, kind.passes, kind.statuses) for kind in kinds}
    assert told == {
        ("/a",): (1, True, {ids["workflowtaskv2"]: "done"}),
        ("/b",): (1, False, {}),
        ("/c",): (1, True, {}),
        ("/d",): (1, False, {}),
    }
    values = await attribute_values(session, dataset_id)
    assert {key: len(each) for key, each in values.items()} == {"well": 2, "n": 3, "plate": 1}


async def test_an_image_is_found_by_its_url(dataset_id: int, session: AsyncSession) -> None:
    for types, count in (({}, 1), ({"is_3D": True}, 0)):
        search = ImageSearch(dataset_id)
        search.only("/c")
        search.filter_by(types, {})
        assert await count_images(session, search) == count


async def test_named_images_are_read_in_the_order_of_the_list(
    dataset_id: int, session: AsyncSession
) -> None:
    named = await read_named_images(session, dataset_id, {"/c", "/unknown", "/a"})

    assert named == [IMAGES[0], IMAGES[2]]
    assert await read_named_images(session, dataset_id, set()) == []
