"""Reads schedules for people: combines the rows with what Prefect has, and names with ids."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.parameters import JobRequest
from flows.schedules.deployments import InPrefect, ScheduleDeployments
from flows.schedules.occurrences import outcome_of, parameters_now
from fractal_models.database import release
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.base import problems_of
from fractal_models.schemas.schedule import (
    AfterRead,
    ScheduledJob,
    ScheduleRead,
    ScheduleReadWithOccurrences,
)
from fractal_models.tables import DatasetV2, JobV2, ProjectV2, Schedule, UserOAuth, WorkflowV2


class _Names:
    """The workflows or datasets of a project; flow runs' parameters give them by name or id."""

    def __init__(self, found: Sequence[tuple[int | None, str]]) -> None:
        self._ids = {id_ for id_, _ in found}
        self._named = {name: id_ for id_, name in found}

    def id_of(self, text: object) -> int | None:
        """The id of the object with this name, or else with this id; None if there is none."""
        name = str(text)
        if name in self._named:
            return self._named[name]
        return int(name) if name.isdecimal() and int(name) in self._ids else None


class _InProject(NamedTuple):
    workflows: _Names
    datasets: _Names


async def read_schedules(
    session: AsyncSession, engine: Engine, project: ProjectV2
) -> list[ScheduleRead]:
    """The schedules of a project, in the order of their ids; those not in Prefect are left out."""
    rows = await _schedules_of(session, project)
    names = await _names_in(session, project)
    await release(session)
    found = await ScheduleDeployments(engine).read(
        [row.deployment_id for row, _ in rows if row.deployment_id],
        [row.automation_id for row, _ in rows if row.automation_id],
    )
    return [
        _read(row, email, found[row.deployment_id], names)
        for row, email in rows
        if row.deployment_id in found
    ]


async def read_schedule(
    session: AsyncSession, engine: Engine, project: ProjectV2, schedule: Schedule
) -> ScheduleReadWithOccurrences:
    """A schedule with its next times, and what happened at its latest times."""
    found = await in_prefect(engine, schedule)
    coming, latest = await ScheduleDeployments(engine).occurrences(found.deployment.id)
    jobs = await _jobs_of(session, [each.id for each in latest])
    owner = await session.get_one(UserOAuth, schedule.user_id)
    read = _read(
        schedule,
        owner.email,
        found,
        await _names_in(session, project),
    )
    return ScheduleReadWithOccurrences.model_validate(
        {
            **read.model_dump(),
            "next": [
                each.expected_start_time
                for each in coming
                if read.active
                and not (each.auto_scheduled and parameters_now(each, found.deployment) is None)
            ],
            "occurrences": [outcome_of(each, jobs) for each in latest],
        }
    )


async def in_prefect(engine: Engine, schedule: Schedule) -> InPrefect:
    """A schedule as it is in Prefect now.

    Raises:
        NotFoundError: its deployment was deleted.
    """
    assert schedule.deployment_id is not None  # or the dependency had not found it
    automations = [schedule.automation_id] if schedule.automation_id else []
    found = await ScheduleDeployments(engine).read([schedule.deployment_id], automations)
    if schedule.deployment_id not in found:
        raise NotFoundError("The deployment of schedule", f"{schedule.id} (deleted in Prefect?)")
    return found[schedule.deployment_id]


async def changed_job(
    session: AsyncSession, project: ProjectV2, found: InPrefect, given: dict[str, Any]
) -> ScheduledJob:
    """The job of a schedule as it is in Prefect now, with the given changes.

    Raises:
        RefusedError: its workflow or dataset was deleted, or the job is not valid.
    """
    changed = _job_of(found, await _names_in(session, project)) | {
        key: value for key, value in given.items() if key in ScheduledJob.model_fields
    }
    for key in ("workflow_id", "dataset_id"):
        if changed[key] is None:
            raise RefusedError(f"What the schedule ran was deleted: give another {key}.")
    try:
        return ScheduledJob.model_validate(changed)
    except ValidationError as error:
        raise RefusedError(problems_of(error)) from error


def _read(schedule: Schedule, email: str, found: InPrefect, names: _InProject) -> ScheduleRead:
    after = found.after
    return ScheduleRead.model_validate(
        {
            **schedule.model_dump(),
            **_job_of(found, names),
            "user_email": email,
            "name": found.deployment.name,
            # until Prefect is told of a notice, it says that it is active
            "active": found.active and (schedule.notice is None or schedule.is_told),
            "when": found.when,
            "after": after
            and AfterRead(
                workflow_id=names.workflows.id_of(after.workflow_id),
                dataset_id=names.datasets.id_of(after.dataset_id),
            ),
        }
    )


def _job_of(found: InPrefect, names: _InProject) -> dict[str, Any]:
    """The job of a schedule, in the fields of the REST API."""
    request = JobRequest.model_validate(found.deployment.parameters)
    return {
        "workflow_id": names.workflows.id_of(request.workflow),
        "dataset_id": names.datasets.id_of(request.dataset),
        "first_task_index": request.first_task,
        "last_task_index": request.last_task,
        "slurm_account": request.slurm_account,
        "worker_init": request.worker_init,
        "attribute_filters": request.attribute_filters,
        "type_filters": request.type_filters,
        "images": request.images,
    }


async def _names_in(session: AsyncSession, project: ProjectV2) -> _InProject:
    async def of(table: type[WorkflowV2] | type[DatasetV2]) -> _Names:
        in_project = select(table.id, table.name).where(table.project_id == project.id)
        return _Names((await session.exec(in_project)).all())

    return _InProject(await of(WorkflowV2), await of(DatasetV2))


async def _schedules_of(session: AsyncSession, project: ProjectV2) -> list[tuple[Schedule, str]]:
    """The schedules of a project with the emails of their owners, by id."""
    found = await session.exec(
        select(Schedule, UserOAuth.email)
        .join(UserOAuth, col(UserOAuth.id) == col(Schedule.user_id))
        .where(Schedule.project_id == project.id, col(Schedule.deployment_id).is_not(None))
        .order_by(col(Schedule.id))
    )
    return list(found)


async def _jobs_of(
    session: AsyncSession, flow_run_ids: Sequence[UUID]
) -> dict[UUID, tuple[int, str]]:
    """The ids and statuses of jobs, by their flow runs."""
    found = await session.exec(
        select(JobV2.flow_run_id, JobV2.id, JobV2.status).where(
            col(JobV2.flow_run_id).in_(flow_run_ids)
        )
    )
    return {run: (id_, status) for run, id_, status in found if run and id_}
