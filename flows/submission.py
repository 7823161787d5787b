"""From a request to a job: the checks, and the job's row with all it needs to run."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records import jobs, outbox
from flows.units.plan import CONVERTERS, Component, meta_name, meta_of, with_memory
from fractal_models.database import saved_id
from fractal_models.errors import (
    DatasetBusyError,
    JobRefusedError,
    NothingToDoError,
    ResourceClosedError,
)
from fractal_models.image_list import finds_any
from fractal_models.image_search import NOT_DONE, ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE, task_type_filters
from fractal_models.rights import names_not_shared_with, project_with_right, user_named
from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.schemas.job import JobCreate
from fractal_models.schemas.slurm import slurm_meta_of
from fractal_models.tables import (
    DatasetV2,
    JobV2,
    Profile,
    ProjectV2,
    Resource,
    TaskGroupV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)
from fractal_models.urls import on_s3
from fractal_models.workflow_tasks import argument_problems

# Below a project directory of the user: units run as the user, and can read and write there.
_CACHE = "fractal/.fractal_cache"
_BUSY = "Dataset {} has a job that has not ended: wait for it, or stop it."
_NOT_NEEDED_TO_RUN = {"args_schema_non_parallel", "args_schema_parallel", "docs_info"}


@dataclass(frozen=True)
class Checked:
    """A request that passed the checks: run tasks `first` to `last`, with what these need."""

    resource: Resource
    profile: Profile
    first: int
    last: int
    tasks: list[WorkflowTaskV2]
    groups: dict[int, TaskGroupV2]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job could not run as things are: a sentence; `task` is the place of the one meant."""

    told: str
    task: int | None = None


async def check_request(
    session: AsyncSession,
    *,
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    request: JobCreate,
) -> Checked:
    """The checks of a request that do not depend on what else runs at the moment.

    The task groups are locked, so they stay active until the job is committed; then the job does.

    Raises:
        JobRefusedError: the job could not run as things are.
    """
    checked, refusals = await examine_request(
        session, user=user, project=project, workflow=workflow, request=request, locked=True
    )
    if refusals:
        raise JobRefusedError(refusals[0].told)
    return checked


async def examine_request(
    session: AsyncSession,
    *,
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    request: JobCreate,
    locked: bool = False,
) -> tuple[Checked, list[Refusal]]:
    """What a request asks for, and all that `check_request` would refuse it for.

    Raises:
        JobRefusedError: it asks for no tasks that there are, or as nobody who could run them.
    """
    resource, profile = await _way_in(session, user, project)
    first, last = _task_range(workflow, request)
    tasks = workflow.task_list[first : last + 1]
    groups = await _task_groups(session, {task.task.taskgroupv2_id for task in tasks}, locked)
    refusals = []
    if hidden := await names_not_shared_with(session, user, tasks):
        names = ", ".join(hidden)
        refusals.append(Refusal(f"Tasks that are not shared with you cannot be run: {names}."))
    for task in tasks:
        group = groups.get(task.task.taskgroupv2_id)
        if (problem := _group_problem(task.task.name, group, resource)) is not None:
            refusals.append(Refusal(problem, task.order))
    refusals += _account_problems(user, request)
    if resource.type != "local":
        refusals += _meta_problems(tasks)
    return Checked(resource, profile, first, last, tasks, groups), refusals


async def refusals_now(
    session: AsyncSession,
    *,
    user: UserOAuth,
    dataset: DatasetV2,
    checked: Checked,
    request: JobCreate,
    only_not_done: bool,
) -> list[Refusal]:
    """What else `create_job` would refuse a request for at the moment."""
    found: list[JobRefusedError] = []
    for check in (_require_open, partial(_require_cache_folder, user.email, cache_folder(user))):
        try:
            check(checked.resource)
        except JobRefusedError as error:
            found.append(error)
    try:
        if only_not_done:
            await _require_work(session, dataset, checked.tasks, request)
    except JobRefusedError as error:
        found.append(error)
    is_open = (JobV2.dataset_id == dataset.id, JobV2.status == "submitted")
    if (await session.exec(select(JobV2.id).where(*is_open))).first() is not None:
        found.append(DatasetBusyError(_BUSY.format(dataset.id)))
    return [Refusal(str(error)) for error in found]


async def create_job(
    session: AsyncSession,
    *,
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    dataset: DatasetV2,
    request: JobCreate,
    only_not_done: bool = False,
    flow_run_id: UUID | None = None,
) -> JobV2:
    """Check a request and commit the job for it, with status `submitted`.

    The job keeps a copy of its tasks and arguments, so later edits of the workflow do not change
    the job. With `only_not_done`, each task runs only on the images with which it is not done.
    `flow_run_id` is given when a flow run makes its own job: the row names the flow run from the
    beginning, and a flow run makes only one job.

    Raises:
        NotNowError: the job cannot be submitted now, but perhaps later.
        JobRefusedError: the job could not run as things are.
    """
    checked = await check_request(
        session, user=user, project=project, workflow=workflow, request=request
    )
    resource = checked.resource
    _require_open(resource)
    if only_not_done:
        await _require_work(session, dataset, checked.tasks, request)
    job = _new_job(user, project, workflow, dataset, checked, request)
    job.only_not_done, job.flow_run_id = only_not_done, flow_run_id
    session.add(job)
    busy = DatasetBusyError(_BUSY.format(dataset.id))
    try:
        await session.flush()
    except IntegrityError as error:
        await session.rollback()
        raise busy from error
    job.working_dir = str(job_folder(resource, job))
    job.cache_dir = cache_folder(user)
    job.working_dir_user = job_folder_there(resource, checked.profile, job)
    await session.exec(
        update(TaskGroupV2)
        .where(col(TaskGroupV2.id).in_(checked.groups))
        .values(timestamp_last_used=job.start_timestamp)
    )
    await outbox.write_job_event(session, saved_id(job), "submitted", occurred=job.start_timestamp)
    await session.commit()
    return job


def _new_job(
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    dataset: DatasetV2,
    checked: Checked,
    request: JobCreate,
) -> JobV2:
    return JobV2(
        project_id=project.id,
        workflow_id=workflow.id,
        dataset_id=dataset.id,
        user_email=user.email,
        slurm_account=request.slurm_account,
        worker_init=request.worker_init,
        project_dump=dump_project(project),
        workflow_dump=dump_workflow(workflow, checked.tasks, checked.groups, request.mem),
        dataset_dump=dump_dataset(dataset),
        fractal_server_version=CONTRACT_VERSION,
        first_task_index=checked.first,
        last_task_index=checked.last,
        attribute_filters=request.attribute_filters,
        type_filters=request.type_filters,
    )


async def reopen_job(session: AsyncSession, job: JobV2) -> None:
    """Let a failed or stopped job continue where it ended, after the same checks as for a new job.

    Raises:
        JobRefusedError, NotFoundError, ForbiddenError: the job cannot continue and stays as it is.
    """
    if job.project_id is None or job.workflow_id is None or job.dataset_id is None:
        raise JobRefusedError(f"Job {job.id} has lost its project, workflow or dataset.")
    user = await user_named(session, job.user_email)
    project = await project_with_right(session, user, job.project_id, "x")
    resource, _ = await _way_in(session, user, project)
    _require_open(resource)
    dumps = job.workflow_dump["task_list"]
    groups = await _task_groups(
        session, {dump["task"]["taskgroupv2_id"] for dump in dumps}, locked=True
    )
    for dump in dumps:
        name, group = dump["task"]["name"], groups.get(dump["task"]["taskgroupv2_id"])
        if (problem := _group_problem(name, group, resource)) is not None:
            raise JobRefusedError(problem)
    busy = DatasetBusyError(_BUSY.format(job.dataset_id))
    try:
        await jobs.reopen(session, saved_id(job))
    except IntegrityError as error:
        await session.rollback()
        raise busy from error
    await session.refresh(job)


def job_folder(resource: Resource, job: JobV2) -> Path:
    """The folder for a job's files: one per job, below the resource's `jobs_local_dir`."""
    stamp = job.start_timestamp.strftime("%Y%m%d_%H%M%S")
    return Path(resource.jobs_local_dir) / f"proj_{job.project_id}_job_{job.id:06d}_{stamp}"


def cache_folder(user: UserOAuth) -> str | None:
    """The folder for what tasks of a user keep, such as models; None without a project directory.

    Nothing of it is made here: its file system may be that of a cluster.
    """
    home = next((each for each in user.project_dirs if not on_s3(each)), None)
    return None if home is None else str(PurePosixPath(home, _CACHE))


def job_folder_there(resource: Resource, profile: Profile, job: JobV2) -> str:
    """The folder for a job's files as its units see it, on the machine where they run.

    On a cluster, this is a folder of the OS user of the units, and it is private.

    Raises:
        JobRefusedError: the user has no directory for it.
    """
    folder = job_folder(resource, job)
    if resource.type == "local":
        return str(folder)
    _require_cache_folder(job.user_email, job.cache_dir, resource)
    if resource.type == "slurm_ssh":
        return str(PurePosixPath(str(profile.jobs_remote_dir), folder.name))
    return str(PurePosixPath(str(job.cache_dir), folder.name))


def _require_cache_folder(user_email: str, folder: str | None, resource: Resource) -> None:
    exports = resource.jobs_runner_config.get("user_local_exports")
    if resource.type != "local" and folder is None and (resource.type == "slurm_sudo" or exports):
        what = "files" if resource.type == "slurm_sudo" else "user_local_exports"
        raise JobRefusedError(
            f"User {user_email} has no project directory, in which the jobs on resource "
            f"{resource.name!r} keep their {what}: ask an administrator for one."
        )


def dump_project(project: ProjectV2) -> dict[str, Any]:
    """The project as clients see it in a job."""
    return _dump(project, "id", "name", "timestamp_created")


def dump_dataset(dataset: DatasetV2) -> dict[str, Any]:
    """The dataset as clients see it in a job: without its image list."""
    return _dump(dataset, "id", "name", "project_id", "timestamp_created", "zarr_dir")


def dump_workflow(
    workflow: WorkflowV2,
    tasks: list[WorkflowTaskV2],
    groups: dict[int, TaskGroupV2],
    mem: Literal["auto"] | None,
) -> dict[str, Any]:
    """The workflow as clients see it, plus the tasks to run, each with its task group.

    If the memory is `mem`, it is that of all tasks for which nobody has chosen another one.

    Arguments that do not fit the task's schema do not stop the job, because a task may accept more
    than its schema says; the job's log lists such arguments.
    """
    dump = _dump(workflow, "id", "name", "project_id", "timestamp_created")
    dump["task_list"] = [
        {
            **task.model_dump(mode="json", exclude={"task"}),
            "task": task.task.model_dump(mode="json", exclude=_NOT_NEEDED_TO_RUN),
            "task_group": groups[task.task.taskgroupv2_id].model_dump(
                mode="json", exclude={"task_list", "env_info"}
            ),
            "argument_problems": problems,
        }
        for task, problems in zip(tasks, argument_problems(tasks), strict=True)
    ]
    if mem is not None:
        dump["task_list"] = [with_memory(task, mem) for task in dump["task_list"]]
    return dump


def _dump(row: Any, *fields: str) -> dict[str, Any]:
    values = {field: getattr(row, field) for field in fields}
    return {
        field: value.isoformat() if isinstance(value, datetime) else value
        for field, value in values.items()
    }


async def _way_in(
    session: AsyncSession, user: UserOAuth, project: ProjectV2
) -> tuple[Resource, Profile]:
    """The resource of a project, and the user's profile for it."""
    resource = await session.get_one(Resource, project.resource_id)
    profile = await session.get(Profile, user.profile_id) if user.profile_id else None
    if profile is None or profile.resource_id != resource.id:
        raise JobRefusedError(
            f"User {user.email} has no profile for resource {resource.name!r}, on which project "
            f"{project.id} runs: ask an administrator for one."
        )
    return resource, profile


def _require_open(resource: Resource) -> None:
    if resource.prevent_new_submissions:
        raise ResourceClosedError(
            f"Resource {resource.name!r} takes no new jobs at present (prevent_new_submissions)."
        )


def _account_problems(user: UserOAuth, request: JobCreate) -> Iterator[Refusal]:
    if request.slurm_account and request.slurm_account not in user.slurm_accounts:
        yield Refusal(
            f"SLURM account {request.slurm_account!r} is not among those of {user.email}: "
            f"{', '.join(user.slurm_accounts) or 'none'}."
        )


def _meta_problems(tasks: Sequence[WorkflowTaskV2]) -> Iterator[Refusal]:
    """Tasks whose meta asks SLURM for something impossible."""
    components: tuple[Component, ...] = ("parallel", "non_parallel")
    for task, component in product(tasks, components):
        dump = {**task.model_dump(), "task": task.task.model_dump()}
        try:
            slurm_meta_of(meta_of(dump, component))
        except ValueError as error:
            told = f"{meta_name(component)} of task {task.task.name!r} is wrong: {error}"
            yield Refusal(told, task.order)


def _task_range(workflow: WorkflowV2, request: JobCreate) -> tuple[int, int]:
    count = len(workflow.task_list)
    if count == 0:
        raise JobRefusedError(f"Workflow {workflow.id} has no tasks: add some first.")
    first = 0 if request.first_task_index is None else request.first_task_index
    last = count - 1 if request.last_task_index is None else request.last_task_index
    if not 0 <= first <= last < count:
        raise JobRefusedError(
            f"Tasks {first} to {last} are not in workflow {workflow.id}, "
            f"whose tasks are 0 to {count - 1}."
        )
    return first, last


async def _task_groups(
    session: AsyncSession, ids: Collection[int], locked: bool
) -> dict[int, TaskGroupV2]:
    """Task groups by id; if `locked`, they stay as they are until the transaction ends."""
    query = select(TaskGroupV2).where(col(TaskGroupV2.id).in_(ids)).order_by(col(TaskGroupV2.id))
    found = await session.exec(query.with_for_update(key_share=True) if locked else query)
    return {group.id: group for group in found if group.id is not None}


def _group_problem(name: str, group: TaskGroupV2 | None, resource: Resource) -> str | None:
    """Why the task of this name, of this group, cannot run on a resource."""
    if group is None:
        return f"Task {name!r} cannot run: it was deleted."
    problem = (
        "is not active: reactivate it"
        if not group.active
        else f"belongs to another resource than {resource.name!r}"
        if group.resource_id != resource.id
        else None
    )
    if problem is None:
        return None
    return f"Task {name!r} cannot run: its task group {group.pkg_name} {group.version} {problem}."


async def _require_work(
    session: AsyncSession, dataset: DatasetV2, tasks: list[WorkflowTaskV2], request: JobCreate
) -> None:
    """Refuse a job if its tasks are done with all images that they would see now."""
    attributes = {**request.attribute_filters, STATUS_ATTRIBUTE: NOT_DONE}
    type_filters = dict(request.type_filters)
    for task in tasks:
        if task.task_type in CONVERTERS:
            return
        wanted = task_type_filters(type_filters, task.task.input_types, task.type_filters)
        search = ImageSearch(dataset.id, saved_id(task))
        search.filter_by(wanted, attributes)
        if await finds_any(session, search):
            return
        type_filters |= task.task.output_types
    raise NothingToDoError(
        f"There is nothing to do on dataset {dataset.id}: no image that the tasks would see is "
        "left undone."
    )


async def profile_of(session: AsyncSession, user_email: str) -> Profile | None:
    """The profile of a user, as of the one who submitted a job."""
    found = await session.exec(
        select(Profile)
        .join(UserOAuth, col(UserOAuth.profile_id) == col(Profile.id))
        .where(UserOAuth.email == user_email)
    )
    return found.first()
