"""A plan names what is wrong with a submission before anything starts, and changes nothing."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.process.accounts import Account
from fractal_models.database import saved_id
from fractal_models.tables import HistoryRun, Profile, Resource, TaskGroupV2
from tests.api.history_rows import write_done_units
from tests.os_user import PYTHON
from tests.people import Person

_numbers = count(1)

FOLDER = "FOLDER"  # stands for the folder of the test, in texts
ZARR_DIR = "ZARR_DIR"  # for that of the dataset

SCHEMA = {
    "type": "object",
    "properties": {
        "zarr_url": {"type": "string"},
        "channel": {
            "type": "object",
            "properties": {"label": {"type": "string"}},
            "required": ["label"],
            "additionalProperties": False,
        },
        "level": {"type": "integer", "minimum": 0, "default": 0},
        "method": {"enum": ["otsu", "li"]},
        "sigma": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "model_path": {"type": "string"},
        "output_folder": {"type": "string"},
        "name": {"type": "string", "pattern": "^[a-z_]+$"},
    },
    "required": ["zarr_url", "channel"],
    "additionalProperties": False,
}
SEGMENT = {
    "command_parallel": "true",
    "args_schema_parallel": SCHEMA,
    "args_parallel": {"channel": {"label": "DAPI"}},
}
CORRECT = {
    "command_parallel": "true",
    "input_types": {"is_3D": True, "corrected": False},
    "output_types": {"corrected": True},
}
PROJECT = {
    "command_parallel": "true",
    "input_types": {"is_3D": True},
    "output_types": {"is_3D": False},
}
MEASURE_2D = {"command_parallel": "true", "input_types": {"is_3D": False}}
CONVERT = {
    "type": "converter_compound",
    "command_non_parallel": "true",
    "command_parallel": "true",
    "output_types": {"is_3D": True},
}
REGISTER = {"type": "compound", "command_non_parallel": "true", "command_parallel": "true"}
SUMMARISE = {"type": "non_parallel", "command_non_parallel": "true"}


OWN_FIELDS = {"args_parallel", "args_non_parallel", "type_filters", "meta_parallel"}


@dataclass(frozen=True)
class Submission:
    """What is submitted: tasks, each with its task's fields and its own, on images."""

    tasks: list[dict[str, Any]] = field(default_factory=lambda: [SEGMENT])
    images: int = 4
    request: dict[str, Any] = field(default_factory=dict)
    who: str = "local"  # or "other user", or "cluster"
    prepare: str = ""  # what else is done before it is submitted


def of(*tasks: dict[str, Any], **fields: Any) -> Submission:
    return Submission(list(tasks), **fields)


def segment(**arguments: Any) -> dict[str, Any]:
    return {**SEGMENT, "args_parallel": {**SEGMENT["args_parallel"], **arguments}}  # type: ignore[dict-item]


def asking(**meta: Any) -> dict[str, Any]:
    return {**SEGMENT, "meta_parallel": meta}


def on_cluster(**meta: Any) -> Submission:
    return of(asking(**meta), who="cluster")


BAD = {
    "an argument is missing": (of({**SEGMENT, "args_parallel": {}}), "channel is required"),
    "an argument has another type": (of(segment(level="high")), "level must be of type integer"),
    "an argument is unknown": (of(segment(levl=1)), "levl is not known"),
    "a field of an argument is missing": (of(segment(channel={})), "channel.label is required"),
    "a field of an argument is unknown": (
        of(segment(channel={"label": "A", "idx": 1})),
        "channel.idx is not known",
    ),
    "an argument is too small": (of(segment(level=-1)), "level must be at least 0"),
    "an argument is none of the choices": (of(segment(method="mean")), "must be one of 'otsu'"),
    "an argument fits no alternative": (of(segment(sigma="2")), "sigma must be of type number"),
    "an argument has another form": (of(segment(name="My name")), "name must match"),
    "no image has the attribute": (
        of(SEGMENT, request={"attribute_filters": {"wel": ["A01"]}}),
        "No image has the attribute 'wel'",
    ),
    "no image has the value": (
        of(SEGMENT, request={"attribute_filters": {"well": ["Z99"]}}),
        "No image has well 'Z99'",
    ),
    "no image has one of the values": (
        of(SEGMENT, request={"attribute_filters": {"well": ["A00", "Z99"]}}),
        "No image has well 'Z99'",
    ),
    "the value has another kind": (
        of(SEGMENT, request={"attribute_filters": {"field": ["1"]}}),
        "No image has field '1'",
    ),
    "the job's filter contradicts the task": (
        of(CORRECT, request={"type_filters": {"is_3D": False}}),
        "type filters want is_3D to be False",
    ),
    "no image has the input types": (
        of({**SEGMENT, "input_types": {"projected": True}}),
        "None of the 4 images passes its type filters (projected True)",
    ),
    "the workflow task's filter matches nothing": (
        of({**SEGMENT, "type_filters": {"is_3D": False}}),
        "passes its type filters (is_3D False)",
    ),
    "a converter makes other images than the next task takes": (
        of(CONVERT, MEASURE_2D, images=0),
        "before it, makes images with the opposite",
    ),
    "an earlier task makes other images": (
        of(
            {**CORRECT, "input_types": {"is_3D": True}},
            {**SEGMENT, "input_types": {"corrected": False}},
        ),
        "before it, makes images with the opposite",
    ),
    "there are no images": (of(SEGMENT, images=0), "The dataset has no images"),
    "no image has the status": (
        of(SEGMENT, request={"attribute_filters": {"__wftask_dataset_image_status__": ["done"]}}),
        "No image has the status",
    ),
    "a task is not active": (of(SEGMENT, prepare="deactivate"), "is not active: reactivate it"),
    "a model is not there": (
        of(segment(model_path=f"{FOLDER}/models/none.pt")),
        "model_path of args_parallel is FOLDER/models/none.pt, which is not there",
    ),
    "a folder in a list is not there": (
        of({**SUMMARISE, "args_non_parallel": {"acquisitions": {"0": {"image_dir": "/dta/x"}}}}),
        "image_dir of args_non_parallel is /dta/x, which is not there",
    ),
    "an image was moved away": (of(SEGMENT, prepare="move an image"), "image0, which is not there"),
    "an image was moved away, and there are many paths": (
        of(
            {**SUMMARISE, "args_non_parallel": {"files": [f"{FOLDER}/{n}" for n in range(250)]}},
            prepare="move an image",
        ),
        "image0, which is not there",
    ),
    "the task's interpreter is gone": (
        of({"command_parallel": f"{FOLDER}/venv/bin/python {FOLDER}/task.py"}),
        "command_parallel names FOLDER/venv/bin/python, which is not there",
    ),
    "a model cannot be read": (
        of(segment(model_path=f"{FOLDER}/secret.pt"), who="other user"),
        "which fractal-test-jobs@",
    ),
    "an output folder cannot be written": (
        of(segment(output_folder=f"{FOLDER}/closed/tables"), who="other user"),
        "FOLDER/closed, the nearest that is there, cannot be written",
    ),
    "the images' folder cannot be written": (
        of(CONVERT, images=0, who="other user"),
        "The dataset's zarr_dir is",
    ),
    "a command cannot be read": (of({"command_parallel": "python 'task.py"}), "mend its quotes"),
    "images were changed before": (
        of(SEGMENT, prepare="run before"),
        "has been done with 4 images of these before",
    ),
    "the dataset has a job": (of(SEGMENT, prepare="submit"), "has a job that has not ended"),
    "the resource is closed": (of(SEGMENT, prepare="close"), "takes no new jobs at present"),
    "the tasks are not there": (
        of(SEGMENT, request={"first_task_index": 3}),
        "are not in workflow",
    ),
    "there are no tasks": (of(), "has no tasks"),
    "the account is not the user's": (
        of(SEGMENT, request={"slurm_account": "lab"}),
        "'lab' is not among those",
    ),
    "a node has less memory": (on_cluster(mem="300G"), "the largest node of partition main has 2"),
    "a node has fewer CPUs": (on_cluster(cpus_per_task=40), "asks for 40 CPUs"),
    "the partition allows less time": (
        on_cluster(partition="short", time="2:00:00"),
        "but partition short allows 30 min",
    ),
    "there is no such partition": (on_cluster(partition="bigmem"), "no partition bigmem"),
    "the partition is down": (on_cluster(partition="old"), "Partition old is not up"),
    "the partition has no GPU": (on_cluster(gres="gpu:1"), "partition main has none"),
    "the resource has no GPUs": (on_cluster(needs_gpu=True), "has no gpu_slurm_config"),
    "units are too large for a SLURM job": (on_cluster(mem="600G"), "max_mem_per_job"),
    "there would be too many SLURM jobs": (
        of(asking(tasks_per_job=1, parallel_tasks_per_job=1), images=9, who="cluster"),
        "raise tasks_per_job",
    ),
    "memory is none": (on_cluster(mem="lots"), "'lots' is no memory"),
}

GOOD = {
    "one task": of(SEGMENT),
    "all arguments": of(segment(level=2, method="li", sigma=None, name="nuclei")),
    "a model that is there": of(segment(model_path=f"{FOLDER}/model.pt")),
    "a path in an image": of(segment(name="labels")),
    "a name that begins as a path": of(
        {"command_parallel": "true", "args_parallel": {"table": "/tables/nuclei"}}
    ),
    "an output folder that is to be made": of(segment(output_folder=f"{FOLDER}/new/tables")),
    "what an earlier task makes": of(
        CONVERT, {**REGISTER, "args_parallel": {"input_path": f"{ZARR_DIR}/plate.zarr"}}, images=0
    ),
    "tasks that follow from each other": of(
        CORRECT, {**SEGMENT, "input_types": {"corrected": True}}
    ),
    "a projection and its measurement": of(PROJECT, MEASURE_2D),
    "a projection, and then the images in 3D": of(
        PROJECT, {**SEGMENT, "input_types": {"is_3D": True}}
    ),
    "a converter, and what follows": of(CONVERT, CORRECT, PROJECT, MEASURE_2D, images=0),
    "a compound task": of(REGISTER, SEGMENT),
    "all images at once": of(SEGMENT, SUMMARISE),
    "a filter": of(SEGMENT, request={"attribute_filters": {"well": ["A00", "A01"], "field": [1]}}),
    "filters that agree": of(CORRECT, request={"type_filters": {"is_3D": True}}),
    "a filter for what the first task takes": of(
        PROJECT, MEASURE_2D, request={"type_filters": {"is_3D": True}}
    ),
    "images that are not done": of(
        SEGMENT,
        request={"attribute_filters": {"__wftask_dataset_image_status__": ["unset", "failed"]}},
    ),
    "a part of the workflow": of(
        {**SEGMENT, "args_parallel": {}}, SEGMENT, request={"first_task_index": 1}
    ),
    "as another user": of(segment(model_path=f"{FOLDER}/model.pt"), who="other user"),
    "a new folder of another user": of(
        segment(output_folder=f"{FOLDER}/open/tables"), who="other user"
    ),
    "on a cluster": on_cluster(mem="8G", cpus_per_task=4, time="1-00:00:00"),
    "on one of several partitions": on_cluster(partition="short,main", time="2:00:00"),
    "on a GPU": on_cluster(partition="gpu", gres="gpu:1", mem="20G"),
    "retried": on_cluster(retry={"max": 2, "mem_factor": 2.0}, extra_lines=["export A=1"]),
}


class Lab:
    """Makes submissions, for users of a resource each, and plans them."""

    def __init__(self, people: dict[str, Person], folder: Path, session: AsyncSession) -> None:
        self.people, self.folder, self.session = people, folder, session

    async def plan(self, submission: Submission) -> dict[str, Any]:
        """The plan of a submission, with the folder's name as in submissions."""
        person, url, params, _ = await self.make(submission)
        answer = await person.ok("POST", f"{url}/job/plan/", params=params, json=submission.request)
        return dict(_replaced(answer, str(self.folder), FOLDER))

    async def make(self, given: Submission) -> tuple[Person, str, dict[str, int], list[int]]:
        """Make all that is submitted. Returns who submits, where, with what, and the tasks' ids."""
        if given.who not in self.people:
            pytest.skip("There is no other OS user.")
        person = self.people[given.who]
        project = await person.ok(
            "POST", "/api/v2/project/", json={"name": f"project {next(_numbers)}"}
        )
        url = f"/api/v2/project/{project['id']}"
        dataset = await person.ok(
            "POST",
            f"{url}/dataset/",
            json={
                "name": "d",
                "project_dir": f"{self.folder}/zarr",
                "zarr_subfolder": f"plate{project['id']}",
            },
        )
        placed = _replaced(given.tasks, ZARR_DIR, dataset["zarr_dir"])
        submission = replace(given, tasks=_replaced(placed, FOLDER, str(self.folder)))
        images = [self._image(dataset["zarr_dir"], number) for number in range(submission.images)]
        for image in images:
            Path(image["zarr_url"]).mkdir(parents=True)
            await person.ok("POST", f"{url}/dataset/{dataset['id']}/images/", json=image)
        workflow = await person.ok("POST", f"{url}/workflow/", json={"name": "w"})
        tasks = [
            await self._task(person, f"{url}/workflow/{workflow['id']}/wftask/", number, fields)
            for number, fields in enumerate(submission.tasks)
        ]
        params = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
        await self._prepare(submission.prepare, person, url, params, tasks, images)
        return person, url, params, [task["id"] for task in tasks]

    def _image(self, zarr_dir: str, number: int) -> dict[str, Any]:
        return {
            "zarr_url": f"{zarr_dir}/image{number}",
            "attributes": {"well": f"A0{number}", "field": number},
            "types": {"is_3D": True},
        }

    async def _task(
        self, person: Person, url: str, number: int, fields: dict[str, Any]
    ) -> dict[str, Any]:
        own = {
            "args_parallel",
            "args_non_parallel",
            "type_filters",
            "meta_parallel",
        } & fields.keys()
        task = {key: value for key, value in fields.items() if key not in own}
        named = {"name": f"task {next(_numbers)}", "version": "1", **task}
        made = await person.ok("POST", "/api/v2/task/", json=named)
        added = {"task_id": made["id"], **{key: fields[key] for key in own}}
        [workflow_task] = await person.ok("POST", url, json=[added])
        return dict(workflow_task)

    async def _prepare(
        self,
        what: str,
        person: Person,
        url: str,
        params: dict[str, int],
        tasks: list[dict[str, Any]],
        images: list[dict[str, Any]],
    ) -> None:
        if what == "deactivate":
            group = tasks[0]["task"]["taskgroupv2_id"]
            inactive = update(TaskGroupV2).where(col(TaskGroupV2.id) == group)
            await self.session.execute(inactive.values(active=False))
        elif what == "move an image":
            shutil.rmtree(images[0]["zarr_url"])
        elif what in ("submit", "run before"):
            job = await person.ok("POST", f"{url}/job/submit/", params=params, json={})
            if what == "run before":
                await person.ok("GET", f"{url}/job/{job['id']}/stop/")
                await self._run_before(job, tasks[0])
        elif what == "close":
            await self._close(True)
        await self.session.commit()

    async def _run_before(self, job: dict[str, Any], task: dict[str, Any]) -> None:
        run = HistoryRun(
            dataset_id=job["dataset_id"],
            workflowtask_id=task["id"],
            job_id=job["id"],
            task_id=task["task_id"],
            status="done",
            num_available_images=4,
        )
        self.session.add(run)
        await self.session.flush()
        await write_done_units(self.session, job["dataset_id"], task["id"], saved_id(run))

    async def _close(self, closed: bool) -> None:
        await self.session.execute(update(Resource).values(prevent_new_submissions=closed))
        await self.session.commit()


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    return [_replaced(each, old, new) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
async def people(
    new_person: Callable[..., Awaitable[Person]],
    request: pytest.FixtureRequest,
    sessions: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Person]:
    """A user per resource: here, here as another OS user, and on a cluster."""
    made = {"local": await new_person()}
    try:
        account: Account = request.getfixturevalue("os_user")
    except pytest.skip.Exception:
        return made
    folder = tmp_path_factory.mktemp("resources")
    limits = {"cpus_per_job": 64, "mem_per_job": "500G", "num_jobs": 4}
    batching = {f"{kind}_{key}": each for kind in ("target", "max") for key, each in limits.items()}
    slurm = {"default_slurm_config": {"mem": "1G"}, "batching_config": batching}
    for name, type_, config in (("other user", "local", {}), ("cluster", "slurm_sudo", slurm)):
        resource = Resource(
            type=type_,
            name=name,
            jobs_local_dir=str(folder),
            jobs_runner_config=config,
            jobs_slurm_python_worker=PYTHON,
            jobs_poll_interval=0,
            tasks_local_dir=str(folder),
            tasks_python_config={"default_version": "3", "versions": {"3": PYTHON}},
        )
        async with sessions() as session:
            session.add(resource)
            await session.flush()
            profile = Profile(
                resource_id=saved_id(resource),
                resource_type=type_,
                name=name,
                username=account.name,
            )
            session.add(profile)
            await session.commit()
        made[name] = await new_person(profile_id=saved_id(profile))
    return made


@pytest.fixture
async def lab(
    people: dict[str, Person],
    open_folder: Path,
    session: AsyncSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Lab]:
    """Where submissions are planned: with a folder, of which other OS users may not write all."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "sinfo").symlink_to(Path(__file__).with_name("fake_sinfo"))
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    for name, mode in (("closed", 0o755), ("open", 0o777), ("zarr", 0o755), ("cache", 0o777)):
        (open_folder / name).mkdir()
        (open_folder / name).chmod(mode)
    (open_folder / "model.pt").touch()
    (open_folder / "secret.pt").touch(mode=0o600)
    for person in people.values():
        folders = [f"{open_folder}/cache", f"{open_folder}/zarr"]
        person.user.project_dirs = folders
        await session.merge(person.user)
    await session.commit()
    lab = Lab(people, open_folder, session)
    yield lab
    await lab._close(False)


@pytest.mark.parametrize("fault", BAD)
async def test_a_fault_is_named_before_anything_starts(fault: str, lab: Lab) -> None:
    submission, told = BAD[fault]

    findings = (await lab.plan(submission))["findings"]

    assert [each for each in findings if told in each["told"]], findings


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_submission_raises_no_alarm(name: str, lab: Lab) -> None:
    plan = await lab.plan(GOOD[name])

    assert plan["findings"] == []
    assert plan["tasks"]


async def test_a_plan_changes_nothing(lab: Lab) -> None:
    for submission in (of(CONVERT, CORRECT, images=2), of(SEGMENT, prepare="run before")):
        person, url, params, _ = await lab.make(submission)
        before = await _content(lab.session)
        await person.ok("POST", f"{url}/job/plan/", params=params, json={})
        assert await _content(lab.session) == before


async def _content(session: AsyncSession) -> dict[str, str]:
    """A digest of the content of each table, and of the states of sequences."""
    await session.rollback()
    names = await session.scalars(
        text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    )
    digest = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} AS t"
    tables = {name: await session.scalar(text(digest.format(name))) for name in list(names)}
    return {**tables, "sequences": await session.scalar(text(digest.format("pg_sequences")))}


async def test_a_plan_tells_images_units_and_what_is_asked_for(lab: Lab) -> None:
    several = of(CORRECT, PROJECT, MEASURE_2D, REGISTER, asking(mem="2G"), who="cluster")
    plan = await lab.plan(several)

    numbers = [
        (task["images"], [phase["units"] for phase in task["phases"]]) for task in plan["tasks"]
    ]
    assert numbers == [(4, [4]), (4, [4]), (4, [4]), (4, [1, None]), (4, [4])]
    [last] = plan["tasks"][-1]["phases"]
    assert (last["cpus"], last["memory_mb"], last["batches"]) == (1, 2048, 1)


async def test_what_a_converter_makes_is_unknown_until_it_was_made_once(lab: Lab) -> None:
    plan = await lab.plan(of(CONVERT, SEGMENT, images=0))

    assert [task["images"] for task in plan["tasks"]] == [0, None]
    assert plan["tasks"][1]["images_told"] == "unknown (made by task 0)"
    assert plan["wall_seconds"] is None


async def test_several_plan_at_once(lab: Lab) -> None:
    person, url, params, _ = await lab.make(of(SEGMENT))
    asked = [person.ok("POST", f"{url}/job/plan/", params=params, json={}) for _ in range(8)]
    assert len({str(plan) for plan in await asyncio.gather(*asked)}) == 1
