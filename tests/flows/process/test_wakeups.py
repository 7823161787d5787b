"""Workers are woken as soon as something is committed for them, and else look now and then."""

import asyncio
import time

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.process.wakeups import Wakeups, wake_workers

LONG, SHORT = 30.0, 0.1

Sessions = async_sessionmaker[AsyncSession]


async def wake(sessions: Sessions) -> None:
    async with sessions() as session:
        await wake_workers(session)
        await session.commit()


async def seconds_of(wakeups: Wakeups, longest: float) -> float:
    began = time.monotonic()
    await wakeups.wait(longest)
    return time.monotonic() - began


async def test_nobody_who_is_not_woken_waits_longer_than_told(database: URL) -> None:
    wakeups = Wakeups(database)
    assert SHORT <= await seconds_of(wakeups, SHORT) < LONG
    wakeups.close()


async def test_all_are_woken_when_it_is_committed(database: URL, sessions: Sessions) -> None:
    workers = [Wakeups(database) for _ in range(2)]
    for each in workers:
        await each.wait(0)
    waiting = asyncio.gather(*(seconds_of(each, LONG) for each in workers))

    async with sessions() as session:
        await wake_workers(session)
        await asyncio.sleep(SHORT)
        assert not waiting.done()
        await session.commit()

    assert max(await waiting) < LONG
    for each in workers:
        each.close()


async def test_who_was_woken_before_does_not_wait_and_then_waits_again(
    database: URL, sessions: Sessions
) -> None:
    wakeups = Wakeups(database)
    await wakeups.wait(0)
    await wake(sessions)
    assert await seconds_of(wakeups, LONG) < LONG
    assert await seconds_of(wakeups, SHORT) >= SHORT
    wakeups.close()


async def test_after_a_lost_connection_they_are_woken_again(
    database: URL, sessions: Sessions
) -> None:
    wakeups = Wakeups(database)
    await wakeups.wait(0)
    async with sessions() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await wakeups.wait(SHORT)  # it notices
    await wakeups.wait(0)
    await wake(sessions)
    assert await seconds_of(wakeups, LONG) < LONG
    wakeups.close()


async def test_without_a_database_they_look_now_and_then(database: URL) -> None:
    away = Wakeups(database.set(database="no_such_database"))
    assert await seconds_of(away, SHORT) >= SHORT
    away.close()
