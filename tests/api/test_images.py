"""Image lists: queries with filters, and edits."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import Response
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from api.lists import Paging
from api.queries.images import page_of_images, search_for
from fractal_models.database import saved_id
from fractal_models.image_list import read_images, remove_images, write_images
from fractal_models.image_search import ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE, Image
from fractal_models.schemas.dataset import ImagePage, ImageQuery
from fractal_models.tables import DatasetV2
from tests.passing import passing

IMAGES = [
    {
        "zarr_url": f"/plate/{well}/{acquisition}",
        "origin": None,
        "attributes": {"well": well, "acquisition": acquisition},
        "types": {"is_3D": acquisition == 0},
    }
    for well in ("A1", "A2", "B1")
    for acquisition in (0, 1)
]
IMAGES[-1]["types"] = {}


@pytest.fixture(scope="module")
async def owner(new_person: Any) -> Any:
    """A user, who has images in /plate."""
    return await new_person(project_dirs=["/plate"])


@pytest.fixture
async def plate(owner: Any, project: dict[str, Any]) -> str:
    """The URL of the images of a dataset with IMAGES."""
    url = f"/api/v2/project/{project['id']}/dataset/"
    request = {"name": "plate", "zarr_dir": "/plate", "images": IMAGES}
    made = await owner.ok("POST", f"{url}import/", json=request)
    return f"{url}{made['id']}/images/"


def urls(page: dict[str, Any]) -> list[str]:
    return [image["zarr_url"].removeprefix("/plate/") for image in page["items"]]


async def test_without_a_query_all_images_are_one_page(owner: Any, plate: str) -> None:
    page = await owner.ok("POST", f"{plate}query/")

    assert page == {
        "current_page": 1,
        "page_size": 6,
        "total_count": 6,
        "items": IMAGES,
        "attributes": {"acquisition": [0, 1], "well": ["A1", "A2", "B1"]},
        "types": ["is_3D"],
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type_filters": {"is_3D": True}}, ["A1/0", "A2/0", "B1/0"]),
        ({"type_filters": {"is_3D": False}}, ["A1/1", "A2/1", "B1/1"]),
        ({"type_filters": {"is_new": False}}, [url[7:] for url in (i["zarr_url"] for i in IMAGES)]),
        ({"attribute_filters": {"well": ["A1", "B1"]}}, ["A1/0", "A1/1", "B1/0", "B1/1"]),
        ({"attribute_filters": {"acquisition": [1.0]}}, ["A1/1", "A2/1", "B1/1"]),
        ({"attribute_filters": {"acquisition": [True]}}, []),
        ({"attribute_filters": {"unknown": ["A1"]}}, []),
        (
            {"attribute_filters": {"well": ["A2"]}, "type_filters": {"is_3D": True}},
            ["A2/0"],
        ),
        ({"zarr_url": "/plate/A2/1"}, ["A2/1"]),
        ({"zarr_url": "/plate/A2"}, []),
    ],
)
async def test_a_query_gives_the_images_that_pass(
    query: dict[str, Any], expected: list[str], owner: Any, plate: str
) -> None:
    page = await owner.ok("POST", f"{plate}query/", json=query)

    assert urls(page) == expected
    assert page["total_count"] == len(expected)
    assert page["attributes"]["well"] == ["A1", "A2", "B1"]


async def test_pages_go_on_where_the_one_before_ended(owner: Any, plate: str) -> None:
    query = {"type_filters": {"is_3D": True}}

    pages = [
        await owner.ok("POST", f"{plate}query/?page={page}&page_size=2", json=query)
        for page in (1, 2, 3)
    ]

    last = ["B1/0"]  # and after it there is none
    assert [urls(page) for page in pages] == [["A1/0", "A2/0"], last, last]
    assert [page["current_page"] for page in pages] == [1, 2, 2]
    assert {(page["page_size"], page["total_count"]) for page in pages} == {(2, 3)}


@pytest.mark.parametrize(
    ("parameters", "query", "told"),
    [
        ("?page=2", {}, "page_size"),
        ("?page=0&page_size=5", {}, "greater than or equal to 1"),
        ("", {"attribute_filters": {"well": []}}, "empty"),
        ("", {"attribute_filters": {"well": ["A1", 1]}}, "mixes"),
        ("", {"attribute_filters": {"well": "A1"}}, "list"),
        ("", {"type_filters": {"is_3D": "3D"}}, "boolean"),
    ],
)
async def test_a_wrong_query_is_refused(
    parameters: str, query: dict[str, Any], told: str, owner: Any, plate: str
) -> None:
    answer = await owner.post(f"{plate}query/{parameters}", json=query)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


async def test_images_are_added_changed_and_taken_off(owner: Any, plate: str) -> None:
    image = {
        "zarr_url": "/plate/by/hand",
        "attributes": {"well": "C1", "old": 1},
        "types": {"a": True},
    }
    await owner.ok("POST", plate, json=image)

    changes = {"zarr_url": "/plate/by/hand", "attributes": {"well": "C2"}}
    changed = await owner.ok("PATCH", plate, json=changes)
    page = await owner.ok("POST", f"{plate}query/", json={"zarr_url": "/plate/by/hand"})
    deleted = await owner.delete(plate, params={"zarr_url": "/plate/A1/0"})

    assert changed == {
        "zarr_url": "/plate/by/hand",
        "origin": None,
        "attributes": {"well": "C2"},
        "types": {"a": True},
    }
    assert page["items"] == [changed]
    assert deleted.status_code == 204
    rest = (await owner.ok("POST", f"{plate}query/"))["items"]
    assert rest == [*IMAGES[1:], changed]


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("POST", {"json": {"zarr_url": "/plate/A1/0/"}}, 422),
        ("POST", {"json": {"zarr_url": "relative"}}, 422),
        ("POST", {"json": {"zarr_url": "/elsewhere/x"}}, 422),
        ("POST", {"json": {"zarr_url": "/plates/x"}}, 422),
        ("POST", {"json": {"zarr_url": "s3://plate/x"}}, 422),
        ("POST", {"json": {"zarr_url": "https://plate/x"}}, 422),
        ("PATCH", {"json": {"zarr_url": "/plate/A1/0", "attributes": None}}, 422),
        ("PATCH", {"json": {"zarr_url": "/unknown", "types": {}}}, 404),
        ("DELETE", {"params": {"zarr_url": "/unknown"}}, 404),
    ],
)
async def test_a_wrong_edit_changes_nothing(
    method: str, request_: dict[str, Any], status: int, owner: Any, plate: str
) -> None:
    answer = await owner.request(method, plate, **request_)

    assert answer.status_code == status
    assert (await owner.ok("POST", f"{plate}query/"))["items"] == IMAGES


async def test_the_folder_of_the_dataset_is_no_image(owner: Any, plate: str) -> None:
    answer = await owner.post(plate, json={"zarr_url": "/plate"})

    assert answer.status_code == 422


async def test_images_stay_as_they_are_while_a_job_runs(
    owner: Any,
    dataset: dict[str, Any],
    runnable: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
) -> None:
    url = f"/api/v2/project/{dataset['project_id']}/dataset/{dataset['id']}/"
    image = {"zarr_url": f"{dataset['zarr_dir']}/by/hand"}
    await owner.ok("POST", f"{url}images/", json=image)
    assert (await submit(runnable, dataset)).status_code == 202

    answers = [
        await owner.post(f"{url}images/", json={"zarr_url": f"{dataset['zarr_dir']}/another"}),
        await owner.patch(f"{url}images/", json={**image, "types": {"a": True}}),
        await owner.delete(f"{url}images/", params=image),
        await owner.delete(url),
    ]

    assert [answer.status_code for answer in answers] == [422] * 4
    assert all("stop it" in answer.json()["detail"] for answer in answers)


@pytest.fixture
async def workflow_tasks(
    owner: Any,
    workflow: dict[str, Any],
    new_task: Callable[..., Awaitable[dict[str, Any]]],
) -> Callable[..., Awaitable[list[str]]]:
    """Puts tasks with these fields into a workflow; gives their places, as query parameters."""

    async def make(*fields: dict[str, Any]) -> list[str]:
        tasks = [await new_task(**each) for each in fields]
        url = f"/api/v2/project/{workflow['project_id']}/workflow/{workflow['id']}/wftask/"
        made = await owner.ok("POST", url, json=[{"task_id": task["id"]} for task in tasks])
        return [f"workflow_id={workflow['id']}&workflowtask_id={each['id']}" for each in made]

    return make


CONVERTER = {"command_non_parallel": "true", "type": "converter_non_parallel"}


@pytest.mark.parametrize(
    ("before", "filters", "expected"),
    [
        ({}, {}, [f"{well}/{n}" for well in ("A1", "A2", "B1") for n in (0, 1)]),
        ({}, {"attribute_filters": {"well": ["A2"]}}, ["A2/0", "A2/1"]),
        ({}, {"type_filters": {"is_3D": True}, "attribute_filters": {"well": ["A2"]}}, ["A2/0"]),
        ({"output_types": {"is_3D": True}}, {}, []),
        (CONVERTER, {}, []),
    ],
)
async def test_images_that_the_task_before_has_not_done_are_told(
    before: dict[str, Any],
    filters: dict[str, Any],
    expected: list[str],
    owner: Any,
    plate: str,
    workflow_tasks: Callable[..., Awaitable[list[str]]],
) -> None:
    first, second = await workflow_tasks(before, {})

    assert await owner.ok("POST", f"{plate}non-processed/?{first}", json={}) == []
    found = await owner.ok("POST", f"{plate}non-processed/?{second}", json=filters)
    assert [url.removeprefix("/plate/") for url in found] == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (None, ["is_3D"]),
        ({"type_filters": {"is_3D": True}}, []),
        ({"attribute_filters": {"acquisition": [1]}}, []),  # absent and false are the same
        ({"attribute_filters": {"well": ["A1"]}}, ["is_3D"]),
        ({"attribute_filters": {STATUS_ATTRIBUTE: ["unset"]}}, ["is_3D"]),
        ({"attribute_filters": {STATUS_ATTRIBUTE: ["done"]}}, []),
    ],
)
async def test_types_that_only_some_images_have_are_told(
    query: dict[str, Any] | None,
    expected: list[str],
    owner: Any,
    plate: str,
    workflow_tasks: Callable[..., Awaitable[list[str]]],
) -> None:
    (task,) = await workflow_tasks({})

    assert await owner.ok("POST", f"{plate}verify-unique-types/?{task}", json=query) == expected


async def test_a_foreign_workflow_task_is_not_found(
    owner: Any, plate: str, workflow: dict[str, Any]
) -> None:
    query = f"workflow_id={workflow['id']}&workflowtask_id=1000000"

    assert (await owner.post(f"{plate}non-processed/?{query}", json={})).status_code == 404


SCALARS = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 0.5, "1", "a"]))
KEYS = st.sampled_from(["a", "b"])
IMAGES_BY_URL = st.dictionaries(
    st.sampled_from([f"/{number}" for number in range(8)]),
    st.tuples(
        st.none() | st.sampled_from(["/1", "/gone"]),
        st.dictionaries(KEYS, SCALARS),
        st.dictionaries(KEYS, st.booleans()),
    ),
    max_size=6,
).map(
    lambda contents: {
        url: {"zarr_url": url, "origin": origin, "attributes": attributes, "types": types}
        for url, (origin, attributes, types) in contents.items()
    }
)


@hypothesis_settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    before=IMAGES_BY_URL,
    edits=IMAGES_BY_URL,
    removed=st.sets(st.sampled_from([f"/{number}" for number in range(8)])),
    type_filters=st.dictionaries(KEYS, st.booleans()),
    attribute_filters=st.dictionaries(KEYS, SCALARS.map(lambda value: [value])),
)
async def test_the_database_keeps_and_filters_lists_like_a_job_does(
    before: dict[str, Image],
    edits: dict[str, Image],
    removed: set[str],
    type_filters: dict[str, bool],
    attribute_filters: dict[str, list[Any]],
    sessions: Any,
    project: dict[str, Any],
) -> None:
    query = ImageQuery(type_filters=type_filters, attribute_filters=attribute_filters)
    async with sessions() as session:
        dataset = DatasetV2(name="d", project_id=project["id"], zarr_dir="/d")
        session.add(dataset)
        await session.flush()
        await write_images(session, dataset.id, list(before.values()))
        await write_images(session, dataset.id, list(edits.values()))
        await remove_images(session, dataset.id, list(removed))
        listed = await read_images(session, ImageSearch(dataset.id))
        page = ImagePage.model_validate_json(
            await sent(await page_of_images(session, search_for(query, dataset.id), Paging()))
        )
        differing = await session.execute(_COUNTS_THAT_DIFFER, {"dataset_id": dataset.id})
        counts_that_differ = list(differing.scalars())

    images = [image for url, image in (before | edits).items() if url not in removed]
    assert listed == images
    assert [image.model_dump() for image in page.items] == passing(
        images, type_filters, attribute_filters
    )
    assert page.total_count == len(page.items)
    assert told(page.attributes) == {
        key: {
            (isinstance(image["attributes"][key], bool), image["attributes"][key])
            for image in images
            if key in image["attributes"]
        }
        for key in {key for image in images for key in image["attributes"]}
    }
    assert page.types == sorted({key for image in images for key in image["types"]})
    assert counts_that_differ == []


# Facets whose images are not as many as there are in all blocks; and blocks of no facet.
_COUNTS_THAT_DIFFER = text(
    """
    SELECT digest FROM (
        SELECT digest, count FROM imagefacet WHERE dataset_id = :dataset_id
        UNION ALL
        SELECT digest, -count FROM facetblock WHERE dataset_id = :dataset_id
    ) AS counted GROUP BY digest HAVING sum(count) <> 0 OR max(count) <= 0
    """
)


@pytest.fixture(scope="module")
async def long_list(sessions: Any, owner: Any) -> tuple[int, list[Image]]:
    """A dataset whose images are in several blocks, between which there are gaps; its images."""
    project = await owner.ok("POST", "/api/v2/project/", json={"name": "of a long list"})
    images: list[Image] = [
        {
            "zarr_url": f"/d/{n}",
            "origin": None,
            "attributes": {"well": n % 7} | ({"plate": "rare"} if n in (5, 2900) else {}),
            "types": {"late": True} if n >= 2500 else {},
        }
        for n in range(3000)
    ]
    gone = [image["zarr_url"] for n, image in enumerate(images) if 700 <= n < 2300 or n % 11 == 0]
    async with sessions() as session:
        dataset = DatasetV2(name="d", project_id=project["id"], zarr_dir="/d")
        session.add(dataset)
        await session.flush()
        await write_images(session, dataset.id, images)
        await remove_images(session, dataset.id, gone)
        for n in (20, 2950):
            images[n] = {**images[n], "types": {"edited": True}}
        await write_images(session, dataset.id, [images[20], images[2950]])
        await session.commit()
    return saved_id(dataset), [image for image in images if image["zarr_url"] not in {*gone}]


@pytest.mark.parametrize("page_size", [1, 50, 333, 5000])
@pytest.mark.parametrize(
    "query",
    [
        ImageQuery(),
        ImageQuery(attribute_filters={"plate": ["rare"]}),
        ImageQuery(attribute_filters={"well": [1, 3]}),
        ImageQuery(attribute_filters={"plate": ["none"]}),
        ImageQuery(type_filters={"late": True}),
        ImageQuery(type_filters={"late": False}),
        ImageQuery(type_filters={"edited": True, "late": False}),
        ImageQuery(type_filters={"late": False}, attribute_filters={"well": [0]}),
    ],
    ids=str,
)
async def test_pages_are_the_parts_of_a_long_list(
    long_list: tuple[int, list[Image]], query: ImageQuery, page_size: int, sessions: Any
) -> None:
    dataset_id, images = long_list
    wanted = passing(images, query.type_filters, query.attribute_filters)
    last = max(1, -(-len(wanted) // page_size))
    async with sessions() as session:
        for number in {1, 2, last // 2 + 1, last - 1, last, last + 1} - {0}:
            page = ImagePage.model_validate_json(
                await sent(
                    await page_of_images(
                        session, search_for(query, dataset_id), Paging(number, page_size)
                    )
                )
            )
            shown = min(number, last)
            assert (page.current_page, page.total_count) == (shown, len(wanted))
            assert [image.model_dump() for image in page.items] == wanted[
                (shown - 1) * page_size : shown * page_size
            ]


MANY_KEYS = [f"key {n}" for n in range(20_000)]  # as many parameters PostgreSQL does not take


@pytest.mark.parametrize(
    "query",
    [
        ImageQuery(attribute_filters={key: [1, 2] for key in MANY_KEYS[:50]}),
        ImageQuery(attribute_filters={key: [1] for key in MANY_KEYS[:50]}),
        ImageQuery(attribute_filters={key: [1, 2] for key in MANY_KEYS}),
        ImageQuery(type_filters={key: n % 2 == 0 for n, key in enumerate(MANY_KEYS[:50])}),
        ImageQuery(type_filters={key: n % 2 == 0 and n < 50 for n, key in enumerate(MANY_KEYS)}),
        ImageQuery(type_filters=dict.fromkeys(MANY_KEYS[50:], False)),
        ImageQuery(type_filters=dict.fromkeys(MANY_KEYS, True)),
    ],
    ids=range(7),
)
async def test_filters_may_have_any_number_of_keys(
    query: ImageQuery, sessions: Any, project: dict[str, Any]
) -> None:
    some = MANY_KEYS[:50]
    images: list[Image] = [
        {"zarr_url": f"/d/{n}", "origin": None, "attributes": attributes, "types": types}
        for n, (attributes, types) in enumerate(
            [
                (dict.fromkeys(some, 1), {key: n % 2 == 0 for n, key in enumerate(some)}),
                (dict.fromkeys(some, 1) | {some[-1]: 2}, dict.fromkeys(some[::2], True)),
                (dict.fromkeys(some, 1) | {some[-1]: True}, dict.fromkeys(some, True)),
                (dict.fromkeys(some[:-1], 1), dict.fromkeys(some[:-2:2], True)),
                (dict.fromkeys([*some, "another"], 2), {some[-1]: True}),
                ({}, {}),
            ]
        )
    ]
    async with sessions() as session:
        dataset = DatasetV2(name="d", project_id=project["id"], zarr_dir="/d")
        session.add(dataset)
        await session.flush()
        await write_images(session, dataset.id, images)
        answer = await page_of_images(session, search_for(query, dataset.id), Paging(1, 10))

    page = ImagePage.model_validate_json(await sent(answer))
    wanted = passing(images, query.type_filters, query.attribute_filters)
    assert [image.model_dump() for image in page.items] == wanted


async def sent(answer: Response) -> bytes:
    """The body of an answer, as it is sent."""
    parts = []

    async def send(message: Any) -> None:
        parts.append(message.get("body", b""))

    await answer({"type": "http"}, None, send)  # type: ignore[arg-type]
    return b"".join(parts)


def told(attributes: dict[str, list[Any]]) -> dict[str, set[tuple[bool, Any]]]:
    """Values whatever their order; `True` is not 1, but 1 is 1.0."""
    return {
        key: {(isinstance(value, bool), value) for value in values}
        for key, values in attributes.items()
    }
