"""Schedules: jobs that begin by themselves. All but whose they are is in Prefect."""

import re
import secrets
from typing import Any

from fastapi import APIRouter, status
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    EngineDep,
    ExecutableProject,
    OwnSchedule,
    ReadableProject,
    ReadableSchedule,
    SessionDep,
    VerifiedUser,
)
from api.queries.schedules import Names, jobs_of, names_in, schedules_of
from flows.engine.client import Engine
from flows.parameters import JobRequest
from flows.schedules.deployments import InPrefect, ScheduleDeployments
from flows.schedules.occurrences import outcome_of
from flows.schedules.plan import require_end, runnable
from flows.schedules.times import to_prefect
from fractal_models.database import release, saved_id
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.base import problems_of
from fractal_models.schemas.schedule import (
    AfterRead,
    ScheduleCreate,
    ScheduledJob,
    ScheduleRead,
    ScheduleReadWithOccurrences,
    ScheduleUpdate,
)
from fractal_models.tables import DatasetV2, ProjectV2, Schedule, UserOAuth, WorkflowV2

router = APIRouter(prefix="/api/v2/project/{project_id}/schedule", tags=["Schedule"])

_NOT_IN_NAMES = re.compile(r"[/%&<>]")


@router.get("/")
async def list_schedules(
    project: ReadableProject, session: SessionDep, engine: EngineDep
) -> list[ScheduleRead]:
    """The schedules of a project; what became of them is told of each alone."""
    rows = await schedules_of(session, project)
    workflows = await names_in(session, project, WorkflowV2)
    datasets = await names_in(session, project, DatasetV2)
    await release(session)
    found = await ScheduleDeployments(engine).read(
        [row.deployment_id for row, _ in rows if row.deployment_id],
        [row.automation_id for row, _ in rows if row.automation_id],
    )
    return [
        _read(row, email, found[row.deployment_id], workflows, datasets)
        for row, email in rows
        if row.deployment_id in found
    ]


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_schedule(
    wanted: ScheduleCreate,
    user: VerifiedUser,
    project: ExecutableProject,
    session: SessionDep,
    engine: EngineDep,
) -> ScheduleReadWithOccurrences:
    """Have a workflow run on a dataset at times, or after another job, with the user's rights."""
    times = None if wanted.when is None else to_prefect(wanted.when)
    job = await runnable(session, user, project, wanted)
    if wanted.after is not None:
        await require_end(session, project, None, wanted, wanted.after)
    title = wanted.name or f"{project.name} · {job.workflow.name}"
    schedule = Schedule(
        project_id=project.id,
        user_id=saved_id(user),
        workflow_id=wanted.workflow_id,
        dataset_id=wanted.dataset_id,
        after_workflow_id=wanted.after.workflow_id if wanted.after else None,
        after_dataset_id=wanted.after.dataset_id if wanted.after else None,
        deployment_name=f"{_NOT_IN_NAMES.sub('-', title)} · {secrets.token_hex(4)}",
    )
    session.add(schedule)
    await session.commit()  # first, so that no deployment is without a row
    plan = job.plan(schedule, times, after=wanted.after, active=wanted.active)
    created = await ScheduleDeployments(engine).create(schedule.deployment_name, plan)
    schedule.deployment_id, schedule.automation_id = created
    answer = await _show(session, engine, project, schedule)
    await session.commit()  # last: until then it begins no job, and is cleared away
    return answer


@router.get("/{schedule_id}/")
async def read_schedule(
    project: ReadableProject, schedule: ReadableSchedule, session: SessionDep, engine: EngineDep
) -> ScheduleReadWithOccurrences:
    """A schedule with its next times, and what became of the latest ones."""
    await release(session)
    return await _show(session, engine, project, schedule)


@router.patch("/{schedule_id}/")
async def update_schedule(
    changes: ScheduleUpdate,
    project: ExecutableProject,
    schedule: OwnSchedule,
    session: SessionDep,
    engine: EngineDep,
) -> ScheduleReadWithOccurrences:
    """Change, pause or resume a schedule. It keeps its owner, with whose rights it runs."""
    await release(session)
    found = await _in_prefect(engine, schedule)
    given = changes.given()
    if given == {"active": False}:
        await ScheduleDeployments(engine).switch(found, active=False)
        return await _show(session, engine, project, schedule)
    times = None if changes.when is None else to_prefect(changes.when)
    owner = await session.get_one(UserOAuth, schedule.user_id)
    wanted = await _changed(session, project, found, given)
    job = await runnable(session, owner, project, wanted)
    if changes.after is not None:
        await require_end(session, project, schedule.id, wanted, changes.after)
    active = changes.active if "active" in given else not found.paused
    if not (changes.when or changes.after or found.automation or found.when):
        raise RefusedError("Nothing begins it any more: give when or after.")
    await release(session)
    if active:
        schedule.notice, schedule.is_told = None, True
    plan = job.plan(schedule, times, after=changes.after, active=active)
    schedule.automation_id = await ScheduleDeployments(engine).change(found, plan)
    schedule.workflow_id, schedule.dataset_id = wanted.workflow_id, wanted.dataset_id
    if plan.begins_anew:
        after = changes.after
        schedule.after_workflow_id = after.workflow_id if after else None
        schedule.after_dataset_id = after.dataset_id if after else None
    await release(session)
    return await _show(session, engine, project, schedule)


@router.delete("/{schedule_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_schedule(schedule: OwnSchedule, session: SessionDep, engine: EngineDep) -> None:
    """Delete a schedule; the jobs that it began stay, and one that runs goes on."""
    await release(session)
    if schedule.deployment_id is not None:
        await ScheduleDeployments(engine).delete(schedule.deployment_id)
    await session.delete(schedule)
    await session.commit()


async def _changed(
    session: AsyncSession, project: ProjectV2, found: InPrefect, given: dict[str, Any]
) -> ScheduledJob:
    """What a schedule runs, after changes of what Prefect has now."""
    workflows = await names_in(session, project, WorkflowV2)
    datasets = await names_in(session, project, DatasetV2)
    changed = _job_of(found, workflows, datasets) | {
        key: value for key, value in given.items() if key in ScheduledJob.model_fields
    }
    for key in ("workflow_id", "dataset_id"):
        if changed[key] is None:
            raise RefusedError(f"What the schedule ran was deleted: give another {key}.")
    try:
        return ScheduledJob.model_validate(changed)
    except ValidationError as error:
        raise RefusedError(problems_of(error)) from error


async def _in_prefect(engine: Engine, schedule: Schedule) -> InPrefect:
    assert schedule.deployment_id is not None  # or the dependency had not found it
    automations = [schedule.automation_id] if schedule.automation_id else []
    found = await ScheduleDeployments(engine).read([schedule.deployment_id], automations)
    if schedule.deployment_id not in found:
        raise NotFoundError("The deployment of schedule", f"{schedule.id} (deleted in Prefect?)")
    return found[schedule.deployment_id]


async def _show(
    session: AsyncSession, engine: Engine, project: ProjectV2, schedule: Schedule
) -> ScheduleReadWithOccurrences:
    found = await _in_prefect(engine, schedule)
    coming, latest = await ScheduleDeployments(engine).occurrences(found.deployment.id)
    jobs = await jobs_of(session, [each.id for each in latest])
    owner = await session.get_one(UserOAuth, schedule.user_id)
    read = _read(
        schedule,
        owner.email,
        found,
        await names_in(session, project, WorkflowV2),
        await names_in(session, project, DatasetV2),
    )
    return ScheduleReadWithOccurrences.model_validate(
        {
            **read.model_dump(),
            "next": [each.expected_start_time for each in coming if read.active],
            "occurrences": [outcome_of(each, jobs) for each in latest],
        }
    )


def _read(
    schedule: Schedule, email: str, found: InPrefect, workflows: Names, datasets: Names
) -> ScheduleRead:
    after = found.after
    return ScheduleRead.model_validate(
        {
            **schedule.model_dump(),
            **_job_of(found, workflows, datasets),
            "user_email": email,
            "name": found.deployment.name,
            # until Prefect is told of a notice, it says that it is active
            "active": found.active and (schedule.notice is None or schedule.is_told),
            "when": found.when,
            "after": after
            and AfterRead(
                workflow_id=workflows.id_of(after.workflow_id),
                dataset_id=datasets.id_of(after.dataset_id),
            ),
        }
    )


def _job_of(found: InPrefect, workflows: Names, datasets: Names) -> dict[str, Any]:
    """What a schedule runs, in the words of the REST API."""
    request = JobRequest.model_validate(found.deployment.parameters)
    return {
        "workflow_id": workflows.id_of(request.workflow),
        "dataset_id": datasets.id_of(request.dataset),
        "first_task_index": request.first_task,
        "last_task_index": request.last_task,
        "slurm_account": request.slurm_account,
        "worker_init": request.worker_init,
        "attribute_filters": request.attribute_filters,
        "type_filters": request.type_filters,
        "images": request.images,
    }
