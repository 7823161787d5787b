"""Who may ask a cluster when: turns that are apart, and that nobody's limit takes from others."""

import asyncio
import time
from itertools import count
from pathlib import Path

import pytest

from flows.launchers.slurm.pace import Pace, Turns

SECONDS = 0.5


class Clock:
    """The turns of some users who ask again as soon as they are told to."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.now = 1000.0
        self.given: list[str] = []
        self._asks_at: dict[tuple[int, str], float] = {}
        self._numbers = count()

    def come(self, *users: str) -> None:
        """Somebody of each user begins to wait now."""
        self._asks_at |= {(next(self._numbers), user): self.now for user in users}

    def until(self, user: str, *, refused: tuple[str, ...] = ()) -> int:
        """Let time pass until a user has a turn; the number of turns that others had first.

        Each turn of those who are `refused` is followed by their next try.
        """
        before = len(self.given)
        while not self.given[before:] or self.given[-1] != user:
            who = min(self._asks_at, key=lambda each: self._asks_at[each])
            self.now = max(self.now, self._asks_at.pop(who))
            number, whose = who
            if (wait := self.turns.ask(str(number), whose, self.now, SECONDS)) > 0.0:
                self._asks_at[who] = self.now + wait
                continue
            self.given.append(whose)
            if whose in refused:
                self.turns.refused[whose] = self.now
                self.come(whose)
        return len(self.given) - before - 1


def test_turns_go_by_the_order_of_coming() -> None:
    clock = Clock()
    for user in ("ada", "bea", "cid"):
        clock.come(user)
        clock.now += 0.01
    assert clock.until("cid") == 2
    assert clock.given == ["ada", "bea", "cid"]
    assert clock.now == pytest.approx(1000.0 + 2 * SECONDS, abs=0.1)


def test_tries_of_users_at_a_limit_take_no_turn_from_others() -> None:
    at_a_limit = tuple(f"user{n}" for n in range(10))
    clock = Clock()
    clock.come(*at_a_limit, *at_a_limit)
    clock.now += 0.01
    clock.come("free")
    assert clock.until("free", refused=at_a_limit) == 10  # as nobody knows yet who is at a limit
    for _ in range(20):
        clock.come("free")
        assert clock.until("free", refused=at_a_limit) == 0


def test_of_those_at_a_limit_all_have_turns() -> None:
    clock = Clock()
    clock.turns.refused = {"ada": clock.now, "bea": clock.now}
    clock.come("ada", "bea")
    assert clock.until("bea", refused=("ada", "bea")) == 1
    assert clock.until("ada", refused=("ada", "bea")) == 0


def test_a_refusal_is_forgotten() -> None:
    clock = Clock()
    clock.turns.refused = {"ada": clock.now - 3600.0}
    clock.come("ada")
    clock.now += 0.01
    clock.come("bea")
    assert clock.until("bea") == 1


def test_who_has_died_holds_nobody_up() -> None:
    clock = Clock()
    clock.turns.latest = clock.now
    assert clock.turns.ask("dead", "ada", clock.now, SECONDS) > 0.0
    clock.now += 60.0
    clock.come("bea")
    assert clock.until("bea") == 0


def test_turns_of_all_processes_are_apart(tmp_path: Path) -> None:
    async def main() -> None:
        await asyncio.gather(*(Pace(tmp_path / "pace", 0.1, "ada").turn() for _ in range(4)))

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began >= 0.3


def test_a_turn_from_before_the_clock_was_set_back_does_not_count() -> None:
    turns = Turns(latest=99999999999.0)
    assert turns.ask("who", "ada", 1000.0, SECONDS) == 0.0


def test_who_leaves_waits_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = (Pace(tmp_path / "pace", 0.3, "ada") for _ in range(2))
        await first.turn()
        leaves = asyncio.create_task(first.turn())
        await asyncio.sleep(0.1)
        leaves.cancel()
        async with asyncio.timeout(2):
            await second.turn()

    asyncio.run(main())


@pytest.mark.parametrize("content", ["", "1700000000.5\n", "{}", '{"latest": 1', "[]"])
def test_a_file_that_cannot_be_read_is_begun_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / "pace").write_text(content)
    asyncio.run(Pace(tmp_path / "pace", SECONDS, "ada").turn())
