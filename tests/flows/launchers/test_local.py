import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.base import Batch, BatchEnd, BatchUnit, Launcher, UnitResult
from flows.launchers.local import LocalLauncher

PATIENCE = 20.0
ROOT = Path(__file__).parents[3]


class Job:
    """A folder with a batch of a shell script, and the results that were handed over.

    In the script, $1 is the unit's index and the current folder is `work`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        self.results: list[UnitResult] = []
        self.on_result: Callable[[UnitResult], None] = lambda _: None

    def batch(self, script: str, units: int = 1, **options: Any) -> Batch:
        path = self.folder / "unit.sh"
        path.write_text(f'set -- "$(grep -o "[0-9]*" "$2")"\n{script}\n')
        values: dict[str, Any] = {
            "folder": self.folder / "batches" / "0",
            "units_dir": self.folder / "units",
            "command": ("sh", str(path)),
            "common_args": {},
            "units": [BatchUnit(index, f"{index:06d}", {"i": index}) for index in range(units)],
            "max_parallel": 2,
            "cwd": self.work,
            "grace_seconds": 0.5,
        }
        return Batch(**(values | options))

    async def take(self, results: list[UnitResult]) -> None:
        for result in results:
            self.results.append(result)
            self.on_result(result)

    async def run(self, batch: Batch, launcher: Launcher | None = None) -> BatchEnd:
        launcher = launcher or LocalLauncher()
        return await asyncio.wait_for(launcher.run(batch, self.take), PATIENCE)

    def indexes(self) -> list[int]:
        return [result.index for result in self.results]

    def ran(self) -> list[int]:
        """What units have written into the file `ran`."""
        path = self.work / "ran"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def runner_pid(self) -> int:
        return int((self.folder / "batches" / "0" / "lock").read_text())


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    yield Job(tmp_path)
    for folder in tmp_path.glob("batches/*/"):
        await LocalLauncher(stop_timeout=2.0).stop(folder)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def pids(job: Job, indexes: Iterable[int]) -> list[int]:
    return [int((job.work / f"pid.{index}").read_text()) for index in indexes]


# A unit that leaves its process id and then waits for the file `go`.
WAITS = "echo $1 >> ran; echo $$ > new.$1; mv new.$1 pid.$1; until test -e go; do sleep 0.02; done"


async def test_a_batch_runs_to_its_end_and_each_result_is_handed_over_once(job: Job) -> None:
    end = await job.run(job.batch("echo $1; exit $(($1 % 2))", units=30))
    assert end == BatchEnd(missing=(), stopped=False, stderr="")
    assert sorted(job.indexes()) == list(range(30))
    assert all(result.exit_code == result.index % 2 for result in job.results)
    assert (job.folder / "units" / "000007.log").read_text() == "7\n"


async def test_results_are_handed_over_while_the_batch_runs(job: Job) -> None:
    """Unit 1 waits for what the first result brings about."""
    job.on_result = lambda result: (job.work / f"seen.{result.index}").touch()
    await job.run(job.batch("test $1 = 0 || until test -e seen.0; do sleep 0.02; done", units=2))
    assert job.indexes() == [0, 1]


async def test_batches_run_side_by_side_with_one_launcher(job: Job) -> None:
    launcher = LocalLauncher()
    script = "touch in.$PART; until test -e in.a -a -e in.b; do sleep 0.02; done"
    ends = await asyncio.gather(
        *(
            job.run(
                job.batch(script, folder=job.folder / "batches" / part, env={"PART": part}),
                launcher,
            )
            for part in ("a", "b")
        )
    )
    assert [end.missing for end in ends] == [(), ()]
    assert [result.exit_code for result in job.results] == [0, 0]


async def test_a_job_keeps_the_unit_runner_it_began_with(job: Job) -> None:
    await job.run(job.batch("true"))
    copy = job.folder / "batches" / "unit_runner.py"
    copy.write_text("print('hello from the copy')")
    await job.run(job.batch("true", folder=job.folder / "batches" / "1"))
    stdout = job.folder / "batches" / "1" / "stdout"
    assert stdout.read_text() == "hello from the copy\n"


async def test_settings_of_the_platform_are_kept_from_units(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FRACTAL_JWT_SECRET_KEY", "PREFECT_API_AUTH_STRING", "COLOUR"):
        monkeypatch.setenv(name, "secret")
    await job.run(job.batch("env | grep secret", env={"PREFECT_OF_THE_BATCH": "no secret"}))
    log = (job.folder / "units" / "000000.log").read_text()
    assert sorted(log.splitlines()) == ["COLOUR=secret", "PREFECT_OF_THE_BATCH=no secret"]


async def test_a_batch_that_cannot_run_says_why(job: Job) -> None:
    end = await job.run(job.batch("true", units=3, cwd=job.folder / "nowhere"))
    assert end.missing == (0, 1, 2)
    assert not end.stopped
    assert f"No such file or directory: '{job.folder}/nowhere'" in end.stderr


async def test_units_lost_with_a_killed_runner_are_missing_and_do_not_run_on(job: Job) -> None:
    def kill_runner(result: UnitResult) -> None:
        while not ((job.work / "pid.1").exists() and (job.work / "pid.2").exists()):
            time.sleep(0.01)
        os.kill(job.runner_pid(), signal.SIGKILL)

    job.on_result = kill_runner
    batch = job.batch(f"test $1 = 0 || {{ {WAITS}; }}", units=4)
    end = await job.run(batch)
    assert (end.missing, end.stopped) == ((1, 2, 3), False)
    await until(lambda: not any(lives(pid) for pid in pids(job, [1, 2])))

    (job.work / "go").touch()
    job.on_result = lambda _: None
    assert (await job.run(batch)).missing == ()
    assert sorted(job.indexes()) == [0, 0, 1, 2, 3]  # 0 is of both times


async def test_cancelling_stops_the_batch_and_hands_over_its_last_results(job: Job) -> None:
    task = asyncio.create_task(job.run(job.batch(WAITS, units=4)))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted((result.index, result.error) for result in job.results) == [
        (0, "stopped"),
        (1, "stopped"),
    ]
    await until(lambda: not any(lives(pid) for pid in [job.runner_pid(), *pids(job, [0, 1])]))


async def test_cancelling_at_once_starts_or_leaves_nothing(job: Job) -> None:
    task = asyncio.create_task(job.run(job.batch(WAITS)))
    await until((job.folder / "batches" / "0" / "stderr").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in job.work.glob("pid.*"):
        assert not lives(int(pid.read_text()))


async def test_results_whose_handing_over_was_cancelled_are_handed_over_again(job: Job) -> None:
    launcher, calls = LocalLauncher(), []

    async def on_results(results: list[UnitResult]) -> None:
        calls.append([result.index for result in results])
        if len(calls) == 1:
            await asyncio.sleep(PATIENCE)
        await job.take(results)

    task = asyncio.create_task(launcher.run(job.batch("true"), on_results))
    await until(lambda: bool(calls))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert calls == [[0], [0]]
    assert job.indexes() == [0]


async def test_anyone_can_stop_a_batch(job: Job) -> None:
    batch = job.batch(WAITS, units=3)
    running = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    await LocalLauncher().stop(batch.folder)
    end = await running
    assert (end.missing, end.stopped) == ((2,), True)
    assert [result.error for result in job.results] == ["stopped", "stopped"]


@pytest.mark.parametrize("steps", [0, 1, 2, 20])
async def test_a_batch_that_is_just_being_launched_can_be_stopped(job: Job, steps: int) -> None:
    launcher = LocalLauncher()
    batch = job.batch("sleep 15", units=3)
    running = asyncio.create_task(job.run(batch, launcher))
    for _ in range(steps + 1):
        await asyncio.sleep(0.001)
    await launcher.stop(batch.folder)
    end = await running
    assert end.stopped
    assert {*end.missing, *job.indexes()} == {0, 1, 2}


async def test_stopping_what_does_not_run_does_nothing(job: Job) -> None:
    batch = job.batch("true")
    await LocalLauncher().stop(batch.folder)
    await job.run(batch)
    await LocalLauncher().stop(batch.folder)
    assert job.results[0].succeeded


async def test_a_runner_that_does_not_stop_is_killed_with_its_units(job: Job) -> None:
    batch = job.batch(WAITS, units=3)
    launcher = LocalLauncher(stop_timeout=0.2)
    running = asyncio.create_task(job.run(batch, launcher))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    os.kill(job.runner_pid(), signal.SIGSTOP)
    await launcher.stop(batch.folder)
    end = await running
    assert (end.missing, end.stopped) == ((0, 1, 2), True)
    await until(lambda: not any(lives(pid) for pid in [job.runner_pid(), *pids(job, [0, 1])]))


async def test_an_error_in_taking_results_leaves_the_batch_running(job: Job) -> None:
    def fail(_: UnitResult) -> None:
        raise ConnectionError("the database is away")

    job.on_result = fail
    batch = job.batch(f"test $1 = 0 || {{ {WAITS}; }}", units=2)
    with pytest.raises(ConnectionError):
        await job.run(batch)
    await until((job.work / "pid.1").exists)

    job.on_result = lambda _: (job.work / "go").touch()
    end = await job.run(batch)
    assert end == BatchEnd(missing=(), stopped=False, stderr="")
    assert job.ran() == [1]
    assert job.indexes() == [0, 0, 1]


DYING_LAUNCHER = """
import asyncio, os, pathlib
from flows.launchers.base import Batch, BatchUnit
from flows.launchers.local import LocalLauncher

async def die(results):
    os.kill(os.getpid(), 9)

batch = {batch}
asyncio.run(LocalLauncher().run(batch, die))
"""


async def test_a_batch_outlives_the_process_that_started_it(job: Job) -> None:
    batch = job.batch(f"echo $1 >> began; test $1 = 0 || {{ {WAITS}; }}", units=4)
    program = DYING_LAUNCHER.format(batch=repr(batch).replace("PosixPath", "pathlib.Path"))
    dead = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], cwd=ROOT, timeout=PATIENCE
    )
    assert dead.returncode == -signal.SIGKILL
    await until((job.work / "pid.1").exists)
    runner = job.runner_pid()
    assert os.getsid(runner) == runner

    job.on_result = lambda _: (job.work / "go").touch()
    assert (await job.run(batch)).missing == ()
    assert job.runner_pid() == runner
    assert sorted((job.work / "began").read_text().split()) == ["0", "1", "2", "3"]
    assert sorted(job.indexes()) == [0, 1, 2, 3]
