"""Deactivation and reactivation: who may, and what is refused. There is no Prefect here."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fractal_models.groups import default_group
from fractal_models.settings import Settings
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2

NewGroup = Callable[..., Awaitable[TaskGroupV2]]


def url(group: TaskGroupV2, action: str, area: str = "/api") -> str:
    return f"{area}/v2/task-group/{group.id}/{action}/"


@pytest.mark.parametrize("area", ["/api", "/admin"])
async def test_a_group_without_environment_of_ours_changes_at_once(
    area: str, owner: Any, admin: Any, new_group: NewGroup, session: Any
) -> None:
    person = owner if area == "/api" else admin
    group = await new_group(origin="other", env_info=None)

    off = await person.ok("POST", url(group, "deactivate", area))
    await session.refresh(group)
    assert not group.active
    on = await person.ok("POST", url(group, "reactivate", area))
    await session.refresh(group)
    assert group.active

    assert [(each["action"], each["status"]) for each in (off, on)] == [
        ("deactivate", "OK"),
        ("reactivate", "OK"),
    ]
    assert off["taskgroupv2_id"] == group.id
    assert off["user_id"] == person.user.id
    assert off["timestamp_ended"] is not None


@pytest.mark.parametrize(
    ("action", "fields", "told"),
    [
        ("deactivate", {"active": False}, "inactive already"),
        ("reactivate", {"active": True}, "active already"),
        ("deactivate", {"env_info": None}, "never recorded"),
        ("reactivate", {"active": False, "env_info": None}, "never recorded"),
        ("deactivate", {"archive_path": "/no/a-1-py3-none-any.whl"}, "/no/a-1-py3-none-any.whl"),
        ("deactivate", {"python_version": "3.9"}, "no Python 3.9"),
        ("deactivate", {"origin": "pixi"}, "has no pixi"),
    ],
)
async def test_what_is_not_possible_is_refused(
    action: str, fields: dict[str, Any], told: str, owner: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group(**fields)
    was_active = group.active

    answer = await owner.post(url(group, action))

    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    await session.refresh(group)
    assert group.active == was_active


@pytest.mark.parametrize(("action", "active"), [("deactivate", True), ("reactivate", False)])
async def test_one_thing_at_a_time_is_done_to_a_group(
    action: str, active: bool, owner: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group(active=active)
    activity = TaskGroupActivityV2(
        user_id=group.user_id,
        taskgroupv2_id=group.id,
        pkg_name=group.pkg_name,
        version="1.0",
        status="ongoing",
        action="reactivate",
    )
    session.add(activity)
    await session.commit()

    answer = await owner.post(url(group, action))

    assert answer.status_code == 422
    assert f"Activity {activity.id} (reactivate)" in answer.json()["detail"]


async def test_a_group_that_a_job_uses_is_not_deactivated(
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
) -> None:
    job = (await submit(runnable, dataset)).json()
    group_id = runnable["task_list"][0]["task"]["taskgroupv2_id"]

    answer = await owner.post(f"/api/v2/task-group/{group_id}/deactivate/")

    assert answer.status_code == 422
    assert f"Job {job['id']} uses" in answer.json()["detail"]


@pytest.mark.parametrize(("action", "active"), [("deactivate", True), ("reactivate", False)])
async def test_without_prefect_a_group_stays_as_it_is(
    action: str, active: bool, owner: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group(active=active)

    answer = await owner.post(url(group, action))

    assert answer.status_code == 503
    assert "Prefect" in answer.json()["detail"]
    await session.refresh(group)
    assert group.active == active
    activities = await owner.ok("GET", f"/api/v2/task-group/activity/?taskgroupv2_id={group.id}")
    assert activities == []


async def test_only_the_owner_and_administrators_may(
    new_person: Callable[..., Awaitable[Any]],
    new_group: NewGroup,
    session: Any,
    settings: Settings,
) -> None:
    other = await new_person()
    everybody = await default_group(session, settings.default_group)
    private = await new_group()
    shared = await new_group(user_group_id=everybody.id)

    assert (await other.post(url(private, "deactivate"))).status_code == 404
    assert (await other.post(url(shared, "deactivate"))).status_code == 403
    assert (await other.post(url(shared, "deactivate", "/admin"))).status_code == 403


async def test_a_group_that_is_not_there_is_not_found(owner: Any, admin: Any) -> None:
    assert (await owner.post("/api/v2/task-group/0/deactivate/")).status_code == 404
    assert (await admin.post("/admin/v2/task-group/0/reactivate/")).status_code == 404


async def test_a_cluster_is_reached_as_the_owner_of_the_group(
    admin: Any, new_group: NewGroup, session: Any
) -> None:
    cluster = Resource(
        type="slurm_ssh",
        name="far away",
        host="127.0.0.1:9",
        jobs_local_dir="/j",
        jobs_poll_interval=1,
        jobs_slurm_python_worker="/usr/bin/python3",
        tasks_local_dir="/t",
        tasks_python_config={"default_version": "3.11", "versions": {"3.11": sys.executable}},
    )
    session.add(cluster)
    await session.commit()
    group = await new_group(resource_id=cluster.id, archive_path="/there/a-1-py3-none-any.whl")

    answer = await admin.post(url(group, "deactivate", "/admin"))

    assert answer.status_code == 422
    assert "has no profile for resource 'far away'" in answer.json()["detail"]
