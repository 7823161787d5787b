"""Jobs that have no flow run get one."""

from datetime import timedelta

from sqlalchemy import make_url
from sqlmodel import select

from deployments.stack import Stack
from flows.submission import create_job
from fractal_models.database import open_database, saved_id
from fractal_models.schemas.job import JobCreate
from fractal_models.tables import DatasetV2, ProjectV2, UserOAuth, WorkflowV2
from tests.flows.conftest import Lab


async def test_a_job_submitted_while_prefect_was_away_runs_later(lab: Lab, stack: Stack) -> None:
    dataset = await lab.dataset("A")
    workflow = await lab.workflow("Process")
    url = make_url(stack.environment["FRACTAL_DATABASE_URL"])
    async with open_database(url) as sessions, sessions() as session:
        user = await session.exec(
            select(UserOAuth).where(UserOAuth.email == stack.initialised.admin_email)
        )
        job = await create_job(
            session,
            user=user.one(),
            project=await session.get_one(ProjectV2, lab.project_id),
            workflow=await session.get_one(WorkflowV2, workflow["id"]),
            dataset=await session.get_one(DatasetV2, dataset["id"]),
            request=JobCreate(),
        )
        job.start_timestamp -= timedelta(minutes=1)
        await session.commit()
    assert (await lab.ended({"id": saved_id(job)}))["status"] == "done"
