"""Jobs: lists without what makes them heavy, and what must not change while one runs."""

from typing import Any

from sqlalchemy import Table, null
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import unprocessable
from fractal_models.schemas.job import JobRead
from fractal_models.tables import DatasetV2, JobV2, ProjectV2, TaskGroupV2, WorkflowV2

_JOBS: Table = JobV2.metadata.tables["jobv2"]


async def read_jobs(
    session: AsyncSession, *where: Any, log: bool = True, limit: int | None = None
) -> list[JobRead]:
    """Jobs with the newest first, read without the copies of their tasks."""
    columns: list[Any] = [
        column for column in _JOBS.c if column.name not in ("workflow_dump", "log")
    ]
    columns.append(_JOBS.c.workflow_dump.op("-")("task_list").label("workflow_dump"))
    columns.append(_JOBS.c.log if log else null().label("log"))
    newest_first = select(*columns).where(*where).order_by(_JOBS.c.id.desc()).limit(limit)
    rows = await session.execute(newest_first)
    return [JobRead.model_validate(dict(row)) for row in rows.mappings()]


async def require_no_submitted_job(
    session: AsyncSession, owner: ProjectV2 | WorkflowV2 | DatasetV2, what: str
) -> None:
    """Keep new jobs away from a row until the transaction ends, if it has none now.

    The lock conflicts with the one that a new job's foreign key takes.

    Raises:
        HTTPException: 422, one of its jobs has not ended.
    """
    table = type(owner)
    column = {
        ProjectV2: col(JobV2.project_id),
        WorkflowV2: col(JobV2.workflow_id),
        DatasetV2: col(JobV2.dataset_id),
    }[table]
    await session.exec(select(table.id).where(table.id == owner.id).with_for_update())
    found = await session.exec(
        select(JobV2.id).where(column == owner.id, JobV2.status == "submitted")
    )
    if (job_id := found.first()) is not None:
        raise unprocessable(f"Job {job_id} uses {what} {owner.id}: wait for its end, or stop it.")


async def require_no_submitted_job_with(session: AsyncSession, group: TaskGroupV2) -> None:
    """Keep an environment as long as it is needed.

    Raises:
        HTTPException: 422, a job that has not ended runs tasks of the group.
    """
    tasks = {"task_list": [{"task": {"taskgroupv2_id": group.id}}]}
    found = await session.exec(
        select(JobV2.id).where(JobV2.status == "submitted", _JOBS.c.workflow_dump.contains(tasks))
    )
    if (job_id := found.first()) is not None:
        raise unprocessable(
            f"Job {job_id} uses task group {group.id}: wait for its end, or stop it."
        )
