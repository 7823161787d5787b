"""Lists of jobs, without what makes them heavy."""

from typing import Any

from sqlalchemy import Select, Table, and_, null
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import PROJECT_ID, READER, Document, list_document
from fractal_models import tables
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


def _listed(*where: Any) -> dict[bool, Document]:
    """Such jobs, with the newest first; with their logs, and without."""
    return {
        log: list_document(JobRead, newest_first(log=log).where(*where)) for log in (True, False)
    }


_JOINED = select(tables.LinkUserProjectV2.project_id).where(
    tables.LinkUserProjectV2.user_id == READER.id, col(tables.LinkUserProjectV2.is_verified)
)
MINE = _listed(_JOBS.c.project_id.in_(_JOINED))  # of projects that are there, owned or joined
OF_PROJECT = _listed(_JOBS.c.project_id == PROJECT_ID)


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
