"""What requests are about: something of each kind, the same on both servers."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.differential.servers import DIRECTORY, Id, Pair, Request

PASSWORD = "a good password"
_WAIT_SECONDS = 60

# The kinds of things that parameters and fields name.
KINDS = {
    "project_id": "project",
    "dataset_id": "dataset",
    "workflow_id": "workflow",
    "workflow_task_id": "wftask",
    "workflowtask_id": "wftask",
    "task_id": "task",
    "task_group_id": "task_group",
    "taskgroupv2_id": "task_group",
    "task_group_activity_id": "activity",
    "job_id": "job",
    "history_run_id": "history_run",
    "history_unit_id": "history_unit",
    "template_id": "template",
    "group_id": "group",
    "user_group_id": "group",
    "user_id": "user",
    "guest_user_id": "user",
    "resource_id": "resource",
    "profile_id": "profile",
}

_NEEDS = {
    "dataset": ["project"],
    "workflow": ["project"],
    "wftask": ["workflow", "task"],
    "task_group": ["task"],
    "template": ["wftask"],
    "job": ["wftask", "dataset"],
    "history_run": ["job"],
    "history_unit": ["history_run"],
    "profile": ["resource"],
    "guest": ["project", "stranger"],
}

# How what is there can be looked at, to see what a request has done.
_LOOKS = {
    "project": "/api/v2/project/{project_id}/",
    "dataset": "/api/v2/project/{project_id}/dataset/{dataset_id}/export/",
    "workflow": "/api/v2/project/{project_id}/workflow/{workflow_id}/",
    "task": "/api/v2/task/{task_id}/",
    "task_group": "/api/v2/task-group/{task_group_id}/",
    "template": "/api/v2/workflow-template/{template_id}/",
    "job": "/api/v2/project/{project_id}/job/{job_id}/",
    "group": "/auth/group/{group_id}/",
    "user": "/auth/users/{user_id}/",
    "resource": "/admin/v2/resource/{resource_id}/",
    "profile": "/admin/v2/profile/{profile_id}/",
    "guest": "/api/v2/project/{project_id}/guest/",
}
ADMINS = ("group", "user", "resource", "profile")


def images(zarr_dir: str) -> list[dict[str, Any]]:
    return [
        {
            "zarr_url": f"{zarr_dir}/plate.zarr/{well}/{n}",
            "attributes": {"well": well, "n": n, "plate": "plate.zarr"},
            "types": {"is_3D": n % 2 == 0, "raw": True} if n else {"raw": True},
        }
        for n, well in enumerate(("A1", "A1", "B2", "C3"))
    ]


def resource(name: str) -> dict[str, Any]:
    return {
        "type": "local",
        "name": name,
        "jobs_local_dir": f"{DIRECTORY}/jobs",
        "tasks_local_dir": f"{DIRECTORY}/tasks",
        "jobs_runner_config": {"parallel_tasks_per_job": 2},
        "tasks_python_config": {"default_version": "3.12", "versions": {"3.12": "/usr/bin/python"}},
        "tasks_pixi_config": {},
        "jobs_poll_interval": 5,
    }


class World:
    """Things of the people "owner" and "stranger", made as they are needed.

    After something happened to them that differs between the servers, or in doubt, `forget` them.
    """

    def __init__(self, pair: Pair, prefix: str) -> None:
        self.pair = pair
        self._names = (f"{prefix} {n}" for n in count(1))
        self.made: set[str] = set()
        self.emails: dict[str, str] = {}

    def name(self) -> str:
        return next(self._names)

    def admit(self, person: str) -> None:
        """A user who may run jobs, with the default profile of each server."""
        email = self._register(f"person {person}")
        owner = Id(f"person {person}")
        for server in self.pair.servers:
            me = server.http.get(
                "/auth/current-user/", headers={"Authorization": f"Bearer {server.tokens['admin']}"}
            )
            server.ids["default profile"] = me.json()["profile_id"]
        body = {"profile_id": Id("default profile"), "is_verified": True}
        path, parameters = "/auth/users/{user_id}/", {"user_id": owner}
        self.pair.make(Request("admin", "PATCH", path, parameters, body=body))
        self.pair.log_in(person, [(email, PASSWORD)] * 2)
        self.emails[person] = email

    def forget(self) -> None:
        self.made.clear()

    def need(self, kind: str) -> None:
        """Have something of this kind."""
        if kind in self.made:
            return
        for other in _NEEDS.get(kind, []):
            self.need(other)
        getattr(self, f"_make_{kind}")()
        self.made.add(kind)

    def looks(self) -> Iterator[Request]:
        """Requests for what is there."""
        for kind, path in _LOOKS.items():
            if kind in self.made:
                names = [name for name in KINDS if f"{{{name}}}" in path]
                parameters = {name: Id(KINDS[name]) for name in names}
                yield Request("admin" if kind in ADMINS else "owner", "GET", path, parameters)

    def _post(
        self, kind: str, path: str, body: Any, pick: Any = ("id",), **query: Any
    ) -> list[Any]:
        person = "admin" if kind in ADMINS else "owner"
        parameters = {name: Id(KINDS[name]) for name in KINDS if f"{{{name}}}" in path}
        return self.pair.make(Request(person, "POST", path, parameters, query, body), kind, pick)

    def _make_project(self) -> None:
        self._post("project", "/api/v2/project/", {"name": self.name()})
        for kind in ("dataset", "workflow", "wftask", "job", "history_run", "history_unit"):
            self.made.discard(kind)

    def _make_dataset(self) -> None:
        zarr_dir = f"{DIRECTORY}/zarrs"
        body = {"name": self.name(), "zarr_dir": zarr_dir, "images": images(zarr_dir)}
        self._post("dataset", "/api/v2/project/{project_id}/dataset/import/", body)

    def _make_workflow(self) -> None:
        body = {"name": self.name(), "description": "A workflow"}
        self._post("workflow", "/api/v2/project/{project_id}/workflow/", body)

    def _make_task(self) -> None:
        body = {
            "name": self.name(),
            "version": "1.0",
            "command_parallel": "true",
            "command_non_parallel": "true",
            "input_types": {"raw": True},
            "output_types": {"done": True},
            "meta_parallel": {"cpus_per_task": 1},
            "category": "Segmentation",
            "modality": "HCS",
            "authors": "Somebody",
            "tags": ["a", "b"],
            "type": "compound",
        }
        self._post("task", "/api/v2/task/", body)

    def _make_task_group(self) -> None:
        path, parameters = "/api/v2/task/{task_id}/", {"task_id": Id("task")}
        self.pair.make(Request("owner", "GET", path, parameters), "task_group", ("taskgroupv2_id",))

    def _make_wftask(self) -> None:
        path = "/api/v2/project/{project_id}/workflow/{workflow_id}/wftask/"
        body = [{"task_id": Id("task"), "args_parallel": {"a": 1}, "meta_parallel": {"b": 2}}]
        self._post("wftask", path, body, (0, "id"))

    def _make_template(self) -> None:
        body = {"name": self.name(), "version": 1, "description": "A template"}
        path = "/api/v2/workflow-template/"
        self._post("template", path, body, workflow_id=Id("workflow"))

    def _make_job(self) -> None:
        query = {"workflow_id": Id("workflow"), "dataset_id": Id("dataset")}
        self._post("job", "/api/v2/project/{project_id}/job/submit/", {}, **query)
        self._wait("/api/v2/project/{project_id}/job/{job_id}/", ("submitted",))

    def _make_history_run(self) -> None:
        self._get_history("history_run", "/api/v2/project/{project_id}/status/run/", (0, "id"))

    def _make_history_unit(self) -> None:
        path = "/api/v2/project/{project_id}/status/run/{history_run_id}/units/"
        self._get_history("history_unit", path, ("items", 0, "id"))

    def _get_history(self, kind: str, path: str, pick: Any) -> None:
        query = {"workflowtask_id": Id("wftask"), "dataset_id": Id("dataset")}
        parameters = {name: Id(KINDS[name]) for name in KINDS if f"{{{name}}}" in path}
        self.pair.make(Request("owner", "GET", path, parameters, query), kind, pick)

    def _make_activity(self) -> None:
        body = {"name": self.name(), "version": "1.0", "command_parallel": "true"}
        self._post("task of the activity", "/api/v2/task/", body, ("taskgroupv2_id",))
        path = "/api/v2/task-group/{task_group}/deactivate/"
        parameters = {"task_group": Id("task of the activity")}
        self.pair.make(Request("owner", "POST", path, parameters), "activity")
        self._wait("/api/v2/task-group/activity/{task_group_activity_id}/", ("pending", "ongoing"))

    def _make_group(self) -> None:
        self._post("group", "/auth/group/", {"name": self.name()})

    def _make_user(self) -> None:
        self.emails["user"] = self._register("user")

    def _make_resource(self) -> None:
        self._post("resource", "/admin/v2/resource/", resource(self.name()))

    def _make_profile(self) -> None:
        body = {"resource_type": "local", "name": self.name()}
        self._post("profile", "/admin/v2/resource/{resource_id}/profile/", body)

    def _make_stranger(self) -> None:
        pass  # the person is admitted once for all

    def _make_guest(self) -> None:
        self.pair.make(
            Request(
                "owner",
                "POST",
                "/api/v2/project/{project_id}/guest/",
                {"project_id": Id("project")},
                {"email": self.emails["stranger"]},
                {"permissions": "rw"},
            )
        )

    def _register(self, kind: str) -> str:
        email = f"{self.name().replace(' ', '.')}@example.org"
        body = {"email": email, "password": PASSWORD, "project_dirs": [DIRECTORY]}
        self.pair.make(Request("admin", "POST", "/auth/register/", body=body), kind)
        return email

    def _wait(self, path: str, while_: tuple[str, ...]) -> None:
        parameters = {name: Id(KINDS[name]) for name in KINDS if f"{{{name}}}" in path}
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            answers = self.pair.make(Request("owner", "GET", path, parameters))
            if all(answer["status"] not in while_ for answer in answers):
                return
            time.sleep(0.2)
        raise RuntimeError(f"{path} does not end: {answers}")
