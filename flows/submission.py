"""From a request to a job: the checks, and the job's row with everything it needs to run."""

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows import outbox
from flows.units import Component, meta_name, meta_of
from fractal_models.database import saved_id
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
from fractal_models.tables.columns import now

# In a project directory of the user, where units run as the user and share its file system.
_CACHE = ".fractal_cache"
_NOT_NEEDED_TO_RUN = {"args_schema_non_parallel", "args_schema_parallel", "docs_info"}


class JobRefusedError(ValueError):
    """The job cannot be submitted; the message says why and what to do."""


async def create_job(
    session: AsyncSession,
    *,
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    dataset: DatasetV2,
    request: JobCreate,
) -> JobV2:
    """Check a request and commit the job it makes, with status `submitted`.

    The job keeps a copy of its tasks and arguments, so that later edits of the workflow do not
    reach it.

    Raises:
        JobRefusedError: the job could not run as things are.
    """
    resource, profile = await _way_in(session, user, project)
    first, last = _task_range(workflow, request)
    tasks = workflow.task_list[first : last + 1]
    groups = await _active_task_groups(session, tasks, resource)
    _check_account(user, request)
    if resource.type != "local":
        _check_metas(tasks)
    started = now()
    job = JobV2(
        project_id=project.id,
        workflow_id=workflow.id,
        dataset_id=dataset.id,
        user_email=user.email,
        slurm_account=request.slurm_account,
        worker_init=request.worker_init,
        project_dump=dump_project(project),
        workflow_dump=dump_workflow(workflow, tasks, groups),
        dataset_dump=dump_dataset(dataset),
        fractal_server_version=CONTRACT_VERSION,
        first_task_index=first,
        last_task_index=last,
        attribute_filters=request.attribute_filters,
        type_filters=request.type_filters,
        start_timestamp=started,
    )
    session.add(job)
    busy = f"Dataset {dataset.id} has a job that has not ended: wait for it, or stop it."
    try:
        await session.flush()
    except IntegrityError as error:
        await session.rollback()
        raise JobRefusedError(busy) from error
    job.working_dir = str(job_folder(resource, job))
    job.working_dir_user = job_folder_there(resource, profile, user, job)
    await session.exec(
        update(TaskGroupV2)
        .where(col(TaskGroupV2.id).in_(groups))
        .values(timestamp_last_used=started)
    )
    await outbox.write_job_event(session, saved_id(job), "submitted", occurred=started)
    await session.commit()
    return job


def job_folder(resource: Resource, job: JobV2) -> Path:
    """Where a job's files go: one folder per job below the resource's `jobs_local_dir`."""
    stamp = job.start_timestamp.strftime("%Y%m%d_%H%M%S")
    return Path(resource.jobs_local_dir) / f"proj_{job.project_id}_job_{job.id:06d}_{stamp}"


def job_folder_there(resource: Resource, profile: Profile, user: UserOAuth, job: JobV2) -> str:
    """Where a job's files go where its units run: it is the units' user's, and private.

    Raises:
        JobRefusedError: there is no such place.
    """
    folder = job_folder(resource, job)
    if resource.type == "local":
        return str(folder)
    if resource.type == "slurm_ssh":
        return str(PurePosixPath(str(profile.jobs_remote_dir), folder.name))
    if not user.project_dirs:
        raise JobRefusedError(
            f"User {user.email} has no project directory, in which the jobs on resource "
            f"{resource.name!r} keep their files: ask an administrator for one."
        )
    return str(PurePosixPath(user.project_dirs[0], _CACHE, folder.name))


def dump_project(project: ProjectV2) -> dict[str, Any]:
    """The project as clients see it in a job."""
    return _dump(project, "id", "name", "timestamp_created")


def dump_dataset(dataset: DatasetV2) -> dict[str, Any]:
    """The dataset as clients see it in a job: without its image list."""
    return _dump(dataset, "id", "name", "project_id", "timestamp_created", "zarr_dir")


def dump_workflow(
    workflow: WorkflowV2, tasks: list[WorkflowTaskV2], groups: dict[int, TaskGroupV2]
) -> dict[str, Any]:
    """The workflow, and (beyond what clients see) the tasks to run, each with its task group."""
    dump = _dump(workflow, "id", "name", "project_id", "timestamp_created")
    dump["task_list"] = [
        {
            **task.model_dump(mode="json", exclude={"task"}),
            "task": task.task.model_dump(mode="json", exclude=_NOT_NEEDED_TO_RUN),
            "task_group": groups[task.task.taskgroupv2_id].model_dump(
                mode="json", exclude={"task_list", "env_info"}
            ),
        }
        for task in tasks
    ]
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
    if resource.prevent_new_submissions:
        raise JobRefusedError(
            f"Resource {resource.name!r} takes no new jobs at present (prevent_new_submissions)."
        )
    profile = await session.get(Profile, user.profile_id) if user.profile_id else None
    if profile is None or profile.resource_id != resource.id:
        raise JobRefusedError(
            f"User {user.email} has no profile for resource {resource.name!r}, on which project "
            f"{project.id} runs: ask an administrator for one."
        )
    return resource, profile


def _check_account(user: UserOAuth, request: JobCreate) -> None:
    if request.slurm_account and request.slurm_account not in user.slurm_accounts:
        raise JobRefusedError(
            f"SLURM account {request.slurm_account!r} is not among those of {user.email}: "
            f"{', '.join(user.slurm_accounts) or 'none'}."
        )


def _check_metas(tasks: list[WorkflowTaskV2]) -> None:
    """Refuse what a task asks of SLURM, and cannot."""
    for task in tasks:
        dump = {**task.model_dump(), "task": task.task.model_dump()}
        components: tuple[Component, ...] = ("parallel", "non_parallel")
        for component in components:
            try:
                slurm_meta_of(meta_of(dump, component))
            except ValueError as error:
                raise JobRefusedError(
                    f"{meta_name(component)} of task {task.task.name!r} is wrong: {error}"
                ) from error


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


async def _active_task_groups(
    session: AsyncSession, tasks: list[WorkflowTaskV2], resource: Resource
) -> dict[int, TaskGroupV2]:
    ids = {task.task.taskgroupv2_id for task in tasks}
    found = await session.exec(
        select(TaskGroupV2)
        .where(col(TaskGroupV2.id).in_(ids))
        .order_by(col(TaskGroupV2.id))
        # None is deactivated until the job is there, which keeps them active.
        .with_for_update(key_share=True)
    )
    groups = {group.id: group for group in found if group.id is not None}
    for task in tasks:
        group = groups[task.task.taskgroupv2_id]
        problem = (
            "is not active: reactivate it"
            if not group.active
            else f"belongs to another resource than {resource.name!r}"
            if group.resource_id != resource.id
            else None
        )
        if problem:
            raise JobRefusedError(
                f"Task {task.task.name!r} cannot run: its task group {group.pkg_name} "
                f"{group.version} {problem}."
            )
    return groups
