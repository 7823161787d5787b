"""Something of everything, for tests that ask all operations of the API."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.app import create_app
from api.auth import login_tokens
from deployments import http_server
from fractal_models.database import saved_id
from fractal_models.groups import add_to_group, default_group
from fractal_models.settings import Settings
from fractal_models.tables import (
    HistoryRun,
    HistoryUnit,
    Profile,
    Resource,
    TaskGroupActivityV2,
    UserGroup,
    UserOAuth,
)

# Ids begin here, so that a number that was made up is nobody's.
FIRST_ID = 1_000_000_000
_PATHS = ("_dir", "_path", "zarr_url")
# Some parameters have several names.
OTHER_NAMES = {
    "workflow_task_id": ["workflowtask_id", "reordered_workflowtask_id"],
    "task_group_id": ["taskgroupv2_id"],
    "group_id": ["user_group_id"],
    "user_id": ["guest_user_id", "owner_id", "project_owner_id"],
}


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of a running API."""
    config = uvicorn.Config(
        create_app(settings), port=0, log_level="critical", **http_server.OPTIONS
    )
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = Thread(target=server.run, args=([socket],))
    thread.start()
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@dataclass
class World:
    """A user who is logged in, and the ids of what is theirs, by the names of parameters.

    `touched`: a request could have changed it.
    """

    headers: dict[str, str]
    folder: Path
    ids: dict[str, int]
    urls: list[str]
    touched: bool = False

    def is_whole(self, client: httpx.Client) -> bool:
        """Whether no request has taken something of it away."""
        if self.touched:
            answers = [client.get(url, headers=self.headers) for url in self.urls]
            self.touched = any(answer.status_code != 200 for answer in answers)
        return not self.touched

    def aimed(self, value: Any, name: str = "") -> Any:
        """Part of a request, with real ids for most that were made up, and paths in the folder."""
        if isinstance(value, dict):
            return {key: self.aimed(each, str(key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.aimed(each, name.removesuffix("s")) for each in value]
        if isinstance(value, str) and (value[:1] in ("/", "~") or name.endswith(_PATHS)):
            return f"{self.folder}/{value}"
        if isinstance(value, int) and not isinstance(value, bool) and value % 8 != 7:
            return self.ids.get(name, value)
        return value


async def raise_ids(session: AsyncSession) -> None:
    """Have the ids of all tables begin at the first one."""
    sequences = await session.execute(text("SELECT sequencename FROM pg_sequences"))
    for (name,) in sequences.all():
        await session.execute(text(f"ALTER SEQUENCE {name} RESTART WITH {FIRST_ID}"))
    await session.commit()


async def make_profile(session: AsyncSession, folder: Path) -> Profile:
    """A profile of a local resource of its own (not committed)."""
    resource = Resource(
        type="local",
        name=uuid4().hex,
        jobs_local_dir=str(folder / "jobs"),
        jobs_poll_interval=0,
        tasks_local_dir=str(folder / "tasks"),
        tasks_python_config={"default_version": "3.11", "versions": {"3.11": sys.executable}},
    )
    session.add(resource)
    await session.flush()
    profile = Profile(
        resource_id=saved_id(resource), resource_type="local", name=f"of {resource.name}"
    )
    session.add(profile)
    await session.flush()
    return profile


async def make_world(
    client: httpx.Client,
    session: AsyncSession,
    settings: Settings,
    home: Profile,
    folder: Path,
    **fields: Any,
) -> World:
    """A new user with these fields and something of everything that is theirs; and a user, a
    resource and a profile that they have nothing to do with."""
    profile = await make_profile(session, folder)
    me, other = (
        UserOAuth(
            email=f"{uuid4().hex}@example.org",
            hashed_password="not a hash",
            is_verified=True,
            profile_id=profile_id,
            project_dirs=[str(folder)],
            **more,
        )
        for profile_id, more in ((home.id, fields), (profile.id, {}))
    )
    session.add_all([me, other])
    await session.flush()
    everybody = await default_group(session, settings.default_group)
    for user in (me, other):
        await add_to_group(session, saved_id(user), saved_id(everybody))
    await session.commit()
    headers = {"Authorization": f"Bearer {await login_tokens(settings).write_token(me)}"}

    def post(url: str, **request: Any) -> Any:
        answer = client.post(url, headers=headers, **request)
        assert answer.is_success, f"{url}: {answer.text}"
        return answer.json() if answer.content else None

    project = post("/api/v2/project/", json={"name": "project"})
    base = f"/api/v2/project/{project['id']}"
    dataset = post(f"{base}/dataset/", json={"name": "dataset"})
    image = {"zarr_url": f"{dataset['zarr_dir']}/image.zarr", "attributes": {"well": "A1"}}
    post(f"{base}/dataset/{dataset['id']}/images/", json=image)
    workflow = post(f"{base}/workflow/", json={"name": "workflow"})
    described = {"name": uuid4().hex, "version": "1", "command_parallel": "true"}
    task = post("/api/v2/task/", json=described)
    tasks = f"{base}/workflow/{workflow['id']}/wftask/"
    [workflow_task] = post(tasks, json=[{"task_id": task["id"]}])
    both = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    daily = {**both, "when": {"cron": "0 0 * * *"}, "active": False}
    schedule = post(f"{base}/schedule/", json=daily)
    job = post(f"{base}/job/submit/", params=both, json={})
    run = HistoryRun(
        dataset_id=dataset["id"],
        workflowtask_id=workflow_task["id"],
        job_id=job["id"],
        task_id=task["id"],
        status="done",
        num_available_images=1,
    )
    activity = TaskGroupActivityV2(
        user_id=saved_id(me),
        taskgroupv2_id=task["taskgroupv2_id"],
        pkg_name="task",
        version="1",
        status="OK",
        action="collect",
    )
    group = UserGroup(name=uuid4().hex)
    session.add_all([run, activity, group])
    await session.flush()
    unit = HistoryUnit(
        history_run_id=saved_id(run),
        status="done",
        zarr_urls=[image["zarr_url"]],
        logfile="/nothing",
    )
    session.add(unit)
    await add_to_group(session, saved_id(me), saved_id(group))
    await session.commit()
    ids = {
        "project_id": project["id"],
        "dataset_id": dataset["id"],
        "workflow_id": workflow["id"],
        "workflow_task_id": workflow_task["id"],
        "task_id": task["id"],
        "task_group_id": task["taskgroupv2_id"],
        "task_group_activity_id": saved_id(activity),
        "job_id": job["id"],
        "schedule_id": schedule["id"],
        "history_run_id": saved_id(run),
        "history_unit_id": saved_id(unit),
        "user_id": saved_id(other),
        "group_id": saved_id(group),
        "profile_id": saved_id(profile),
        "resource_id": profile.resource_id,
    }
    for name, as_well in OTHER_NAMES.items():
        ids |= dict.fromkeys(as_well, ids[name])
    urls = [
        f"{tasks}{workflow_task['id']}/",
        f"{base}/dataset/{dataset['id']}/",
        f"{base}/job/{job['id']}/",
        f"/api/v2/task/{task['id']}/",
        "/auth/current-user/profile-info/",
    ]
    if me.is_superuser:
        urls += [f"/auth/users/{other.id}/", f"/admin/v2/profile/{profile.id}/"]
        urls += [f"/auth/group/{group.id}/"]
    return World(headers, folder, ids, urls)
