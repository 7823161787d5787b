"""One server as the stage of workflow cases: what a case leaves there."""

import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.differential.servers import DIRECTORY, Answer, Request, Server

ZARR_DIR = f"{DIRECTORY}/zarrs"
_COMMAND = f"{sys.executable} -I -S {Path(__file__).with_name('task.py')}"
_WAIT_SECONDS = 240

_IN_AND_OUT: list[tuple[dict[str, bool], dict[str, bool]]] = [
    ({}, {}),
    ({}, {"a": True}),
    ({"a": True}, {"a": False}),
    ({"b": False}, {"b": True, "a": True}),
]
_ALL = ["parallel", "non_parallel", "compound", "converter_non_parallel", "converter_compound"]
# The types of the tasks of a stage; converters have no input types.
TYPES = [
    type_
    for type_ in _ALL
    for takes, _ in _IN_AND_OUT
    if not (takes and type_.startswith("converter"))
]
_TYPES_OF_IMAGES = [
    (takes, gives)
    for type_ in _ALL
    for takes, gives in _IN_AND_OUT
    if not (takes and type_.startswith("converter"))
]


class Stage:
    """Plays cases as the owner."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._names = (f"{prefix} {n}" for n in count(1))
        self._project = self._ok("POST", "/api/v2/project/", {"name": next(self._names)})["id"]
        self._tasks = [
            self._task(type_, takes, gives)
            for type_, (takes, gives) in zip(TYPES, _TYPES_OF_IMAGES, strict=True)
        ]

    def play(self, case: Any) -> Any:
        """What the submissions of a case are answered, and what they leave."""
        base = f"/api/v2/project/{self._project}"
        images = {"name": next(self._names), "zarr_dir": ZARR_DIR, "images": case.images}
        dataset = self._ok("POST", f"{base}/dataset/import/", images)["id"]
        workflow = self._ok("POST", f"{base}/workflow/", {"name": next(self._names)})["id"]
        entries = [
            {
                "task_id": self._tasks[task.task],
                "type_filters": task.type_filters,
                **{phase: getattr(task, phase) for phase in _phases(TYPES[task.task])},
            }
            for task in case.tasks
        ]
        answer = self._ask("POST", f"{base}/workflow/{workflow}/wftask/", entries)
        if not answer.ok:
            return [{"refused": answer.status}]
        made = [each["id"] for each in answer.body]
        query = {"workflow_id": workflow, "dataset_id": dataset}
        seen: list[Any] = []
        for submission in case.submissions:
            answer = self._ask("POST", f"{base}/job/submit/", submission, query)
            if not answer.ok:
                seen.append({"refused": answer.status})
                continue
            self._wait(f"{base}/job/{answer.body['id']}/")
            seen.append(self._state(base, answer.body["id"], query, made))
        return seen

    def _state(self, base: str, job: int, query: dict[str, int], entries: list[int]) -> Any:
        """What there is to be seen when a job has ended."""
        dataset = query["dataset_id"]
        ended = self._ok("GET", f"{base}/job/{job}/")
        images = self._ok("GET", f"{base}/dataset/{dataset}/export/")["images"]
        latest = self._ok("GET", f"{base}/latest-job/", query=query)
        listed = self._ok("POST", f"{base}/dataset/{dataset}/images/query/", {})
        return {
            "job": ended["status"],
            "log": _beginning(ended),
            "images": {each["zarr_url"]: each for each in images},
            "attributes": {
                key: sorted(map(repr, each)) for key, each in listed["attributes"].items()
            },
            "types": sorted(listed["types"]),
            "latest": [latest["task_statuses"].get(str(each)) for each in entries],
            "tasks": [self._task_state(base, dataset, each) for each in entries],
        }

    def _task_state(self, base: str, dataset: int, entry: int) -> Any:
        query = {"dataset_id": dataset, "workflowtask_id": entry}
        runs = self._ok("GET", f"{base}/status/run/", query=query)
        items = self._ok("POST", f"{base}/status/images/", {}, query=query)["items"]
        return {
            "runs": [
                {
                    **{key: value for key, value in run.items() if key.startswith("num_")},
                    "units": self._units(base, run["id"], query),
                }
                for run in runs
            ],
            "images": {each["zarr_url"]: each for each in items},
        }

    def _units(self, base: str, run: int, query: dict[str, int]) -> Any:
        units = self._ok("GET", f"{base}/status/run/{run}/units/", query=query)["items"]
        return sorted(
            [each["status"], sorted(each["zarr_urls"]), str(each.get("has_warnings"))]
            for each in units
        )

    def _task(self, type_: str, takes: dict[str, bool], gives: dict[str, bool]) -> int:
        body = {
            "name": next(self._names),
            "version": "1",
            "type": type_,
            "input_types": takes,
            "output_types": gives,
        }
        for phase in _phases(type_):
            body[phase.replace("args", "command")] = _COMMAND
        made: int = self._ok("POST", "/api/v2/task/", body)["id"]
        return made

    def _wait(self, path: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._ok("GET", path)["status"] == "submitted":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._server.name}: {path} does not end")
            time.sleep(0.3)

    def _ok(self, method: str, path: str, body: Any = None, query: Any = None) -> Any:
        answer = self._ask(method, path, body, query)
        if not answer.ok:
            raise RuntimeError(f"{self._server.name} refused {method} {path} {body}: {answer}")
        return answer.body

    def _ask(self, method: str, path: str, body: Any = None, query: Any = None) -> Answer:
        return self._server.ask(Request("owner", method, path, {}, query or {}, body))


def _phases(type_: str) -> list[str]:
    """The arguments that a task of this type takes."""
    if type_ == "parallel":
        return ["args_parallel"]
    if type_.endswith("compound"):
        return ["args_non_parallel", "args_parallel"]
    return ["args_non_parallel"]


def _beginning(job: dict[str, Any]) -> str:
    """The word that clients look for at the beginning of a log."""
    words = " ".join((job["log"] or "").split()[:2])
    return words if words in ("TASK ERROR", "JOB ERROR", "UNKNOWN ERROR") else "no error"
