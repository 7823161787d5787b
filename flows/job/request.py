"""Makes the job of a flow run that began in Prefect."""

from prefect.client.schemas.objects import FlowRun
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.parameters import JobRequest
from flows.schedules import rows
from flows.schedules.occurrences import TAG, begins_by_itself
from flows.submission import create_job
from fractal_models.errors import NotNowError
from fractal_models.named import dataset_named, project_named, workflow_named
from fractal_models.rights import user_named
from fractal_models.tables import JobV2


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
    project = await project_named(session, user, request.project, "x")
    workflow = await workflow_named(session, project, request.workflow)
    dataset = await dataset_named(session, project, request.dataset)
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
