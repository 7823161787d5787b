import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.base import BatchEnd, ForeignBatchError, Launcher
from flows.launchers.local import LocalLauncher, is_running
from flows.programs import unit_runner
from flows.units.batch import Batch, BatchUnit, DamagedBatchError, DamagedFileError
from flows.units.results import UnitResult
from tests.flows.programs.batch_folder import lives

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
        return int((self.folder / "batches" / "0" / "lock").read_text().split()[0])


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


async def test_a_copy_of_the_unit_runner_by_an_older_version_is_renewed(job: Job) -> None:
    copy = job.folder / "batches" / "unit_runner.py"
    copy.parent.mkdir()
    copy.write_text("raise SystemExit('old')")
    assert (await job.run(job.batch("true"))).missing == ()
    assert copy.read_bytes() == Path(unit_runner.__file__).read_bytes()
    names = {path.name for path in copy.parent.iterdir()}
    assert names == {"0", "unit_runner.py", "warm_process.py"}


async def test_a_batch_that_an_older_version_began_is_gone_on_with(job: Job) -> None:
    batch = job.batch("echo $1 >> ran", units=4, max_parallel=1)
    await job.run(batch)
    (job.work / "ran").unlink()
    begun = json.loads((batch.folder / "batch.json").read_text()) | {"format": 1}
    del begun["attempt"]
    (batch.folder / "batch.json").write_text(json.dumps(begun))
    lines = (batch.folder / "results.jsonl").read_text().splitlines(keepends=True)
    head = json.dumps(json.loads(lines[0]) | {"format": 1}) + "\n"
    (batch.folder / "results.jsonl").write_text("".join([head, *lines[1:3]]))
    (job.folder / "batches" / "unit_runner.py").write_text("raise SystemExit('old')")
    job.results.clear()

    assert await job.run(batch) == BatchEnd(missing=(), stopped=False, stderr="")
    assert job.ran() == [2, 3]
    assert job.indexes() == [0, 1, 2, 3]


async def test_what_was_begun_and_cannot_be_gone_on_with_is_refused(job: Job) -> None:
    await job.run(job.batch("true"))
    with pytest.raises(DamagedBatchError, match="does not match the job"):
        await job.run(job.batch("true", units=2))
    (job.folder / "batches" / "0" / "batch.json").write_text("{")
    with pytest.raises(DamagedFileError, match="is damaged"):
        await job.run(job.batch("true"))


async def test_who_follows_is_called_also_while_there_are_no_results(job: Job) -> None:
    """The unit ends because of the second call without results."""
    empty: list[float] = []

    async def on_results(results: list[UnitResult]) -> None:
        if results:
            await job.take(results)
        else:
            empty.append(time.monotonic())
        if len(empty) == 2:
            (job.work / "go").touch()

    await asyncio.wait_for(LocalLauncher().run(job.batch(WAITS), on_results), PATIENCE)
    assert job.indexes() == [0]
    assert empty[1] - empty[0] >= 1.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command, so no file system can be filled")
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted to be filled: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Fill a disk but for some bytes."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filling, filling.stat().st_size - leave)


def names_full_disk(path: Path) -> str:
    return f"No space left on device: '{path}"


async def test_a_batch_that_cannot_be_written_names_the_file(job: Job, small_disk: Path) -> None:
    batch = job.batch("true", units=50, folder=small_disk / "0")
    fill(small_disk, leave=0)
    with pytest.raises(OSError, match=names_full_disk(batch.folder)):
        await job.run(batch)
    assert not list(batch.folder.glob("batch.json*"))


async def test_a_copy_of_the_runner_that_cannot_be_written_is_named(
    job: Job, small_disk: Path
) -> None:
    fill(small_disk, leave=16 * 1024)
    with pytest.raises(OSError, match=names_full_disk(small_disk / "unit_runner.py")):
        await job.run(job.batch("true", folder=small_disk / "0"))
    assert not list(small_disk.glob("unit_runner.py*"))


async def test_a_disk_that_becomes_full_is_named_and_the_batch_goes_on_when_it_is_not(
    job: Job, small_disk: Path
) -> None:
    """Unit 5 fills the disk: soon neither results nor the runner's last words can be written."""
    script = f"test $1 != 5 || head -c 1000000 /dev/zero > {small_disk}/filling"
    batch = job.batch(script, units=60, folder=small_disk / "0")
    end = await job.run(batch)
    assert end.missing
    assert not end.stopped
    assert end.stderr.startswith("The unit runner ended early with exit code 74. It cannot write ")
    assert names_full_disk(batch.folder / "probe") in end.stderr
    assert not (batch.folder / "probe").exists()

    (small_disk / "filling").unlink()
    assert await job.run(batch) == BatchEnd(missing=(), stopped=False, stderr="")
    assert set(job.indexes()) == set(range(60))


async def test_a_runner_that_is_killed_with_its_guard_leaves_word(job: Job) -> None:
    running = asyncio.create_task(job.run(job.batch(WAITS)))
    await until((job.work / "pid.0").exists)
    for pid in (os.getpgid(job.runner_pid()), job.runner_pid()):
        os.kill(pid, signal.SIGKILL)
    end = await running
    assert (end.missing, end.stderr) == ((0,), "The unit runner was killed: Killed (9).")


async def test_a_batch_that_a_shutdown_interrupted_is_gone_on_with(job: Job) -> None:
    batch = job.batch(WAITS, units=3)
    running = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    runner = job.runner_pid()
    for pid in (os.getpgid(runner), runner, *pids(job, [0, 1])):
        with suppress(ProcessLookupError):  # those before have ended it already
            os.kill(pid, signal.SIGTERM)
    end = await running
    assert (end.missing, end.stopped, job.results) == ((0, 1, 2), False, [])
    assert "interrupted by a signal" in end.stderr

    (job.work / "go").touch()
    assert await job.run(batch) == BatchEnd(missing=(), stopped=False, stderr="")
    assert all(result.succeeded for result in job.results)
    assert sorted(job.indexes()) == [0, 1, 2]


async def test_a_batch_that_was_stopped_is_not_gone_on_with(job: Job) -> None:
    batch = job.batch(f"test $1 = 0 || {{ {WAITS}; }}", units=4)
    running = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.1").exists() and (job.work / "pid.2").exists())
    await LocalLauncher().stop(batch.folder)
    assert (await running).missing == (3,)
    before = (batch.folder / "results.jsonl").read_bytes()
    job.results.clear()

    end = await job.run(batch)
    assert (end.missing, end.stopped) == ((3,), True)
    assert sorted(job.indexes()) == [0, 1, 2]
    assert (batch.folder / "results.jsonl").read_bytes() == before


async def begin_on_another_host(job: Job, *last_words: dict[str, Any]) -> Batch:
    """A batch whose last runner was on another host, and what it said after its first result."""
    batch = job.batch("echo $1 >> ran", units=3, max_parallel=1)
    await job.run(batch)
    (job.work / "ran").unlink()
    job.results.clear()
    path = batch.folder / "results.jsonl"
    head, first, *_ = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [head | {"host": "elsewhere"}, first, *last_words]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return batch


async def test_a_batch_that_may_run_on_another_host_is_left_to_that(job: Job) -> None:
    batch = await begin_on_another_host(job)
    with pytest.raises(ForeignBatchError, match=f"{batch.folder} was begun on .* 'elsewhere'") as e:
        await job.run(batch)
    await LocalLauncher().stop(batch.folder)
    assert not (batch.folder / "stop").exists()
    assert job.ran() == []

    by_hand = str(e.value).rpartition("run here: python ")[2].split()
    await asyncio.to_thread(subprocess.run, [sys.executable, *by_hand], check=True)
    assert await job.run(batch) == BatchEnd(missing=(), stopped=False, stderr="")
    assert job.ran() == [1, 2]


@pytest.mark.parametrize(
    "last_words", [{"killed": [], "at": 2.0}, {"end": True, "ended_at": 2.0, "stopped": False}]
)
async def test_a_batch_whose_runner_on_another_host_is_known_to_have_ended_is_gone_on_with(
    job: Job, last_words: dict[str, Any]
) -> None:
    """As when a container was stopped, and made again, with another host name."""
    batch = await begin_on_another_host(job, last_words)
    assert (await job.run(batch)).missing == ()
    assert job.ran() == [1, 2]


@contextmanager
def running(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that waits, and has these arguments."""
    code = "import time; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
        yield process
        process.kill()


@pytest.fixture
def runner(job: Job) -> Iterator["subprocess.Popen[bytes]"]:
    """What looks like a unit runner on the batch of the job."""
    with running("unit_runner.py", str(job.batch("true").folder)) as process:
        yield process


@pytest.mark.parametrize("host", ["elsewhere", None])
async def test_only_a_runner_of_this_host_is_signalled(
    job: Job, runner: "subprocess.Popen[bytes]", host: str | None
) -> None:
    """Without a host, the lock was written by an older version, of this host."""
    await stop_by_lock(job, runner.pid, host)
    assert lives(runner.pid) is (host is not None)


async def test_a_unit_cannot_have_another_process_killed_by_writing_the_lock(job: Job) -> None:
    with running("unit_runner.py", "of another batch") as process:
        await stop_by_lock(job, process.pid, None)
        assert lives(process.pid)


async def stop_by_lock(job: Job, pid: int, host: str | None) -> None:
    """Stop a batch whose lock is held, and names this process."""
    batch = job.batch("true")
    batch.folder.mkdir(parents=True)
    with (batch.folder / "lock").open("w") as lock:
        lock.write(f"{pid} {host or ''}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        await LocalLauncher(stop_timeout=0.1).stop(batch.folder)
        assert is_running(batch.folder)


@pytest.mark.parametrize("removed", ["batches", "batches/0/results.jsonl", "batches/0/batch.json"])
async def test_a_batch_whose_files_are_removed_while_units_run_is_not_run_again(
    job: Job, removed: str
) -> None:
    batch = job.batch(WAITS, units=4)
    following = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    path = job.folder / removed
    await asyncio.to_thread(shutil.rmtree if path.is_dir() else Path.unlink, path)
    if removed.endswith("batch.json"):  # which is needed only to go on
        os.kill(job.runner_pid(), signal.SIGKILL)
        await following
    else:
        with pytest.raises(DamagedFileError, match=str(batch.folder)):
            await following
    await LocalLauncher(stop_timeout=2.0).stop(batch.folder)
    with pytest.raises(DamagedFileError, match=str(batch.folder)):
        await job.run(batch)
    assert not any(lives(pid) for pid in pids(job, [0, 1]))
    assert sorted(job.ran()) == [0, 1]


async def test_a_runner_whose_whole_folder_was_removed_ends_before_the_next_one(job: Job) -> None:
    """As when the folder of a job is removed, and then its process is killed."""
    batch = job.batch(WAITS, units=2)
    following = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    before = pids(job, [0, 1])
    for name in ("batches", "units"):
        shutil.rmtree(job.folder / name)
    with pytest.raises(DamagedFileError):
        await following
    (job.work / "go").touch()
    await job.run(batch)
    assert not any(lives(pid) for pid in before)
    assert [result.exit_code for result in job.results] == [0, 0]


async def test_a_batch_whose_guard_is_killed_is_followed_to_its_end(job: Job) -> None:
    running = asyncio.create_task(job.run(job.batch(WAITS, units=4)))
    await until((job.work / "pid.0").exists)
    os.kill(os.getpgid(job.runner_pid()), signal.SIGKILL)
    (job.work / "go").touch()
    assert await running == BatchEnd(missing=(), stopped=False, stderr="")
    assert sorted(job.indexes()) == sorted(job.ran()) == [0, 1, 2, 3]


@pytest.mark.parametrize("killed", ["nobody", "the guard", "the runner"])
async def test_a_batch_of_another_process_can_be_stopped(job: Job, killed: str) -> None:
    """With its guard killed it is stopped as well, and a dead runner's guard is waited for."""
    batch = job.batch(WAITS, units=3)
    running = asyncio.create_task(job.run(batch))
    await until(lambda: (job.work / "pid.0").exists() and (job.work / "pid.1").exists())
    if killed == "the guard":
        os.kill(os.getpgid(job.runner_pid()), signal.SIGKILL)
    elif killed == "the runner":
        os.kill(job.runner_pid(), signal.SIGKILL)
    await LocalLauncher().stop(batch.folder)
    assert not any(lives(pid) for pid in pids(job, [0, 1]))
    end = await running
    if killed == "the runner":
        assert (end.missing, job.results) == ((0, 1, 2), [])
    else:
        assert (end.missing, end.stopped) == ((2,), True)
        assert [result.error for result in job.results] == ["stopped", "stopped"]


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


async def test_a_batch_that_is_stopped_while_its_runner_is_being_started_is_not_run(
    job: Job,
) -> None:
    """The copy of the runner is a pipe, so that reading it takes as long as the test wants."""
    copy = job.folder / "batches" / "unit_runner.py"
    copy.parent.mkdir()
    os.mkfifo(copy)
    task = asyncio.create_task(job.run(job.batch(WAITS)))
    pipe = -1

    def is_being_read() -> bool:
        nonlocal pipe
        with contextlib.suppress(OSError):
            pipe = os.open(copy, os.O_WRONLY | os.O_NONBLOCK)
        return pipe != -1

    await until(is_being_read)
    task.cancel()
    await until(lambda: (job.folder / "batches" / "0" / "stop").exists())
    os.close(pipe)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.ran() == []
    assert not (job.folder / "batches" / "0" / "results.jsonl").exists()


async def test_a_runner_that_signs_the_lock_late_is_stopped(
    job: Job, runner: "subprocess.Popen[bytes]"
) -> None:
    """It does so in this event loop, which `stop` must not block."""
    folder = job.batch("true").folder
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stopping = asyncio.create_task(LocalLauncher(stop_timeout=0.1).stop(folder))
        await until((folder / "stop").exists)
        lock.write(f"{runner.pid} {os.uname().nodename}\n")
        lock.flush()
        await stopping
    assert not lives(runner.pid)


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
from flows.units.batch import Batch, BatchUnit
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
    assert os.getsid(runner) != os.getsid(0)

    job.on_result = lambda _: (job.work / "go").touch()
    assert (await job.run(batch)).missing == ()
    assert job.runner_pid() == runner
    assert sorted((job.work / "began").read_text().split()) == ["0", "1", "2", "3"]
    assert sorted(job.indexes()) == [0, 1, 2, 3]
