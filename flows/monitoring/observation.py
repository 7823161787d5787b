"""What is known of an installation at a moment, for those who watch it."""

import asyncio
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineError
from flows.monitoring.folders import Folders, Space
from flows.process.lock import locked_jobs
from flows.records import observation
from flows.records.observation import OpenJobs, Silence, Tallied

_DATABASE_SECONDS, _PREFECT_SECONDS = 3.0, 3.0


@dataclass(frozen=True)
class Facts:
    """What the database knows."""

    open_jobs: list[OpenJobs] = field(default_factory=list)
    tallies: list[Tallied] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Observation:
    """`facts` are None if the database does not answer; `spaces` have None for folders that are
    not to be reached."""

    facts: Facts | None
    prefect_answers: bool
    spaces: dict[str, Space | None]


async def observe(
    sessions: async_sessionmaker[AsyncSession], engine: Engine, folders: Folders
) -> Observation:
    """Ask the database, Prefect and the folders of resources; none is waited for long."""
    facts, answers = await asyncio.gather(_facts(sessions), _answers(engine))
    return Observation(facts, answers, await folders.spaces(facts.folders if facts else []))


async def _facts(sessions: async_sessionmaker[AsyncSession]) -> Facts | None:
    try:
        async with asyncio.timeout(_DATABASE_SECONDS), sessions() as session:
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            return Facts(
                await observation.open_jobs(session, await locked_jobs(session)),
                await observation.tallies(session),
                await observation.silences(session),
                await observation.folders(session),
            )
    except (SQLAlchemyError, OSError, TimeoutError):
        return None


async def _answers(engine: Engine) -> bool:
    try:
        await engine.within(_PREFECT_SECONDS).greet()
    except EngineError:
        return False
    return True
