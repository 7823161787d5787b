"""`fractal-prefect tidy`: what is removed, in which order, and what is told of it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

import migrations
from deployments.installation import Installation
from deployments.tidying.amount import NOTHING, Amount
from deployments.tidying.flow_runs import ALONG_INDEXES, tidy_flow_runs
from deployments.tidying.job_folders import tidy_job_folders
from deployments.tidying.service_logs import tidy_logs
from deployments.tidying.task_groups import delete_groups, unused_groups
from flows.engine.client import open_engine
from flows.process.transport import CommandError, TransportError
from flows.watchers.cluster_folders import ClusterFolders
from fractal_models.database import connect, open_database
from fractal_models.errors import FractalError
from fractal_models.tables import Resource
from fractal_models.tables.columns import now

Tell = Callable[[str], object]


class TidyError(FractalError):
    """Something cannot be tidied; the message says what, why, and how to mend it."""


@dataclass(frozen=True)
class Request:
    """What to tidy, and how."""

    installation: Installation
    older_than: timedelta
    dry_run: bool
    delete_task_groups: bool


async def tidy(request: Request, tell: Tell) -> None:
    """Remove what is old enough, or tell what would be removed.

    Raises:
        TidyError: Prefect's database cannot be used; or some of it all could not be removed.
    """
    before = now() - request.older_than
    url = request.installation.settings.async_database_url
    await migrations.require_newest(url)
    would = "would be removed" if request.dry_run else "is removed"
    tell(f"What ended before {before:%Y-%m-%d %H:%M} UTC and {would}:")
    async with open_database(url) as sessions:
        left = await _tidy_jobs(request, sessions, before, tell)
        logs = await asyncio.to_thread(
            tidy_logs, request.installation.logs, before, dry_run=request.dry_run
        )
        if request.installation.logs:
            tell(_line("logs of services", logs))
        left += await _tidy_groups(request, sessions, before, tell)
    if left:
        raise TidyError("Some is left. " + " ".join(left))


async def _tidy_jobs(
    request: Request, sessions: async_sessionmaker[AsyncSession], before: datetime, tell: Tell
) -> list[str]:
    """What ended jobs have left, flow runs first: from then on no failed job is retried.

    Returns what to tell of what is left.
    """
    async with sessions() as session:
        resources = list(await session.exec(select(Resource).order_by(col(Resource.id))))
    for kind, amount in (await _tidy_prefect(request, sessions, resources, before)).items():
        tell(_line(f"{kind} in Prefect", amount))
    here = await tidy_job_folders(sessions, resources, before, dry_run=request.dry_run)
    tell(_line("folders of jobs", here.folders))
    tell(_line("archives of jobs", here.archives))
    on_clusters, left = NOTHING, here.left
    for resource in resources:
        cleaner = ClusterFolders(sessions, request.older_than, resource.work_pool)
        found, why = await _tidy_cluster(cleaner, dry_run=request.dry_run)
        on_clusters += found
        left += [f"Folders on {resource.name}: {each}." for each in why]
    tell(_line("folders on clusters", on_clusters))
    return left


async def _tidy_prefect(
    request: Request,
    sessions: async_sessionmaker[AsyncSession],
    resources: Sequence[Resource],
    before: datetime,
) -> dict[str, Amount]:
    pools, url = {each.work_pool for each in resources}, request.installation.prefect_database
    try:
        prefect = await connect(url, server_settings=ALONG_INDEXES)
        try:
            return await tidy_flow_runs(prefect, sessions, pools, before, dry_run=request.dry_run)
        finally:
            await prefect.close()
    except asyncpg.UndefinedTableError as error:
        raise TidyError(
            f"The database {url.database!r} is not Prefect's ({error}): set "
            "FRACTAL_PREFECT_DATABASE_URL to the one that Prefect's server uses."
        ) from error
    except asyncpg.PostgresError as error:
        raise TidyError(f"Prefect's database cannot be tidied: {error}.") from error


async def _tidy_cluster(cleaner: ClusterFolders, *, dry_run: bool) -> tuple[Amount, list[str]]:
    """The folders that the workers of a resource would remove in time. How much, what is left."""
    found, why = NOTHING, list[str]()
    for due in await cleaner.due():
        try:
            sizes = await due.sizes()
            left = set() if dry_run else await due.remove()
        except (TransportError, CommandError) as error:
            why.append(str(error))
            continue
        gone = sizes.keys() - left
        found += Amount(len(gone), sum(sizes[folder] for folder in gone))
        why += [f"{folder} cannot be removed" for folder in sorted(left)]
    return found, why


async def _tidy_groups(
    request: Request, sessions: async_sessionmaker[AsyncSession], before: datetime, tell: Tell
) -> list[str]:
    """Name the task groups that nothing uses, and begin to delete them if that is asked for."""
    async with sessions() as session:
        unused = await unused_groups(session, before)
        size = sum(each.size for each in unused)
        tell(f"Task groups that nothing uses: {Amount(len(unused), size * 1024)}")
        for each in unused:
            tell(f"  {each}")
        if not unused or request.dry_run:
            return []
        if not request.delete_task_groups:
            tell("They stay; --delete-task-groups deletes them.")
            return []
        async with open_engine(request.installation.settings) as engine:
            left = await delete_groups(session, engine, unused)
    tell(f"Being deleted: {len(unused) - len(left)}.")
    return left


def _line(kind: str, amount: Amount) -> str:
    return f"  {kind:<24}{amount}"
