"""The history of a dataset, written here as a job would."""

from pathlib import Path
from typing import Any

import pytest

from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.tables import HistoryImageCache, HistoryRun, HistoryUnit

IMAGES = [f"/plate/{index}" for index in range(4)]


@pytest.fixture(scope="module")
async def owner(new_person: Any) -> Any:
    """A user, who has images in /plate."""
    return await new_person(project_dirs=["/plate"])


@pytest.fixture
async def history(
    owner: Any,
    project: dict[str, Any],
    runnable: dict[str, Any],
    submit: Any,
    session: Any,
    tmp_path: Path,
) -> dict[str, Any]:
    """Two runs of a workflow task: the first on images 0 to 2, the second on image 0 again.

    Image 1 failed, image 2 has no end yet, image 3 never ran.
    """
    document = {
        "name": "d",
        "zarr_dir": "/plate",
        "images": [{"zarr_url": url, "attributes": {"n": int(url[-1])}} for url in IMAGES],
    }
    base = f"/api/v2/project/{project['id']}/"
    dataset = await owner.ok("POST", f"{base}dataset/import/", json=document)
    job = (await submit(runnable, dataset)).json()
    workflow_task = runnable["task_list"][0]
    runs = []
    for statuses in (("failed", "failed", "submitted"), ("done",)):
        run = HistoryRun(
            dataset_id=dataset["id"],
            workflowtask_id=workflow_task["id"],
            job_id=job["id"],
            task_id=workflow_task["task_id"],
            workflowtask_dump={"alias": None},
            status="done",
            num_available_images=len(statuses),
        )
        session.add(run)
        await session.flush()
        units = []
        for index, status in enumerate(statuses):
            log = tmp_path / f"{run.id}-{index}.log"
            log.write_text(f"run {len(runs)} image {index}")
            unit = HistoryUnit(
                history_run_id=run.id,
                logfile=str(log),
                status=status,
                has_warnings=index == 1,
                zarr_urls=[IMAGES[index]],
                max_rss_kb=2048,
            )
            session.add(unit)
            await session.flush()
            await session.merge(
                HistoryImageCache(
                    zarr_url=IMAGES[index],
                    dataset_id=dataset["id"],
                    workflowtask_id=workflow_task["id"],
                    latest_history_unit_id=unit.id,
                )
            )
            units.append(unit.id)
        runs.append((run.id, units))
    await session.commit()
    query = f"dataset_id={dataset['id']}&workflowtask_id={workflow_task['id']}"
    return {
        "url": f"{base}status/",
        "base": base,
        "query": query,
        "runs": runs,
        "dataset_id": dataset["id"],
        "workflowtask_id": workflow_task["id"],
        "workflow_id": runnable["id"],
        "job": job,
    }


async def test_runs_are_listed_with_counts_of_their_units(
    owner: Any, history: dict[str, Any]
) -> None:
    runs = await owner.ok("GET", f"{history['url']}run/?{history['query']}")

    counts = [
        tuple(run[f"num_{what}"] for what in ("submitted_units", "done_units", "failed_units"))
        for run in runs
    ]
    assert [run["id"] for run in runs] == [run_id for run_id, _ in history["runs"]]
    assert counts == [(1, 0, 2), (0, 1, 0)]
    assert [run["num_units_with_warnings"] for run in runs] == [1, 0]
    assert runs[0]["workflowtask_dump"] == {"alias": None}
    assert runs[0]["version"] == "1"


async def test_units_are_listed_by_pages_and_status(owner: Any, history: dict[str, Any]) -> None:
    run_id, units = history["runs"][0]
    url = f"{history['url']}run/{run_id}/units/?{history['query']}"

    every = await owner.ok("GET", url)
    page = await owner.ok("GET", f"{url}&page=2&page_size=2")
    failed = await owner.ok("GET", f"{url}&unit_status=failed")

    assert [unit["id"] for unit in every["items"]] == units
    assert every["items"][1]["zarr_urls"] == [IMAGES[1]]
    assert every["items"][1]["max_rss_kb"] == 2048
    assert [unit["id"] for unit in page["items"]] == units[2:]
    assert (page["current_page"], page["page_size"], page["total_count"]) == (2, 2, 3)
    assert [unit["id"] for unit in failed["items"]] == units[:2]
    assert (await owner.get(f"{url}&unit_status=lost")).status_code == 422


async def test_images_show_how_their_latest_unit_ended(owner: Any, history: dict[str, Any]) -> None:
    url = f"{history['url']}images/?{history['query']}"

    page = await owner.ok("POST", url, json={})
    warned = await owner.ok("POST", f"{url}&include_warnings=true", json={})

    statuses = [image["attributes"][STATUS_ATTRIBUTE] for image in page["items"]]
    assert statuses == ["done", "failed", "submitted", "unset"]
    assert page["attributes"] == {
        "n": [0, 1, 2, 3],
        STATUS_ATTRIBUTE: ["done", "submitted", "failed", "unset"],
    }
    assert [image["has_warnings"] for image in warned["items"]] == [False, True, False, None]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({STATUS_ATTRIBUTE: ["failed"]}, [1]),
        ({STATUS_ATTRIBUTE: ["unset", "done"]}, [0, 3]),
        ({STATUS_ATTRIBUTE: ["unset"], "n": [0]}, []),
        ({"n": [2]}, [2]),
    ],
)
async def test_images_are_filtered_by_status_and_attributes(
    filters: dict[str, Any], expected: list[int], owner: Any, history: dict[str, Any]
) -> None:
    url = f"{history['url']}images/?{history['query']}"

    page = await owner.ok("POST", url, json={"attribute_filters": filters})

    assert [image["attributes"]["n"] for image in page["items"]] == expected


async def test_logs_of_units_and_images_are_read(owner: Any, history: dict[str, Any]) -> None:
    run_id, units = history["runs"][0]
    query = f"{history['query']}&history_run_id={run_id}"
    request = {key: history[key] for key in ("dataset_id", "workflowtask_id")}

    first = await owner.ok("GET", f"{history['url']}unit-log/?{query}&history_unit_id={units[0]}")
    latest = await owner.ok(
        "POST", f"{history['url']}image-log/", json={**request, "zarr_url": IMAGES[0]}
    )

    assert first == "run 0 image 0"
    assert latest == "run 1 image 0"


async def test_what_belongs_to_something_else_is_not_found(
    owner: Any, history: dict[str, Any]
) -> None:
    url, query = history["url"], history["query"]
    (first, _), (_, [unit]) = history["runs"]
    request = {key: history[key] for key in ("dataset_id", "workflowtask_id")}

    answers = [
        await owner.get(f"{url}run/{first + 999}/units/?{query}"),
        await owner.get(f"{url}unit-log/?{query}&history_run_id={first}&history_unit_id={unit}"),
        await owner.get(f"{url}run/?dataset_id=999&workflowtask_id=1"),
        await owner.get(f"{url}run/?dataset_id={history['dataset_id']}&workflowtask_id=999"),
        await owner.post(f"{url}image-log/", json={**request, "zarr_url": IMAGES[3]}),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)


async def test_a_deleted_image_is_forgotten(owner: Any, history: dict[str, Any]) -> None:
    images = f"{history['base']}dataset/{history['dataset_id']}/images/"
    await owner.ok("GET", f"{history['base']}job/{history['job']['id']}/stop/")
    await owner.delete(images, params={"zarr_url": IMAGES[0]})
    await owner.ok("POST", images, json={"zarr_url": IMAGES[0]})

    page = await owner.ok("POST", f"{history['url']}images/?{history['query']}", json={})

    assert page["items"][-1]["attributes"] == {STATUS_ATTRIBUTE: "unset"}


async def test_the_latest_job_tells_how_its_tasks_stand(
    owner: Any, history: dict[str, Any]
) -> None:
    query = f"dataset_id={history['dataset_id']}&workflow_id={history['workflow_id']}"

    latest = await owner.ok("GET", f"{history['base']}latest-job/?{query}")

    assert latest["id"] == history["job"]["id"]
    assert latest["task_statuses"] == {
        str(history["workflowtask_id"]): {
            "status": "done",
            "num_available_images": None,  # fewer than it has statuses of, from runs before
            "num_submitted_images": 1,
            "num_done_images": 1,
            "num_failed_images": 1,
            "has_warnings": True,
        }
    }


async def test_without_a_job_there_is_no_latest_one(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any]
) -> None:
    query = f"dataset_id={dataset['id']}&workflow_id={runnable['id']}"

    answer = await owner.get(f"/api/v2/project/{dataset['project_id']}/latest-job/?{query}")

    assert answer.status_code == 404
