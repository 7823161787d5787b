"""What takes long does not hold up what a watcher does next."""

import asyncio

import pytest

from flows.watchers.aside import Aside


def test_what_takes_long_goes_on_aside() -> None:
    ended = []

    async def main() -> None:
        async def end(name: str, after: asyncio.Event | None = None) -> None:
            if after is not None:
                await after.wait()
            ended.append(name)

        cluster_is_back = asyncio.Event()
        aside = Aside(0.05, most=1)
        aside.renew()
        await aside.do("a job", end("slow", cluster_is_back))
        assert not aside.has_room
        aside.renew()
        await aside.do("a job", end("quick"))
        assert ended == ["quick"]
        cluster_is_back.set()
        while not aside.has_room:
            await asyncio.sleep(0)
        assert ended == ["quick", "slow"]

    asyncio.run(main())


def test_errors_are_raised_or_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def fail(after: asyncio.Event | None = None) -> None:
            if after is not None:
                await after.wait()
            raise OSError("the database is away")

        aside, later = Aside(0.05, most=1), asyncio.Event()
        aside.renew()
        with pytest.raises(OSError, match="is away"):
            await aside.do("Job 1", fail())
        await aside.do("Job 2", fail(later))
        later.set()
        while not aside.has_room:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert "Job 2 will be looked at again: the database is away" in caplog.text
