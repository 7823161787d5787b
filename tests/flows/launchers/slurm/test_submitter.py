"""How many parts are submitted at a time, and when: for a SLURM that takes only some jobs."""

import asyncio

import pytest

from flows.launchers.slurm import submitter
from flows.launchers.slurm.cluster import SubmissionRefusedError, TooManyError
from flows.launchers.slurm.submitter import Submitter


class FakeSlurm:
    """A fake SLURM that takes `free` more jobs, and arrays whose indexes are less than `limit`."""

    def __init__(self, free: int, limit: int = 1001) -> None:
        self.free, self.limit = free, limit
        self.tried: list[int] = []
        self.taken: list[tuple[list[int], int]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def submit(self, parts: list[int], offset: int) -> None:
        await self.answers.wait()
        self.tried.append(len(parts))
        if len(parts) > self.free:
            raise TooManyError("AssocMaxSubmitJobLimit")
        self.free -= len(parts)
        self.taken.append((parts, offset))

    async def max_array_size(self) -> int:
        return self.limit

    @property
    def due(self) -> list[int]:
        taken = {part for parts, _ in self.taken for part in parts}
        return [part for part in range(20) if part not in taken]


def test_all_go_at_once_where_slurm_takes_them() -> None:
    slurm = FakeSlurm(free=20)
    assert asyncio.run(Submitter(slurm.submit, slurm.max_array_size, 20).submit(slurm.due)) == ""
    assert slurm.taken == [(list(range(20)), 0)]


def test_indexes_of_arrays_are_below_the_limit() -> None:
    slurm = FakeSlurm(free=20, limit=8)
    asyncio.run(Submitter(slurm.submit, slurm.max_array_size, 20).submit(range(3, 20)))
    assert slurm.taken == [
        ([3, 4, 5, 6, 7], 0),
        (list(range(8, 16)), 8),
        (list(range(16, 20)), 16),
    ]


def test_as_many_go_as_slurm_takes_and_the_rest_when_one_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submitter, "_AFTER_AN_END", 0.0)
    slurm = FakeSlurm(free=7)

    async def main() -> None:
        submits = Submitter(slurm.submit, slurm.max_array_size, 20)
        assert await submits.submit(slurm.due) == "AssocMaxSubmitJobLimit"
        assert slurm.tried == [20, 10, 5, 10]  # seven would fit, five do
        assert await submits.submit(slurm.due) == "AssocMaxSubmitJobLimit"
        assert len(slurm.tried) == 4  # it is waited
        slurm.free += 13
        submits.notice_an_end()
        assert await submits.submit(slurm.due) == ""
        assert slurm.tried[4:] == [5, 10]
        assert not slurm.due

    asyncio.run(main())


def test_the_longer_slurm_refuses_the_more_seldom_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(submitter.time, "monotonic", lambda: now)
    slurm = FakeSlurm(free=0)
    asked = []

    async def main() -> None:
        nonlocal now
        submits = Submitter(slurm.submit, slurm.max_array_size, 1)
        for second in range(240):
            now = float(second)
            known = len(slurm.tried)
            await submits.submit([0])
            if len(slurm.tried) > known:
                asked.append(second)

    asyncio.run(main())
    assert asked == [0, 5, 15, 35, 75, 135, 195]


def test_an_sbatch_that_waits_itself_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "_HANGING_SECONDS", 0.01)
    slurm = FakeSlurm(free=20)

    async def main() -> None:
        slurm.answers.clear()
        submits = Submitter(slurm.submit, slurm.max_array_size, 20)
        assert "Not submitted yet" in await submits.submit([0])
        assert submits.is_submitting
        assert "Not submitted yet" in await submits.submit([0])
        slurm.answers.set()
        assert await submits.submit([0]) == ""
        assert not submits.is_submitting
        assert slurm.taken == [([0], 0)]

    asyncio.run(main())


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "_HANGING_SECONDS", 0.01)
    slurm = FakeSlurm(free=20)

    async def main() -> None:
        slurm.answers.clear()
        submits = Submitter(slurm.submit, slurm.max_array_size, 20)
        await submits.submit([0])
        await submits.close()
        slurm.answers.set()
        await asyncio.sleep(0.01)
        assert not submits.is_submitting
        assert not slurm.taken

    asyncio.run(main())


def test_a_refusal_for_good_is_raised() -> None:
    async def refuse(parts: list[int], offset: int) -> None:
        raise SubmissionRefusedError("invalid partition")

    async def limit() -> int:
        return 1001

    with pytest.raises(SubmissionRefusedError, match="invalid partition"):
        asyncio.run(Submitter(refuse, limit, 1).submit([0]))
