"""Checks a schedule, and plans its deployment in Prefect."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefect.client.schemas.actions import DeploymentScheduleCreate
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.parameters import JobRequest
from flows.schedules import rows
from flows.schedules.occurrences import leads_back
from flows.submission import Checked, check_request
from fractal_models.errors import ForbiddenError, JobRefusedError, NotFoundError
from fractal_models.rights import dataset_in, project_with_right, user_named, workflow_in
from fractal_models.schemas.job import JobCreate
from fractal_models.schemas.schedule import After, ScheduledJob
from fractal_models.tables import DatasetV2, ProjectV2, Schedule, UserOAuth, WorkflowV2

_PAUSED = "> **Paused by Fractal.** "


@dataclass(frozen=True)
class SchedulePlan:
    """What the deployment of a schedule should be.

    With neither `times` nor `after`, the times or automation of the existing deployment stay.
    """

    request: JobRequest
    description: str
    tags: Sequence[str]
    pool: str
    times: Sequence[DeploymentScheduleCreate] | None
    after: After | None
    active: bool

    @property
    def begins_anew(self) -> bool:
        """Whether the plan has new times or a new job to wait for."""
        return self.times is not None or self.after is not None


@dataclass(frozen=True)
class Runnable:
    """The job that a schedule is to run, found and checked."""

    owner: UserOAuth
    project: ProjectV2
    workflow: WorkflowV2
    dataset: DatasetV2
    job: ScheduledJob
    checked: Checked

    def plan(
        self,
        schedule: Schedule,
        times: Sequence[DeploymentScheduleCreate] | None,
        *,
        after: After | None,
        active: bool,
    ) -> SchedulePlan:
        """The plan for the deployment of this schedule's row."""
        resource = self.checked.resource
        tags = [f"project:{self.project.name}", f"user:{self.owner.email}"]
        return SchedulePlan(
            request=JobRequest.for_schedule(self.owner, self.project, self.job),
            description=with_notice(self._description(schedule), schedule.notice),
            tags=[*tags, f"resource:{resource.name}"],
            pool=resource.work_pool,
            times=times,
            after=after,
            active=active,
        )

    def _description(self, schedule: Schedule) -> str:
        first, last = self.checked.first, self.checked.last
        filters = {**self.job.attribute_filters, **self.job.type_filters}
        of_these = f" that match `{filters}`" if filters else ""
        which = "that are not done" if self.job.images == "not done" else "of the dataset"
        return f"""\
Runs **{self.workflow.name}** (workflow {self.workflow.id}, tasks {first} to {last}) on
**{self.dataset.name}** (dataset {self.dataset.id}) of project **{self.project.name}**
({self.project.id}), on the images {which}{of_these}, with the rights of {self.owner.email}.

It begins at the times of this deployment; without any, the automation of the same name begins it.
Each run is a job of Fractal. A run that finds the dataset busy, or nothing to do, is *Skipped*.

Pause, resume and edit it here, or over REST: `PATCH
/api/v2/project/{self.project.id}/schedule/{schedule.id}/`. What is done here is seen there.
"""


def with_notice(description: str | None, notice: str | None) -> str:
    """The description with this notice at its beginning; an earlier notice is removed."""
    lines = (description or "").splitlines()
    if lines and lines[0].startswith(_PAUSED):
        lines = lines[2:]
    told = [_PAUSED + " ".join(notice.split()), ""] if notice else []
    return "\n".join(told + lines)


async def runnable(
    session: AsyncSession, owner: UserOAuth, project: ProjectV2, job: ScheduledJob
) -> Runnable:
    """Check what a schedule of this owner would run, as at submission; but the dataset may be busy.

    Raises:
        NotFoundError: the project has no such workflow or dataset.
        JobRefusedError: its jobs could not run as things are.
    """
    await _require_able(session, owner, project)
    workflow = await workflow_in(session, project, job.workflow_id)
    dataset = await dataset_in(session, project, job.dataset_id)
    request = JobCreate.model_validate(job.model_dump(include=set(JobCreate.model_fields)))
    checked = await check_request(
        session, user=owner, project=project, workflow=workflow, request=request
    )
    return Runnable(owner, project, workflow, dataset, job, checked)


async def require_end(
    session: AsyncSession,
    project: ProjectV2,
    schedule_id: int | None,
    job: ScheduledJob,
    after: After,
) -> None:
    """Check the job for which a schedule waits.

    Raises:
        NotFoundError: its workflow or dataset is not in the project.
        JobRefusedError: schedules would form a circle, and run one after the other for ever.
    """
    await workflow_in(session, project, after.workflow_id)
    await dataset_in(session, project, after.dataset_id)
    start = (after.workflow_id, after.dataset_id)
    others = await rows.follows(session, project.id, other_than=schedule_id)
    if leads_back([*others, (start, (job.workflow_id, job.dataset_id))], start):
        raise JobRefusedError(
            f"What follows workflow {after.workflow_id} on dataset {after.dataset_id} would lead "
            "back to it: these schedules would run one after the other for ever."
        )


async def _require_able(session: AsyncSession, owner: UserOAuth, project: ProjectV2) -> None:
    try:
        await user_named(session, owner.email)
        await project_with_right(session, owner, project.id or 0, "x")
    except (NotFoundError, ForbiddenError) as error:
        raise JobRefusedError(
            f"{owner.email}, whose schedule it is, may not run jobs in project {project.id}: "
            f"{error}"
        ) from error
