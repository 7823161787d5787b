"""The REST calls of the demo, as any client would make them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx

from fractal_models.errors import FractalError

_TIMEOUT_SECONDS = 60.0


class DemoError(FractalError):
    """The demo failed; the message says at which step."""


class AwayError(DemoError):
    """The REST API does not answer, or cannot answer at the moment."""


class FractalClient:
    """A logged-in user of the REST API."""

    def __init__(self, api_url: str, email: str, password: str) -> None:
        self._http = httpx.Client(base_url=api_url, timeout=_TIMEOUT_SECONDS)
        token = self._call(
            "POST", "/auth/token/login/", data={"username": email, "password": password}
        )
        # The header by which the user is known.
        self.authorization = {"Authorization": f"Bearer {token['access_token']}"}
        self._http.headers.update(self.authorization)

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._call("POST", path, json=body, params=query)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def task_group(self, pkg_name: str, version: str) -> dict[str, Any] | None:
        """The active task group of a package, with its tasks; None if it was never collected."""
        for _, groups in self.get("/api/v2/task-group/", only_active=True):
            for group in groups:
                if (group["pkg_name"], group["version"]) == (pkg_name, version):
                    found: dict[str, Any] = self.get(f"/api/v2/task-group/{group['id']}/")
                    return found
        return None

    def collect(self, pkg_name: str, version: str) -> dict[str, Any]:
        """Collect a package from the package index. Returns its task group.

        Raises:
            DemoError: the collection failed.
        """
        form = {"package": pkg_name, "package_version": version}
        activity = self._call("POST", "/api/v2/task/collect/pip/", data=form)
        while activity["status"] in ("pending", "ongoing"):
            time.sleep(0.5)
            activity = self.get(f"/api/v2/task-group/activity/{activity['id']}/")
        if activity["status"] != "OK":
            raise DemoError(f"{pkg_name} could not be collected:\n{activity['log']}")
        group: dict[str, Any] = self.get(f"/api/v2/task-group/{activity['taskgroupv2_id']}/")
        return group

    def runs(self, job: dict[str, Any], workflow_task_id: int) -> list[dict[str, Any]]:
        """The HistoryRuns of a workflow task on the job's dataset."""
        runs: list[dict[str, Any]] = self.get(
            f"/api/v2/project/{job['project_id']}/status/run/",
            dataset_id=job["dataset_id"],
            workflowtask_id=workflow_task_id,
        )
        return runs

    def units(self, job: dict[str, Any], workflow_task_id: int, run_id: int) -> Iterator[Any]:
        """The units of a HistoryRun, read page by page."""
        page, seen, total = 1, 0, 1
        while seen < total:
            answer = self.get(
                f"/api/v2/project/{job['project_id']}/status/run/{run_id}/units/",
                dataset_id=job["dataset_id"],
                workflowtask_id=workflow_task_id,
                page=page,
                page_size=1000,
            )
            yield from answer["items"]
            page, seen, total = page + 1, seen + len(answer["items"]), answer["total_count"]

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise AwayError(f"{method} {path} was not answered: {error!r}") from error
        if response.is_error:
            raise (AwayError if response.is_server_error else DemoError)(
                f"{method} {path} was answered with {response.status_code}: {response.text}"
            )
        return response.json() if response.content else None
