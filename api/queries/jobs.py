"""Jobs: lists without what makes them heavy, and what must not change while one runs."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, null
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models import tables
from fractal_models.errors import RefusedError
from fractal_models.schemas.job import JobRead

_JOBS: Table = tables.JobV2.metadata.tables["jobv2"]


def _newest_first(**others: Any) -> Select[Any]:
    columns = {**_JOBS.c, **others}
    listed = [columns[name] for name in JobRead.model_fields]
    query: Select[Any] = select(*listed).order_by(_JOBS.c.id.desc())
    return query


_NO_TASKS = _JOBS.c.workflow_dump.op("-")("task_list").label("workflow_dump")
_WITH_LOG = _newest_first(workflow_dump=_NO_TASKS)
_WITHOUT_LOG = _newest_first(workflow_dump=_NO_TASKS, log=null().label("log"))


def newest_first(*, log: bool = True) -> Select[Any]:
    """The jobs as a `JobRead` has them, without the copies of the tasks."""
    return _WITH_LOG if log else _WITHOUT_LOG


def in_projects_of(user: tables.UserOAuth) -> ColumnElement[bool]:
    """Of a job: its project is there, and the user owns it or has joined it."""
    joined = select(tables.LinkUserProjectV2.project_id).where(
        tables.LinkUserProjectV2.user_id == user.id, col(tables.LinkUserProjectV2.is_verified)
    )
    return _JOBS.c.project_id.in_(joined)


async def latest_job(session: AsyncSession, *where: Any) -> JobRead | None:
    """The newest job, if there is one."""
    row = (await session.execute(newest_first().where(*where).limit(1))).first()
    return None if row is None else JobRead.model_validate(row)


def jobs_in_projects(*, log: bool) -> Select[Any]:
    """All jobs with the newest first, joined to their projects and the links of the owners."""
    return (
        newest_first(log=log)
        .outerjoin(tables.ProjectV2, col(tables.ProjectV2.id) == _JOBS.c.project_id)
        .outerjoin(
            tables.LinkUserProjectV2,
            and_(
                col(tables.LinkUserProjectV2.project_id) == _JOBS.c.project_id,
                col(tables.LinkUserProjectV2.is_owner),
            ),
        )
    )


async def require_no_submitted_job(
    session: AsyncSession, owner: tables.ProjectV2 | tables.WorkflowV2 | tables.DatasetV2, what: str
) -> None:
    """Keep new jobs away from a row until the transaction ends, if it has none now.

    The lock conflicts with the one that a new job's foreign key takes.

    Raises:
        RefusedError: one of its jobs has not ended.
    """
    table = type(owner)
    column = {
        tables.ProjectV2: col(tables.JobV2.project_id),
        tables.WorkflowV2: col(tables.JobV2.workflow_id),
        tables.DatasetV2: col(tables.JobV2.dataset_id),
    }[table]
    await session.exec(select(table.id).where(table.id == owner.id).with_for_update())
    found = await session.exec(
        select(tables.JobV2.id).where(column == owner.id, tables.JobV2.status == "submitted")
    )
    if (job_id := found.first()) is not None:
        raise RefusedError(f"Job {job_id} uses {what} {owner.id}: wait for its end, or stop it.")
