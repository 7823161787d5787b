"""Real tasks on real images: with warm units, with cold ones, and by `fractal-server`.

    python -m benchmarks.real_tasks [--images 16 96] [--python python3.12] [--data-dir DIR]
        [--without-bytecode] [--without-cold]

The tasks of `fractal-tasks-core` that the demo uses (projection, threshold segmentation, features)
run on plates of so many images, cut from the image that `ngio` ships: each as a job of its own,
from its submission until the API says that it is done, as many units at once as there are cores.
The servers take turns.
All use the same task environment, which is compiled to bytecode, and must write the same arrays.
`fractal-server` needs Python 3.12 or newer; without one (`--python ''`), only this platform is
measured. With `--data-dir`, the task environment of an earlier time is used again.
`--without-bytecode` removes the bytecode of the task environment first, for all sides.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.own_stack import own_stack
from deployments.demo import run as demo
from deployments.demo.client import FractalClient
from deployments.stack import Stack
from tests.differential.reference import ADMIN, PASSWORD, running_reference

CORES = len(os.sched_getaffinity(0))
MAKE_PLATE = Path(demo.__file__).with_name("plate.py")
STEPS = json.loads(Path(demo.__file__).with_name("workflow.json").read_text())
OFF = {"warm_units": "off"}
# How many times faster than the reference the segmentation is to be.
GOALS = {16: 2.7, 96: 3.0}
GOALS_WITHOUT_BYTECODE = {96: 6.0}
SEGMENTATION = "Threshold Segmentation"
HASHES = """
import hashlib, json, sys
from pathlib import Path
import zarr

root, found = Path(sys.argv[1]), {}
for meta in sorted([*root.rglob(".zarray"), *root.rglob("zarr.json")]):
    node = zarr.open(meta.parent, mode="r")
    if isinstance(node, zarr.Array):
        digest = hashlib.sha256(node[...].tobytes()).hexdigest()
        found[str(meta.parent.relative_to(root))] = digest
print(json.dumps(found))
"""


@dataclass
class Side:
    """A server, the folder of its datasets, its tasks by name, and how their units run."""

    name: str
    client: FractalClient
    folder: Path
    tasks: dict[str, int]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Seconds of the job of each task, and a hash of each array that there is in the end."""

    seconds: dict[str, float]
    arrays: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[16, 96])
    parser.add_argument("--python", default=None)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--without-bytecode", action="store_true")
    parser.add_argument("--without-cold", action="store_true")
    options = parser.parse_args()
    if options.without_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with contextlib.ExitStack() as stack_of_all:
        stack = stack_of_all.enter_context(own_stack(options.data_dir))
        group, sides = ours(stack)
        python = f"{group['venv_path']}/bin/python"
        if options.without_bytecode:
            remove_bytecode(Path(group["venv_path"]))
        else:
            compile_to_bytecode(python, group["venv_path"])
        if options.without_cold:
            sides.pop()
        if options.python != "":
            temporary = tempfile.TemporaryDirectory(prefix="fractal-benchmark-")
            folder = Path(stack_of_all.enter_context(temporary), "reference")
            reference = running_reference(stack.postgres.fractal, folder, options.python)
            at = stack_of_all.enter_context(reference)
            client = FractalClient(at.api_url, ADMIN, PASSWORD)
            sides.append(the_reference(client, at.folder / "projects", group))
        numbers = count(1)
        for images in options.images:
            found = measure(sides, python, images, next(numbers))
            report(images, found, GOALS_WITHOUT_BYTECODE if options.without_bytecode else GOALS)


def ours(stack: Stack) -> tuple[dict[str, Any], list[Side]]:
    """The task group, and this platform with warm and with cold units."""
    client = FractalClient(stack.api_url, ADMIN, PASSWORD)
    known = client.task_group(demo.PACKAGE, demo.VERSION)
    group = known or client.collect(demo.PACKAGE, demo.VERSION)
    tasks = {task["name"]: task["id"] for task in group["task_list"]}
    folder = Path(client.get("/auth/current-user/")["project_dirs"][0])
    return group, [
        Side("warm", client, folder, tasks),
        Side("cold", client, folder, tasks, OFF),
    ]


def compile_to_bytecode(python: str, environment: str) -> None:
    """Compile what can be: some packages have files with errors, for their tests."""
    words = [python, "-m", "compileall", "-qq", "-j", "0", environment]
    subprocess.run(words, check=False)


def remove_bytecode(environment: Path) -> None:
    for folder in list(environment.rglob("__pycache__")):
        shutil.rmtree(folder)


def the_reference(client: FractalClient, folder: Path, group: dict[str, Any]) -> Side:
    """The reference, with tasks that execute the same commands."""
    names = {step["task_name"] for step in STEPS}
    told = ("name", "type", "command_parallel", "command_non_parallel", "input_types")
    tasks = {}
    for task in group["task_list"]:
        if task["name"] in names:
            body = {key: task[key] for key in (*told, "output_types") if task[key]}
            made = client.post("/api/v2/task/", {**body, "version": "1"})
            tasks[task["name"]] = made["id"]
    return Side("reference", client, folder, tasks, {"parallel_tasks_per_job": CORES})


def measure(sides: list[Side], python: str, images: int, number: int) -> dict[str, Measured]:
    """Run the job of each task, one after the other, on a plate of each side; they take turns."""
    plates = {side.name: Plate(side, python, images, number) for side in sides}
    seconds: dict[str, dict[str, float]] = {side.name: {} for side in sides}
    for index, step in enumerate(STEPS):
        for name, plate in plates.items():
            seconds[name][step["task_name"]] = plate.run_step(index)
    return {name: Measured(seconds[name], plate.arrays()) for name, plate in plates.items()}


class Plate:
    """A plate of a side, and a workflow of all tasks for it."""

    def __init__(self, side: Side, python: str, images: int, number: int) -> None:
        self._client = client = side.client
        self._python = python
        self._folder = side.folder / f"benchmark-{number}-{side.name}-{os.getpid()}"
        plate = json.loads(run(python, MAKE_PLATE, "--output", self._folder, "--wells", images))
        project = client.post("/api/v2/project/", {"name": self._folder.name})
        self._base = base = f"/api/v2/project/{project['id']}"
        body = {"name": "plate", "zarr_dir": str(self._folder), "images": plate}
        dataset = client.post(f"{base}/dataset/import/", body)
        workflow = client.post(f"{base}/workflow/", {"name": "of the benchmark"})
        tasks = [workflow_task(side, step) for step in STEPS]
        client.post(f"{base}/workflow/{workflow['id']}/wftask/", tasks)
        self._ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}

    def run_step(self, index: int) -> float:
        """Seconds of the job of a task."""
        request = {
            "first_task_index": index,
            "last_task_index": index,
            "type_filters": {"is_3D": index == 0},
        }
        began = time.monotonic()
        job = self._client.post(f"{self._base}/job/submit/", request, **self._ids)
        while job["status"] == "submitted":
            time.sleep(0.1)
            job = self._client.get(f"{self._base}/job/{job['id']}/")
        if job["status"] != "done":
            raise SystemExit(f"{self._folder}, {STEPS[index]['task_name']}: {job['log']}")
        return time.monotonic() - began

    def arrays(self) -> dict[str, str]:
        """A hash of each array that there is."""
        found: dict[str, str] = json.loads(run(self._python, "-c", HASHES, self._folder))
        return found


def workflow_task(side: Side, step: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in step.items() if name != "task_name" and value}
    return {"task_id": side.tasks[step["task_name"]], **given, "meta_parallel": side.meta}


def run(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def report(images: int, found: dict[str, Measured], goals: dict[int, float]) -> None:
    names = list(found)
    print(f"\n{images} images, {CORES} units at once; seconds from submission to done")
    print(f"{'':26}" + "".join(f"{name:>12}" for name in names))
    for step in STEPS:
        task = step["task_name"]
        line = "".join(f"{found[name].seconds[task]:12.1f}" for name in names)
        goal = f"   goal {goals[images]}" if task == SEGMENTATION and images in goals else ""
        last = found[names[-1]].seconds[task] / found["warm"].seconds[task]
        print(f"{task:26}{line}   {names[-1]} / warm: {last:.1f}{goal}")
    distinct = {json.dumps(each.arrays, sort_keys=True) for each in found.values()}
    number = len(found["warm"].arrays)
    alike = "the same everywhere" if len(distinct) == 1 else "NOT THE SAME"
    print(f"{number} arrays, {alike}", flush=True)
    if len(distinct) != 1 or not number:
        raise SystemExit("The outputs differ.")


if __name__ == "__main__":
    main()
