"""Who may do what: each role asks for each operation of the API, and is let or not."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from prefect.client.orchestration import PrefectClient
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from fractal_models.database import saved_id
from fractal_models.image_list import write_images
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    HistoryUnit,
    JobV2,
    LinkUserProjectV2,
    Profile,
    ProjectV2,
    Resource,
    Schedule,
    TaskGroupActivityV2,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    WorkflowTaskV2,
    WorkflowTemplate,
    WorkflowV2,
)
from tests.conftest import PREFECT_AWAY

# The owner owns all that is asked for. Those who are unverified, without profile or a guest user
# have all permissions in the project, and may not use them; the superuser has no part in it.
# Everyone is in the default group, with which tasks and a template of the owner are shared.
ROLES = (
    "anonymous",
    "unverified",
    "no profile",
    "guest user",
    "stranger",
    "invited",
    "r",
    "rw",
    "rwx",
    "owner",
    "superuser",
)

# What they are answered: `yes` is anything but 401, 403 and 404, e.g. that the body is incomplete.
PATTERNS = """
               anon. unver. no pr. guest  str.   inv.   r      rw     rwx    owner  superuser
anyone         yes   yes    yes    yes    yes    yes    yes    yes    yes    yes    yes
nobody         404   404    404    404    404    404    404    404    404    404    404
logged in      401   yes    yes    yes    yes    yes    yes    yes    yes    yes    yes
no guest       401   yes    yes    403    yes    yes    yes    yes    yes    yes    yes
verified       401   403    yes    yes    yes    yes    yes    yes    yes    yes    yes
superuser      401   403    403    403    403    403    403    403    403    403    yes

user           401   403    403    yes    yes    yes    yes    yes    yes    yes    yes
contributor    401   403    403    403    yes    yes    yes    yes    yes    yes    yes
invited        401   403    403    403    404    yes    404    404    404    404    404
leaving        401   403    403    403    404    yes    yes    yes    yes    yes    404
data           401   403    yes    yes    404    404    yes    yes    yes    yes    404
project r      401   403    403    yes    404    404    yes    yes    yes    yes    404
project copy   401   403    403    403    404    404    yes    yes    yes    yes    404
project w      401   403    403    403    404    404    403    yes    yes    yes    404
project x      401   403    403    403    404    404    403    403    yes    yes    404
project owner  401   403    403    403    404    404    403    403    403    yes    404
shared owner   401   403    403    403    403    403    403    403    403    yes    403
owner          401   403    403    404    404    404    404    404    404    yes    404
"""

TABLE = """
anyone        | GET    /api/alive/
anyone        | POST   /auth/token/login/
logged in     | POST   /auth/token/logout/
nobody        | GET    /auth/{client_name}/authorize/
nobody        | GET    /auth/{client_name}/callback/
logged in     | GET    /auth/current-user/
no guest      | PATCH  /auth/current-user/ | {}
logged in     | GET    /auth/current-user/profile-info/
verified      | GET    /auth/current-user/allowed-viewer-paths/

superuser     | POST   /auth/register/
superuser     | GET    /auth/users/
superuser     | GET    /auth/users/{user_id}/
superuser     | PATCH  /auth/users/{user_id}/ | {}
superuser     | POST   /auth/users/{user_id}/set-groups/ | {"group_ids": []}
superuser     | POST   /auth/users/{user_id}/log-out/
superuser     | GET    /auth/group/
superuser     | POST   /auth/group/
superuser     | GET    /auth/group/{group_id}/
superuser     | DELETE /auth/group/{group_id}/
superuser     | POST   /auth/group/{group_id}/add-user/{user_id}/
superuser     | POST   /auth/group/{group_id}/remove-user/{user_id}/

user          | GET    /api/v2/project/
contributor   | POST   /api/v2/project/ | {"name": "another"}
project r     | GET    /api/v2/project/{project_id}/
project w     | PATCH  /api/v2/project/{project_id}/ | {"description": "new"}
project owner | DELETE /api/v2/project/{project_id}/
project w     | POST   /api/v2/project/{project_id}/star/
project w     | POST   /api/v2/project/{project_id}/unstar/

user          | GET    /api/v2/project/invitation/
project r     | GET    /api/v2/project/{project_id}/access/
leaving       | DELETE /api/v2/project/{project_id}/access/
invited       | POST   /api/v2/project/{project_id}/access/accept/
project owner | GET    /api/v2/project/{project_id}/guest/
project owner | POST   /api/v2/project/{project_id}/guest/?email={email_of_stranger} | {"permissions": "r"}
project owner | PATCH  /api/v2/project/{project_id}/guest/?email={email_of_r} | {"permissions": "r"}
project owner | DELETE /api/v2/project/{project_id}/guest/?email={email_of_r}

user          | GET    /api/v2/dataset/
project r     | GET    /api/v2/project/{project_id}/dataset/
project w     | POST   /api/v2/project/{project_id}/dataset/ | {"name": "another"}
project w     | POST   /api/v2/project/{project_id}/dataset/import/
project r     | GET    /api/v2/project/{project_id}/dataset/{dataset_id}/
project w     | PATCH  /api/v2/project/{project_id}/dataset/{dataset_id}/ | {"name": "renamed"}
project w     | DELETE /api/v2/project/{project_id}/dataset/{dataset_id}/
project r     | GET    /api/v2/project/{project_id}/dataset/{dataset_id}/export/
project w     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/star/
project w     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/unstar/
project r     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/images/query/ | {}
project r     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/images/verify-unique-types/?workflowtask_id={workflow_task_id} | {}
project r     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/images/non-processed/?workflow_id={workflow_id}&workflowtask_id={workflow_task_id} | {}
project w     | POST   /api/v2/project/{project_id}/dataset/{dataset_id}/images/ | {"zarr_url": "/data/another"}
project w     | PATCH  /api/v2/project/{project_id}/dataset/{dataset_id}/images/ | {"zarr_url": "/data/image"}
project w     | DELETE /api/v2/project/{project_id}/dataset/{dataset_id}/images/?zarr_url=/data/image

project r     | GET    /api/v2/project/{project_id}/workflow/
project w     | POST   /api/v2/project/{project_id}/workflow/ | {"name": "another"}
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/
project w     | PATCH  /api/v2/project/{project_id}/workflow/{workflow_id}/ | {"name": "renamed"}
project w     | DELETE /api/v2/project/{project_id}/workflow/{workflow_id}/
project w     | POST   /api/v2/project/{project_id}/workflow/{workflow_id}/star/
project w     | POST   /api/v2/project/{project_id}/workflow/{workflow_id}/unstar/
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/export/
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/type-filters-flow/
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/version-update-candidates/
project w     | POST   /api/v2/project/{project_id}/workflow/import/ | {"name": "imported", "task_list": []}
project w     | POST   /api/v2/project/{project_id}/workflow/import-from-template/?template_id={template_id} | {"name": "of template"}
project w     | POST   /api/v2/project/{project_id}/workflow/{workflow_id}/wftask/ | []
project w     | POST   /api/v2/project/{project_id}/workflow/{workflow_id}/wftask/replace-task/?workflow_task_id={workflow_task_id}&task_id={task_id} | {}
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/wftask/{workflow_task_id}/
project w     | PATCH  /api/v2/project/{project_id}/workflow/{workflow_id}/wftask/{workflow_task_id}/ | {"alias": "new"}
project w     | DELETE /api/v2/project/{project_id}/workflow/{workflow_id}/wftask/{workflow_task_id}/

user          | GET    /api/v2/workflow-template/
contributor   | POST   /api/v2/workflow-template/import/
project copy  | POST   /api/v2/workflow-template/?workflow_id={workflow_id} | {"name": "copy", "version": 1}
user          | GET    /api/v2/workflow-template/{template_id}/
shared owner  | PATCH  /api/v2/workflow-template/{template_id}/ | {}
shared owner  | DELETE /api/v2/workflow-template/{template_id}/
user          | GET    /api/v2/workflow-template/{template_id}/export/

project x     | POST   /api/v2/project/{project_id}/job/submit/?workflow_id={workflow_id}&dataset_id={dataset_id} | {}
user          | GET    /api/v2/job/
contributor   | GET    /api/v2/job/squeue/
project r     | GET    /api/v2/project/{project_id}/job/
project r     | GET    /api/v2/project/{project_id}/workflow/{workflow_id}/job/
project r     | GET    /api/v2/project/{project_id}/latest-job/?workflow_id={workflow_id}&dataset_id={dataset_id}
project r     | GET    /api/v2/project/{project_id}/job/{job_id}/
project x     | GET    /api/v2/project/{project_id}/job/{job_id}/stop/
project x     | POST   /api/v2/project/{project_id}/job/plan/?workflow_id={workflow_id}&dataset_id={dataset_id} | {}
project x     | POST   /api/v2/project/{project_id}/job/{job_id}/pause/
project x     | POST   /api/v2/project/{project_id}/job/{job_id}/continue/
project r     | GET    /api/v2/project/{project_id}/job/{job_id}/download/
project r     | GET    /api/v2/project/{project_id}/job/{job_id}/report.html

project r     | GET    /api/v2/project/{project_id}/schedule/
project x     | POST   /api/v2/project/{project_id}/schedule/
project r     | GET    /api/v2/project/{project_id}/schedule/{schedule_id}/
project owner | PATCH  /api/v2/project/{project_id}/schedule/{schedule_id}/ | {}
project owner | DELETE /api/v2/project/{project_id}/schedule/{schedule_id}/

project r     | GET    /api/v2/project/{project_id}/status/run/?dataset_id={dataset_id}&workflowtask_id={workflow_task_id}
project r     | GET    /api/v2/project/{project_id}/status/run/{history_run_id}/units/?dataset_id={dataset_id}&workflowtask_id={workflow_task_id}
project r     | POST   /api/v2/project/{project_id}/status/images/?dataset_id={dataset_id}&workflowtask_id={workflow_task_id} | {}
project r     | GET    /api/v2/project/{project_id}/status/unit-log/?dataset_id={dataset_id}&workflowtask_id={workflow_task_id}&history_run_id={history_run_id}&history_unit_id={history_unit_id}
project r     | POST   /api/v2/project/{project_id}/status/image-log/

user          | GET    /api/v2/task/
contributor   | POST   /api/v2/task/
contributor   | POST   /api/v2/task/collect/pip/
contributor   | POST   /api/v2/task/collect/custom/
contributor   | POST   /api/v2/task/collect/pixi/
user          | GET    /api/v2/task/{task_id}/
shared owner  | PATCH  /api/v2/task/{task_id}/ | {}
contributor   | DELETE /api/v2/task/{task_id}/
owner         | GET    /api/v2/task/{private_task_id}/
owner         | PATCH  /api/v2/task/{private_task_id}/ | {}
contributor   | DELETE /api/v2/task/{private_task_id}/
user          | GET    /api/v2/task-group/
user          | GET    /api/v2/task-group/activity/
owner         | GET    /api/v2/task-group/activity/{task_group_activity_id}/
user          | GET    /api/v2/task-group/{task_group_id}/
shared owner  | PATCH  /api/v2/task-group/{task_group_id}/ | {}
shared owner  | POST   /api/v2/task-group/{task_group_id}/deactivate/
shared owner  | POST   /api/v2/task-group/{task_group_id}/reactivate/
shared owner  | POST   /api/v2/task-group/{task_group_id}/delete/

superuser     | GET    /api/settings/app/
superuser     | GET    /api/settings/database/
superuser     | GET    /api/settings/email/
superuser     | GET    /api/settings/oauth/
superuser     | GET    /admin/v2/resource/
superuser     | POST   /admin/v2/resource/
superuser     | GET    /admin/v2/resource/{resource_id}/
superuser     | PUT    /admin/v2/resource/{resource_id}/
superuser     | DELETE /admin/v2/resource/{resource_id}/
superuser     | GET    /admin/v2/resource/{resource_id}/profile/
superuser     | POST   /admin/v2/resource/{resource_id}/profile/
superuser     | GET    /admin/v2/profile/
superuser     | GET    /admin/v2/profile/{profile_id}/
superuser     | PUT    /admin/v2/profile/{profile_id}/
superuser     | DELETE /admin/v2/profile/{profile_id}/
superuser     | GET    /admin/v2/impersonate/{user_id}/
superuser     | GET    /admin/v2/users-csv/
superuser     | GET    /admin/v2/usage/
data          | GET    /data/files/{data_file}
superuser     | POST   /admin/v2/accounting/ | {}
superuser     | POST   /admin/v2/accounting/slurm/ | {}
superuser     | GET    /admin/v2/project/
superuser     | PATCH  /admin/v2/project/{project_id}/?user_id={user_id}
superuser     | GET    /admin/v2/linkuserproject/
superuser     | POST   /admin/v2/linkuserproject/verify/?guest_user_id={user_id}&project_id={project_id}
superuser     | GET    /admin/v2/job/
superuser     | GET    /admin/v2/job/{job_id}/
superuser     | PATCH  /admin/v2/job/{job_id}/ | {"status": "failed"}
superuser     | GET    /admin/v2/job/{job_id}/stop/
superuser     | GET    /admin/v2/job/{job_id}/download/
superuser     | GET    /admin/v2/job/{job_id}/report.html
superuser     | GET    /admin/v2/task/
superuser     | POST   /admin/v2/task/make-core/ | []
superuser     | POST   /admin/v2/task/make-not-core/ | []
superuser     | GET    /admin/v2/task-group/
superuser     | GET    /admin/v2/task-group/activity/
superuser     | GET    /admin/v2/task-group/{task_group_id}/
superuser     | PATCH  /admin/v2/task-group/{task_group_id}/ | {}
superuser     | POST   /admin/v2/task-group/{task_group_id}/make-core/
superuser     | POST   /admin/v2/task-group/{task_group_id}/make-not-core/
superuser     | POST   /admin/v2/task-group/{task_group_id}/deactivate/
superuser     | POST   /admin/v2/task-group/{task_group_id}/reactivate/
superuser     | POST   /admin/v2/task-group/{task_group_id}/delete/
superuser     | POST   /admin/v2/task-group/{task_group_id}/reset/pip/ | {}
superuser     | POST   /admin/v2/task-group/{task_group_id}/reset/pixi/ | {}
"""  # noqa: E501

# The name of a parameter in a path says nothing about which operation it is.
_PARAMETER = re.compile(r"{\w+}")
_numbers = count(1)


@dataclass(frozen=True)
class Row:
    """An operation, what it is sent, and what each role is answered."""

    method: str
    url: str
    body: Any
    expected: dict[str, str]

    @property
    def operation(self) -> tuple[str, str]:
        return self.method, _PARAMETER.sub("{}", self.url.partition("?")[0])


def _rows() -> Iterator[Row]:
    lines = [line.rsplit(None, len(ROLES)) for line in PATTERNS.splitlines()[2:] if line]
    patterns = {name: dict(zip(ROLES, answers, strict=True)) for name, *answers in lines}
    for line in filter(None, TABLE.splitlines()):
        pattern, request, *body = (part.strip() for part in line.split("|"))
        method, url = request.split()
        yield Row(method, url, json.loads(body[0]) if body else None, patterns[pattern])


ROWS = list(_rows())


@pytest.fixture(scope="module", autouse=True)
async def impatient(app: FastAPI) -> AsyncIterator[None]:
    """Prefect is away in these tests, and is asked but once."""
    once = {"transport": httpx.AsyncHTTPTransport(retries=0)}
    async with PrefectClient(PREFECT_AWAY, httpx_settings=once, server_type=None) as client:
        app.state.services = replace(app.state.services, engine=Engine(client))
        yield


@pytest.fixture(scope="module")
def operations(app: FastAPI) -> set[tuple[str, str]]:
    """Those of the OpenAPI document."""
    return {
        (method.upper(), _PARAMETER.sub("{}", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }


@pytest.fixture(scope="module")
async def people(
    anonymous: httpx.AsyncClient, owner: Any, admin: Any, new_person: Callable[..., Awaitable[Any]]
) -> dict[str, Any]:
    """A client for each role."""
    special = {
        "anonymous": anonymous,
        "unverified": await new_person(is_verified=False),
        "no profile": await new_person(profile_id=None),
        "guest user": await new_person(is_guest=True),
        "owner": owner,
        "superuser": admin,
    }
    return {role: special.get(role) or await new_person() for role in ROLES}


@pytest.fixture(scope="module")
async def new_world(
    people: dict[str, Any],
    resource: Resource,
    profile: Profile,
    sessions: async_sessionmaker[AsyncSession],
    new_person: Callable[..., Awaitable[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Makes a project of the owner with one of everything; what the URLs of the table name."""
    folder = tmp_path_factory.mktemp("job")
    # No role has this user, who is changed and logged out.
    bystander = (await new_person()).user.id
    return partial(_make_world, sessions, people, bystander, resource, profile, folder)


@pytest.fixture(scope="module")
async def world(new_world: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """One that is only looked at."""
    return await new_world()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.operation))
async def test_each_role_is_let_do_what_the_table_says(
    row: Row,
    people: dict[str, Any],
    world: dict[str, Any],
    new_world: Callable[[], Awaitable[dict[str, Any]]],
) -> None:
    answers = {}
    for role, expected in row.expected.items():
        changes = expected == "yes" and row.method != "GET"
        url = row.url.format(**(await new_world() if changes else world))
        request = {} if row.body is None else {"json": row.body}
        status = (await people[role].request(row.method, url, **request)).status_code
        assert status < 500 or status == 503, f"{row.method} {url}: {status}"
        answers[role] = str(status) if status in (401, 403, 404) else "yes"

    assert answers == row.expected


def test_every_operation_has_a_row(operations: set[tuple[str, str]]) -> None:
    assert operations == {row.operation for row in ROWS}


async def test_something_of_another_project_is_not_found_in_this_one(
    owner: Any, dataset: dict[str, Any], workflow: dict[str, Any]
) -> None:
    other = await owner.ok("POST", "/api/v2/project/", json={"name": "an other project"})
    url = f"/api/v2/project/{other['id']}"

    assert (await owner.get(f"{url}/dataset/{dataset['id']}/")).status_code == 404
    assert (await owner.get(f"{url}/workflow/{workflow['id']}/")).status_code == 404


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("unverified", "not verified"),
        ("no profile", "has no profile"),
        ("guest user", "is a guest"),
        ("r", "may not change project"),
        ("stranger", "Project"),
    ],
)
async def test_who_may_not_is_told_why(
    role: str, told: str, people: dict[str, Any], world: dict[str, Any]
) -> None:
    answer = await people[role].post(f"/api/v2/project/{world['project_id']}/star/")

    assert told in answer.json()["detail"]


async def _make_world(
    sessions: async_sessionmaker[AsyncSession],
    people: dict[str, Any],
    user_id: int,
    resource: Resource,
    profile: Profile,
    folder: Path,
) -> dict[str, Any]:
    number = next(_numbers)
    owner_id, email = saved_id(people["owner"].user), people["owner"].user.email
    async with sessions() as session:

        async def saved(row: Any) -> Any:
            session.add(row)
            await session.flush()
            return row

        everyone = (await session.exec(select(UserGroup).where(UserGroup.name == "All"))).one()
        group = await saved(UserGroup(name=f"group {number}"))
        project = await saved(ProjectV2(name=f"world {number}", resource_id=saved_id(resource)))
        session.add_all(_links(people, saved_id(project)))
        package = await saved(_package(f"package {number}", owner_id, resource, everyone.id))
        private = await saved(_package(f"private {number}", owner_id, resource, None))
        [task], [private_task] = package.task_list, private.task_list
        of_project = {"project_id": project.id}
        dataset = await saved(DatasetV2(name="dataset", zarr_dir="/data", **of_project))
        data_file = folder / f"data {number}" / ".zattrs"
        data_file.parent.mkdir()
        data_file.write_text("{}")
        await saved(DatasetV2(name="looked at", zarr_dir=str(data_file.parent), **of_project))
        image = {"zarr_url": "/data/image", "origin": None, "attributes": {}, "types": {}}
        await write_images(session, dataset.id, [image])
        workflow = await saved(WorkflowV2(name="workflow", **of_project))
        workflow_task = await saved(
            WorkflowTaskV2(
                workflow_id=saved_id(workflow), task_id=task.id, order=0, task_type="parallel"
            )
        )
        of_both = {"workflow_id": workflow.id, "dataset_id": dataset.id, **of_project}
        job = await saved(_job(email, folder, of_both))
        run = await saved(
            HistoryRun(
                dataset_id=dataset.id,
                workflowtask_id=workflow_task.id,
                workflowtask_dump={"order": 0, "task": {"name": task.name}},
                job_id=job.id,
                status="done",
                num_available_images=1,
            )
        )
        unit = await saved(HistoryUnit(history_run_id=run.id, status="done"))
        schedule = await saved(
            Schedule(
                user_id=owner_id,
                deployment_name=f"schedule {number}",
                deployment_id=uuid4(),
                **of_both,
            )
        )
        activity = await saved(
            TaskGroupActivityV2(
                user_id=owner_id,
                taskgroupv2_id=package.id,
                pkg_name=package.pkg_name,
                version="1",
                status="OK",
                action="collect",
            )
        )
        template = await saved(
            WorkflowTemplate(
                user_id=owner_id,
                user_group_id=everyone.id,
                name=f"template {number}",
                version=1,
                fractal_server_version="1",
                data={"name": "workflow", "description": None, "task_list": []},
            )
        )
        await session.commit()
    return {
        "client_name": "nobody",
        "user_id": user_id,
        "email_of_stranger": people["stranger"].user.email,
        "email_of_r": people["r"].user.email,
        "group_id": group.id,
        "resource_id": resource.id,
        "profile_id": profile.id,
        "task_id": task.id,
        "private_task_id": private_task.id,
        "task_group_id": package.id,
        "task_group_activity_id": activity.id,
        "workflow_task_id": workflow_task.id,
        "template_id": template.id,
        "job_id": job.id,
        "schedule_id": schedule.id,
        "history_run_id": run.id,
        "history_unit_id": unit.id,
        "data_file": str(data_file).lstrip("/"),
        **of_both,
    }


def _links(people: dict[str, Any], project_id: int) -> Iterator[LinkUserProjectV2]:
    for role, person in people.items():
        if role not in ("anonymous", "stranger", "superuser"):
            yield LinkUserProjectV2(
                project_id=project_id,
                user_id=person.user.id,
                is_owner=role == "owner",
                is_verified=role != "invited",
                permissions=role if role in ("r", "rw") else "rwx",
            )


def _package(name: str, user_id: int, resource: Resource, group_id: int | None) -> TaskGroupV2:
    task = TaskV2(name=name, type="parallel", command_parallel="true", version="1")
    return TaskGroupV2(
        user_id=user_id,
        user_group_id=group_id,
        resource_id=saved_id(resource),
        origin="other",
        pkg_name=name,
        version="1",
        task_list=[task],
    )


def _job(email: str, folder: Path, of: dict[str, Any]) -> JobV2:
    """One that has ended."""
    dumped = {"id": 1, "name": "dumped", "timestamp_created": ""}
    return JobV2(
        user_email=email,
        project_dump=dumped,
        dataset_dump={**dumped, "project_id": 1, "zarr_dir": "/data"},
        workflow_dump={**dumped, "project_id": 1},
        fractal_server_version="1",
        working_dir=str(folder),
        first_task_index=0,
        last_task_index=0,
        status="done",
        **of,
    )
