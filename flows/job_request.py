"""What a run that begins in Prefect asks for, and the job that it makes of it."""

from collections.abc import Sequence
from typing import Any, Self

from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel, NonNegativeInt, ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.schedules import rows
from flows.schedules.occurrences import TAG, begins_by_itself
from flows.submission import create_job
from fractal_models.errors import JobRefusedError, NotFoundError, NotNowError
from fractal_models.images import AttributeFilters, Scalar, TypeFilters, is_beyond_64_bits
from fractal_models.rights import dataset_in, project_with_right, user_named, workflow_in
from fractal_models.schemas.base import problems_of
from fractal_models.schemas.job import Images, JobCreate
from fractal_models.schemas.schedule import ScheduledJob
from fractal_models.tables import (
    DatasetV2,
    JobV2,
    LinkUserProjectV2,
    ProjectV2,
    UserOAuth,
    WorkflowV2,
)


class JobRequest(BaseModel):
    """The parameters of `run-job`, which documents them."""

    user: str
    project: str
    workflow: str
    dataset: str
    first_task: NonNegativeInt | None = None
    last_task: NonNegativeInt | None = None
    images: Images = "all"
    attribute_filters: AttributeFilters = {}
    type_filters: TypeFilters = {}
    slurm_account: str | None = None
    worker_init: str | None = None

    @classmethod
    def of(cls, job: JobV2) -> "JobRequest":
        """What asks for a job like this one."""
        return cls(
            user=job.user_email,
            project=str(job.project_id),
            workflow=str(job.workflow_id),
            dataset=str(job.dataset_id),
            first_task=job.first_task_index,
            last_task=job.last_task_index,
            images="not done" if job.only_not_done else "all",
            attribute_filters=job.attribute_filters,
            type_filters=job.type_filters,
            slurm_account=job.slurm_account,
            worker_init=job.worker_init,
        )

    @classmethod
    def for_schedule(cls, user: UserOAuth, project: ProjectV2, wanted: ScheduledJob) -> Self:
        """What asks for the jobs of a schedule."""
        return cls(
            user=user.email,
            project=str(project.id),
            workflow=str(wanted.workflow_id),
            dataset=str(wanted.dataset_id),
            first_task=wanted.first_task_index,
            last_task=wanted.last_task_index,
            images=wanted.images,
            attribute_filters=wanted.attribute_filters,
            type_filters=wanted.type_filters,
            slurm_account=wanted.slurm_account,
            worker_init=wanted.worker_init,
        )

    def as_parameters(self) -> dict[str, Any]:
        """The parameters as Prefect can list them.

        Its API fails on integers of more than 64 bits. It has the nearest floating-point numbers
        instead; what a job filters by is in the job's row.
        """
        parameters = self.model_dump(mode="json")
        parameters["attribute_filters"] = {
            key: list(dict.fromkeys(map(_listable, values)))
            for key, values in self.attribute_filters.items()
        }
        return parameters

    def as_submitted(self) -> JobCreate:
        """The request as the REST API takes it.

        Raises:
            JobRefusedError: the API would not.
        """
        try:
            return JobCreate(
                first_task_index=self.first_task,
                last_task_index=self.last_task,
                slurm_account=self.slurm_account,
                worker_init=self.worker_init,
                attribute_filters=self.attribute_filters,
                type_filters=self.type_filters,
            )
        except ValidationError as error:
            raise JobRefusedError(problems_of(error)) from error


def _listable(value: Scalar) -> Scalar:
    return float(value) if is_beyond_64_bits(value) else value


async def make_job(session: AsyncSession, request: JobRequest, flow_run: FlowRun) -> JobV2:
    """Commit the job of a flow run, with the rights of the user whom its parameters name.

    That of a schedule has the rights of its owner, whatever email they have by now.

    Raises:
        NotFoundError, ForbiddenError: what is named is not there for this user, or not to be run.
        JobRefusedError: the job could not run as things are.
    """
    owner = await rows.owner_of(session, flow_run.deployment_id)
    if owner is None and TAG in flow_run.tags:
        raise NotNowError("This schedule is about to be made, or to be cleared away.")
    user = await user_named(session, owner or request.user)
    project_id = await _id_of_project(session, user, request.project)
    project = await project_with_right(session, user, project_id, "x")
    workflow = await workflow_in(
        session, project, await _id_in_project(session, project, WorkflowV2, request.workflow)
    )
    dataset = await dataset_in(
        session, project, await _id_in_project(session, project, DatasetV2, request.dataset)
    )
    job = await create_job(
        session,
        user=user,
        project=project,
        workflow=workflow,
        dataset=dataset,
        request=request.as_submitted(),
        only_not_done=request.images == "not done",
        flow_run_id=flow_run.id,
    )
    if owner is not None and begins_by_itself(flow_run):
        await rows.note_job(session, flow_run.deployment_id, job)
    return job


async def _id_of_project(session: AsyncSession, user: UserOAuth, name: str) -> int:
    found = await session.exec(
        select(ProjectV2.id)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(LinkUserProjectV2.user_id == user.id, col(LinkUserProjectV2.is_verified))
        .where(ProjectV2.name == name)
    )
    return _the_one("Project", name, found.all())


async def _id_in_project(
    session: AsyncSession, project: ProjectV2, table: type[WorkflowV2] | type[DatasetV2], name: str
) -> int:
    found = await session.exec(
        select(table.id).where(table.project_id == project.id, table.name == name)
    )
    return _the_one(table.__name__.removesuffix("V2"), name, found.all())


def _the_one(what: str, name: str, ids: Sequence[int | None]) -> int:
    """What has this name, or else this id.

    Raises:
        NotFoundError: nothing has, and it is not an id.
        JobRefusedError: several have this name.
    """
    named = sorted(id_ for id_ in ids if id_ is not None)
    if len(named) > 1:
        told = ", ".join(map(str, named))
        raise JobRefusedError(f"{what} {name!r} could be any of these: {told}. Give the number.")
    if named:
        return named[0]
    if not name.isdecimal():
        raise NotFoundError(what, repr(name))
    return int(name)
