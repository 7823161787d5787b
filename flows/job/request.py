"""Makes the job of a flow run that began in Prefect."""

from collections.abc import Sequence

from prefect.client.schemas.objects import FlowRun
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.parameters import JobRequest
from flows.schedules import rows
from flows.schedules.occurrences import TAG, begins_by_itself
from flows.submission import create_job
from fractal_models.errors import JobRefusedError, NotFoundError, NotNowError
from fractal_models.rights import dataset_in, project_with_right, user_named, workflow_in
from fractal_models.tables import (
    DatasetV2,
    JobV2,
    LinkUserProjectV2,
    ProjectV2,
    UserOAuth,
    WorkflowV2,
)


async def make_job(session: AsyncSession, request: JobRequest, flow_run: FlowRun) -> JobV2:
    """Commit the job of a flow run, with the rights of the user whom its parameters name.

    The job of a schedule has the rights of the schedule's owner, even if the owner's email changed.

    Raises:
        NotFoundError, ForbiddenError: the user does not see what is named, or may not run it.
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
    """The id of the object with this name; if none has the name, the name read as an id.

    Raises:
        NotFoundError: no object has this name, and it is not a number.
        JobRefusedError: several objects have this name.
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
