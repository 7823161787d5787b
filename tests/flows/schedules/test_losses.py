"""What a schedule needs goes away: it pauses and says why, or goes too."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.exceptions import ObjectNotFound
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.engine.client import Engine
from flows.watchers.schedules import ScheduleKeeper
from fractal_models.tables import LinkUserProjectV2, Schedule
from tests.flows.schedules.conftest import OFTEN, YEARLY, Schedules
from tests.lab import Lab, eventually, logged_in


class Guest:
    """Somebody who may run jobs in the lab's project, and their client."""

    def __init__(self, client: httpx.AsyncClient, user: dict[str, Any]) -> None:
        self.client = client
        self.user = user


@pytest.fixture
async def guest(
    lab: Lab, stack: Stack, fractal: async_sessionmaker[AsyncSession]
) -> AsyncIterator[Guest]:
    password = "of a guest"
    users = await lab.ok("GET", "/auth/users/")
    (admin,) = [user for user in users if user["is_superuser"]]
    body = {
        "email": f"guest{len(users)}@example.org",
        "password": password,
        "project_dirs": ["/"],
        "profile_id": admin["profile_id"],
    }
    user = await lab.ok("POST", "/auth/register/", json=body)
    await lab.ok("PATCH", f"/auth/users/{user['id']}/", json={"is_verified": True})
    async with fractal() as session:
        link = LinkUserProjectV2(
            project_id=lab.project_id,
            user_id=user["id"],
            is_owner=False,
            is_verified=True,
            permissions="rwx",
        )
        session.add(link)
        await session.commit()
    async with logged_in(stack, user["email"], password) as client:
        yield Guest(client, user)


@pytest.fixture
async def of_guest(lab: Lab, guest: Guest, schedules: Schedules) -> dict[str, Any]:
    """A schedule that the guest made."""
    ids = {
        "workflow_id": (await lab.workflow("Process"))["id"],
        "dataset_id": (await lab.dataset("A"))["id"],
    }
    body = ids | {"when": YEARLY}
    made = await Lab(guest.client, lab.zarr_dir).ok("POST", f"{lab.base}/schedule/", json=body)
    schedules.made.append(made)
    return dict(made)


async def permit(
    fractal: async_sessionmaker[AsyncSession], guest: Guest, **permissions: object
) -> None:
    async with fractal() as session:
        await session.exec(
            update(LinkUserProjectV2)
            .where(col(LinkUserProjectV2.user_id) == guest.user["id"])
            .values(**permissions)
        )
        await session.commit()


async def test_a_schedule_whose_workflow_is_deleted_pauses_and_takes_another(
    lab: Lab, schedules: Schedules
) -> None:
    workflow, other = await lab.workflow("Process"), await lab.workflow("Process")
    made = await schedules.post(workflow, await lab.dataset("A"), when=YEARLY)
    await lab.ok("DELETE", f"{lab.base}/workflow/{workflow['id']}/")
    now = await schedules.paused_with(made, "Its workflow was deleted.")
    assert now["workflow_id"] is None
    answer = await lab.client.patch(schedules.url(made), json={"active": True})
    assert (answer.status_code, "give another workflow_id" in answer.text) == (422, True)
    now = await schedules.patch(made, active=True, workflow_id=other["id"])
    assert (now["active"], now["notice"], now["workflow_id"]) == (True, None, other["id"])
    deployment = await schedules.deployment(made)
    assert not deployment.paused
    assert "deleted" not in (deployment.description or "")


async def test_a_schedule_whose_dataset_is_deleted_pauses(lab: Lab, schedules: Schedules) -> None:
    dataset = await lab.dataset("A")
    made = await schedules.post(await lab.workflow("Process"), dataset, when=YEARLY)
    await lab.ok("DELETE", f"{lab.base}/dataset/{dataset['id']}/")
    assert (await schedules.paused_with(made, "Its dataset was deleted."))["dataset_id"] is None


async def test_a_schedule_goes_with_its_project(
    lab: Lab,
    schedules: Schedules,
    prefect: PrefectClient,
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    here = lab.project_id
    lab.project_id = (await lab.ok("POST", "/api/v2/project/", json={"name": "brief"}))["id"]
    try:
        workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
        made = await schedules.post(workflow, dataset, when=YEARLY)
        await lab.ok("DELETE", f"{lab.base}/")
    finally:
        lab.project_id = here

    async def is_there() -> bool:
        try:
            await prefect.read_deployment(UUID(made["deployment_id"]))
        except ObjectNotFound:
            return False
        return True

    await eventually(is_there, lambda there: not there)

    async def row() -> Schedule | None:
        async with fractal() as session:
            return await session.get(Schedule, made["id"])

    await eventually(row, lambda found: found is None)


@pytest.mark.parametrize(
    ("changes", "notice"),
    [
        ({"is_active": False}, "is not active."),
        ({"is_verified": False}, "is not verified."),
        ({"is_guest": True}, "may not run jobs in project lab any more."),
        ({"profile_id": None}, "has no profile for resource local."),
    ],
)
async def test_a_schedule_whose_owner_may_not_run_jobs_pauses(
    lab: Lab,
    schedules: Schedules,
    guest: Guest,
    of_guest: dict[str, Any],
    changes: dict[str, Any],
    notice: str,
) -> None:
    await lab.ok("PATCH", f"/auth/users/{guest.user['id']}/", json=changes)
    await schedules.paused_with(of_guest, f"User {guest.user['email']} {notice}")
    answer = await lab.client.patch(schedules.url(of_guest), json={"active": True})
    assert answer.status_code == 422
    assert guest.user["email"] in answer.json()["detail"]


async def test_a_schedule_of_a_guest_whose_permission_shrinks_pauses_until_it_is_given_back(
    lab: Lab,
    schedules: Schedules,
    guest: Guest,
    of_guest: dict[str, Any],
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    await permit(fractal, guest, permissions="rw")
    await schedules.paused_with(of_guest, "may not run jobs in project lab any more.")
    await permit(fractal, guest, permissions="rwx")
    assert (await schedules.patch(of_guest, active=True))["active"]


async def test_an_occurrence_that_is_refused_pauses_the_schedule_with_the_reason(
    lab: Lab, schedules: Schedules, prefect: PrefectClient
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when=OFTEN, active=False)
    url = f"{lab.base}/workflow/{workflow['id']}/wftask/"
    await lab.ok("DELETE", f"{url}{workflow['task_list'][0]['id']}/")
    await prefect.resume_deployment(UUID(made["deployment_id"]))
    reason = f"Workflow {workflow['id']} has no tasks: add some first."
    await schedules.paused_with(made, reason)
    latest = await schedules.outcomes(made, lambda now: now and now[-1]["outcome"] == "failed")
    assert latest[-1]["reason"] == reason
    await lab.ok("POST", url, json=[{"task_id": lab.tasks["Process"]}])
    assert (await schedules.patch(made, active=True))["notice"] is None
    await schedules.outcomes(made, lambda now: any(each["outcome"] == "run" for each in now))


async def test_a_schedule_that_is_resumed_in_prefect_loses_its_notice_when_it_runs(
    lab: Lab,
    schedules: Schedules,
    guest: Guest,
    of_guest: dict[str, Any],
    prefect: PrefectClient,
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    await schedules.patch(of_guest, when=OFTEN)
    await permit(fractal, guest, permissions="rw")
    await schedules.paused_with(of_guest, "any more.")
    await permit(fractal, guest, permissions="rwx")
    await prefect.resume_deployment(UUID(of_guest["deployment_id"]))
    now = await eventually(
        lambda: schedules.get(of_guest), lambda now: now["notice"] is None and now["active"]
    )
    assert now["active"]
    await eventually(
        lambda: schedules.deployment(of_guest),
        lambda found: "any more." not in (found.description or ""),
    )


async def test_only_their_owner_and_that_of_the_project_may_change_a_schedule(
    lab: Lab, schedules: Schedules, guest: Guest, of_guest: dict[str, Any]
) -> None:
    mine = await schedules.post(await lab.workflow("Process"), await lab.dataset("A"), when=YEARLY)
    assert (await guest.client.get(schedules.url(mine))).status_code == 200
    for method, body in (("PATCH", {"active": False}), ("DELETE", None)):
        answer = await guest.client.request(method, schedules.url(mine), json=body)
        assert answer.status_code == 403
        assert "only they and the owner of the project may change it" in answer.text
    assert not (await schedules.patch(of_guest, active=False))["active"]
    answer = await guest.client.patch(schedules.url(of_guest), json={"active": True})
    assert (answer.status_code, answer.json()["user_email"]) == (200, guest.user["email"])


@pytest.mark.parametrize(("permissions", "make"), [("r", 403), ("rw", 403), ("rwx", 201)])
async def test_who_may_read_sees_schedules_and_who_may_run_jobs_makes_them(
    lab: Lab,
    schedules: Schedules,
    guest: Guest,
    fractal: async_sessionmaker[AsyncSession],
    permissions: str,
    make: int,
) -> None:
    await permit(fractal, guest, permissions=permissions)
    ids = {
        "workflow_id": (await lab.workflow("Process"))["id"],
        "dataset_id": (await lab.dataset("A"))["id"],
    }
    answer = await guest.client.post(f"{lab.base}/schedule/", json=ids | {"when": YEARLY})
    assert answer.status_code == make
    if make == 201:
        schedules.made.append(answer.json())
    assert (await guest.client.get(f"{lab.base}/schedule/")).status_code == 200


async def test_a_creation_that_did_not_come_to_its_end_leaves_nothing(
    lab: Lab,
    schedules: Schedules,
    prefect: PrefectClient,
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    made = await schedules.post(await lab.workflow("Process"), await lab.dataset("A"), when=YEARLY)

    async def set_row(**values: object) -> None:
        async with fractal() as session:
            await session.exec(
                update(Schedule).where(col(Schedule.id) == made["id"]).values(**values)
            )
            await session.commit()

    await set_row(deployment_id=None)
    run = await prefect.create_flow_run_from_deployment(UUID(made["deployment_id"]))
    ended = await eventually(
        lambda: prefect.read_flow_run(run.id), lambda now: now.state and now.state.is_final()
    )
    assert "about to be made, or to be cleared away" in ended.state.message
    await set_row(timestamp_created=datetime(2026, 1, 1, tzinfo=UTC))

    async def is_there() -> bool:
        try:
            await prefect.read_deployment_by_name(f"run-job/{made['name']}")
        except ObjectNotFound:
            return False
        return True

    await eventually(is_there, lambda there: not there)
    assert (await lab.client.get(schedules.url(made))).status_code == 404


async def test_a_new_version_renews_the_flow_and_the_form_of_schedules_and_nothing_else(
    lab: Lab,
    schedules: Schedules,
    prefect: PrefectClient,
    stack: Stack,
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    old = await schedules.post(workflow, dataset, when=YEARLY)
    new = await schedules.post(workflow, dataset, when=YEARLY)
    of_old = await schedules.deployment(old)
    of_new = await schedules.deployment(new)
    update = DeploymentUpdate(entrypoint="flows.of_yesterday")
    await prefect.update_deployment(of_old.id, update)
    keeper = ScheduleKeeper(fractal, Engine(prefect), "local")
    await keeper.look()
    renewed = await schedules.deployment(old)
    assert renewed.entrypoint == of_old.entrypoint
    assert [each.id for each in renewed.schedules] == [each.id for each in of_old.schedules]
    assert await schedules.flow_runs(old) != []
    assert (await schedules.deployment(new)).updated == of_new.updated
