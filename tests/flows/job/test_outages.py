"""What a job needs may be away for a while: its units go on, and nothing is marked failed."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.services import answers
from deployments.stack import Stack
from fractal_models.tables import JobV2
from tests.journal import Journal, require_consistent
from tests.lab import Lab, eventually

Sessions = async_sessionmaker[AsyncSession]
NAMES = [f"image-{number:02d}" for number in range(16)]


@asynccontextmanager
async def away(stack: Stack, name: str, *, killed: bool = True) -> AsyncIterator[None]:
    """Without a part of the stack, which is back, and answers, after the block."""
    part = stack.parts[name]
    await asyncio.to_thread(part.kill if killed else part.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.start, name)
    await eventually(lambda: asyncio.to_thread(_all_answer, stack), bool)


def _all_answer(stack: Stack) -> bool:
    user, password = stack.prefect_auth.split(":")
    return answers(f"{stack.api_url}/api/alive/") and answers(
        f"{stack.prefect_url}/api/ready", (user, password)
    )


async def _submit(lab: Lab, journal: Journal, seconds: float = 0.4) -> dict[str, Any]:
    """A job of two workflow tasks, the first of which takes some seconds."""
    args = {**journal.args, "seconds": seconds}
    workflow = await lab.workflow(
        ("Journal process", {"args_parallel": args}),
        ("Journal combine", {"args_non_parallel": journal.args}),
    )
    return await lab.ask_for_job(workflow, await lab.dataset(*NAMES))


@pytest.mark.parametrize("name", ["postgres", "prefect", "worker", "api"])
async def test_units_go_on_while_a_part_of_the_stack_is_away(
    journal_lab: Lab, journal: Journal, stack: Stack, fractal: Sessions, name: str
) -> None:
    job = await _submit(journal_lab, journal)
    await journal.reaches(2)
    async with away(stack, name):
        await journal.reaches(10)
    assert (await journal_lab.ended(job))["status"] == "done"
    await require_consistent(fractal, job, journal)


async def test_a_worker_that_is_told_to_end_leaves_its_jobs_to_the_next(
    journal_lab: Lab, journal: Journal, stack: Stack, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal)
    await journal.reaches(2)
    async with away(stack, "worker", killed=False):
        words = stack.parts["worker"].last_words(50)
        assert re.search(rf"job {job['id']} · .* is left", words)
        await journal.reaches(min(len(journal.began()) + 2, len(NAMES)))
    ended = await journal_lab.ended(job)
    assert "Interrupted: the worker ends" in ended["log"]
    assert "without progress" not in ended["log"]  # it is no crash
    await require_consistent(fractal, job, journal)


async def test_a_job_may_be_submitted_while_prefect_is_away(
    journal_lab: Lab, journal: Journal, stack: Stack, fractal: Sessions
) -> None:
    async with away(stack, "prefect"):
        job = await _submit(journal_lab, journal, seconds=0)
        assert job["flow_run_id"] is None
    assert (await journal_lab.ended(job))["status"] == "done"
    await require_consistent(fractal, job, journal)


async def test_a_job_can_be_stopped_while_prefect_is_away(
    journal_lab: Lab, journal: Journal, stack: Stack
) -> None:
    job = await _submit(journal_lab, journal, seconds=30)
    await journal.begins()
    async with away(stack, "prefect"):
        await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    ended = await journal_lab.ended(job)
    assert ended["status"] == "failed"
    assert "Stopped through the Fractal API" in ended["log"]
    assert journal.ended() == []


async def test_a_job_that_ends_while_prefect_is_away_is_done_when_it_is_back(
    journal_lab: Lab, journal: Journal, stack: Stack, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal)
    await journal.reaches(8)
    async with away(stack, "prefect"):
        await journal.reaches(len(NAMES) + 1)
        async with fractal() as session:
            assert (await session.get_one(JobV2, job["id"])).status == "submitted"
    assert (await journal_lab.ended(job))["status"] == "done"
    await require_consistent(fractal, job, journal)
