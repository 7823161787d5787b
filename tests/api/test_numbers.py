"""Numbers are kept as they came, through every request that takes some and gives them back."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

NUMBERS = {"whole": 10**25, "real": 1.0, "large": 1e25, "negative": -(2**70), "small": 1e-7}


def as_text(value: dict[str, Any]) -> dict[str, str]:
    return {key: repr(item) for key, item in value.items()}


async def test_of_images(owner: Any, project: dict[str, Any], resource: Any) -> None:
    base = f"/api/v2/project/{project['id']}/dataset/"
    folder = f"{owner.user.project_dirs[0]}/numbers"
    images = [
        {"zarr_url": f"{folder}/a", "attributes": NUMBERS},
        {"zarr_url": f"{folder}/b", "attributes": {"whole": 10**25 + 1}},
    ]
    document = {"name": "d", "zarr_dir": folder, "images": images[:1]}
    dataset = await owner.ok("POST", f"{base}import/", json=document)
    url = f"{base}{dataset['id']}/"
    await owner.ok("POST", f"{url}images/", json=images[1])

    exported = await owner.ok("GET", f"{url}export/")
    found = await owner.ok(
        "POST", f"{url}images/query/", json={"attribute_filters": {"whole": [10**25]}}
    )
    patched = {"zarr_url": f"{folder}/b", "attributes": {"other": 2**65}}
    await owner.ok("PATCH", f"{url}images/", json=patched)
    page = await owner.ok("POST", f"{url}images/query/", json={})

    assert as_text(exported["images"][0]["attributes"]) == as_text(NUMBERS)
    assert [image["zarr_url"] for image in found["items"]] == [f"{folder}/a"]
    assert as_text(found["items"][0]["attributes"]) == as_text(NUMBERS)
    assert found["attributes"]["whole"] == [10**25, 10**25 + 1]
    assert page["items"][1]["attributes"] == {"other": 2**65}


async def test_of_arguments_and_what_else_tasks_are_told(
    owner: Any, runnable: dict[str, Any]
) -> None:
    workflow = f"/api/v2/project/{runnable['project_id']}/workflow/{runnable['id']}/"
    task = f"{workflow}wftask/{runnable['task_list'][0]['id']}/"
    given = {"args_parallel": {"deep": [NUMBERS]}, "meta_parallel": {"deep": [NUMBERS]}}

    changed = await owner.ok("PATCH", task, json=given)
    exported = (await owner.ok("GET", f"{workflow}export/"))["task_list"][0]

    for answer in (changed, exported):
        for field in given:
            assert as_text(answer[field]["deep"][0]) == as_text(NUMBERS)


async def test_of_the_filters_of_a_job(
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
) -> None:
    answer = await submit(runnable, dataset, attribute_filters={"whole": [10**25, 1.0, 1e25]})
    listed = await owner.ok("GET", f"/api/v2/project/{dataset['project_id']}/job/")

    for job in (answer.json(), listed[0]):
        assert [repr(value) for value in job["attribute_filters"]["whole"]] == [
            "10000000000000000000000000",
            "1.0",
            "1e+25",
        ]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["args_parallel", "meta_parallel"])
async def test_what_is_no_number_is_refused_by_the_name_of_its_place(
    owner: Any, runnable: dict[str, Any], number: str, field: str
) -> None:
    workflow = f"/api/v2/project/{runnable['project_id']}/workflow/{runnable['id']}/"
    task = f"{workflow}wftask/{runnable['task_list'][0]['id']}/"

    answer = await owner.patch(
        task,
        content=f'{{"{field}": {{"a": [0, {number}]}}}}',
        headers={"Content-Type": "application/json"},
    )
    after = (await owner.ok("GET", workflow))["task_list"][0]

    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", field]
    assert "is no number that JSON has in a[1]" in problem["msg"]
    assert after == json.loads(json.dumps(runnable["task_list"][0]))


async def test_a_schedule_takes_integers_that_prefect_takes(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any]
) -> None:
    schedule = {
        "workflow_id": runnable["id"],
        "dataset_id": dataset["id"],
        "when": {"interval_seconds": 3600},
        "attribute_filters": {"whole": [10**25]},
    }
    url = f"/api/v2/project/{runnable['project_id']}/schedule/"

    answer = await owner.post(url, json=schedule)

    assert answer.status_code == 422
    assert "no integers of more than 64 bits" in answer.text
