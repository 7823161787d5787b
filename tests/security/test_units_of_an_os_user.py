"""Units of a local resource run as the OS user of the profile, who can do no more than its part."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.base import BatchEnd
from flows.launchers.choice import local_launcher
from flows.launchers.local import LocalLauncher, is_running
from flows.process.accounts import Account
from flows.units.batch import Batch, BatchUnit
from flows.units.job_folder import JobFolder
from flows.units.results import UnitResult
from fractal_models.errors import ProfileError
from fractal_models.schemas.resource import ValidProfileLocal
from fractal_models.tables import Profile, Resource
from tests.lab import eventually
from tests.os_user import PYTHON


class Job:
    """The folder of a job, and what becomes of a batch in it."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder = JobFolder(folder)
        self.folder.create()
        self.folder.log("it begins")
        self.account = account
        self.results: list[UnitResult] = []
        self.units_dir = self.folder.units_dir(0, "task")

    def launcher(self, **options: Any) -> LocalLauncher:
        return LocalLauncher(PYTHON, account=self.account, **options)

    def batch(self, script: str, units: int = 1) -> Batch:
        """Units that run a shell script, in which $0 is `--args-json`, $1 their arguments."""
        return Batch(
            folder=self.units_dir / "batches" / "parallel",
            units_dir=self.units_dir,
            command=("sh", "-c", script),
            common_args={},
            units=[BatchUnit(index, f"par-{index:06d}", {}) for index in range(units)],
            max_parallel=units,
        )

    async def run(self, batch: Batch) -> BatchEnd:
        return await self.launcher().run(batch, self.hear)

    async def hear(self, results: list[UnitResult]) -> None:
        self.results += results

    def log(self, index: int = 0) -> str:
        return (self.units_dir / f"par-{index:06d}.log").read_text()


@pytest.fixture
def job(os_user: Account, open_folder: Path) -> Job:
    return Job(open_folder / "jobs" / "1", os_user)


async def test_units_run_as_the_os_user_of_the_profile(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACTAL_DATABASE_URL", "of the tests")
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "of the tests")

    end = await job.run(job.batch('id -un; env; echo "{}" > "$3"; touch beside', units=2))

    assert (end.missing, end.stopped) == ((), False), end.stderr
    assert [result.exit_code for result in job.results] == [0, 0], job.log()
    assert all(result.has_output for result in job.results)
    assert job.log().splitlines()[0] == job.account.name
    assert "of the tests" not in job.log()


async def test_units_read_and_change_nothing_but_their_own(job: Job, open_folder: Path) -> None:
    job.folder.archive_path.write_text("an archive")
    secret = open_folder / "secrets.json"
    secret.touch(mode=0o600)
    script = f"""
        ls {job.folder.path}; cat {job.folder.log_path} {secret}; cat /proc/{os.getpid()}/environ
        cd {job.units_dir}/batches/parallel
        for each in batch.json stdout lock results.jsonl ; do
            rm -f $each || test -w $each; touch $each.new; done
        mv {job.units_dir}/batches {job.units_dir}/mine; ln -s {secret} {job.units_dir}/batches/x
        echo x >> batch.json; kill -9 {os.getpid()}
        exit 0"""

    end = await job.run(job.batch(script))

    assert end.missing == (), end.stderr
    lines = [line for line in job.log().splitlines() if line]
    denied = [line for line in lines if "denied" in line or "not permitted" in line]
    assert len(lines) == len(denied) >= 15, job.log()
    owners = {path.name: path.stat().st_uid for path in (job.units_dir / "batches").rglob("*")}
    assert set(owners.values()) == {os.getuid()}


async def test_nothing_of_a_job_is_open_to_others(job: Job) -> None:
    before = os.umask(0)
    try:
        await job.run(job.batch("true"))
    finally:
        os.umask(before)

    def modes(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert modes(job.folder.path) == 0o710
    for path in (job.units_dir, *job.units_dir.rglob("batches"), *job.units_dir.rglob("parallel")):
        assert modes(path) & 0o007 == 0
        assert path.stat().st_gid == job.account.gid


async def test_a_stop_ends_the_units_of_an_os_user(job: Job) -> None:
    batch = job.batch("trap '' TERM; touch begun-$1; sleep 1021 & wait; wait; sleep 1021", units=2)
    running = asyncio.create_task(job.run(batch))
    await eventually(lambda: sleepers(1021), lambda found: len(found) == 2)

    await job.launcher().stop(batch.folder)
    end = await running

    assert end.stopped
    assert await sleepers(1021) == []
    assert not is_running(batch.folder)


async def test_a_killed_runner_leaves_no_unit_of_an_os_user(job: Job) -> None:
    batch = job.batch("setsid sleep 1022 & sleep 1022")
    running = asyncio.create_task(job.run(batch))
    await eventually(lambda: sleepers(1022), lambda found: len(found) == 2)

    for line in await processes("unit_runner.py"):
        if str(batch.folder) in line:
            os.kill(int(line.split()[0]), 9)
    end = await running

    assert end.missing == (0,)
    assert await sleepers(1022) == []


async def test_a_batch_of_an_os_user_is_gone_on_with(job: Job) -> None:
    batch = job.batch("sleep 1; id -un")
    first = asyncio.create_task(job.run(batch))
    await eventually(lambda: asyncio.to_thread(is_running, batch.folder), bool)
    await asyncio.sleep(0.2)
    JobFolder(job.folder.path).create()  # as who goes on does, meanwhile

    second = await job.launcher().run(batch, job.hear)
    await first

    assert second.missing == ()
    assert [result.exit_code for result in job.results] == [0, 0]  # told to both
    assert job.log() == f"{job.account.name}\n"


async def test_no_process_but_the_os_users_is_ended_for_what_a_unit_wrote(job: Job) -> None:
    victim = await asyncio.create_subprocess_exec("sleep", "1023")
    lock = job.units_dir / "batches" / "parallel" / "lock"
    host = os.uname().nodename
    script = f"printf '%s %s\\n' {victim.pid} {host} > {lock}; sleep 1024"
    batch = job.batch(script)
    running = asyncio.create_task(job.launcher(stop_timeout=0.5).run(batch, job.hear))
    await eventually(lambda: sleepers(1024), bool)

    await job.launcher(stop_timeout=0.5).stop(batch.folder)
    end = await running

    assert victim.returncode is None
    assert end.stopped
    assert await sleepers(1024) == []
    victim.kill()
    await victim.wait()


async def sleepers(seconds: int) -> list[str]:
    found = await processes(f"sleep {seconds}")
    return [line for line in found if line.split(" ", 1)[1] == f"sleep {seconds}"]


async def processes(words: str) -> list[str]:
    """The processes with these words in their command lines."""
    finding = await asyncio.create_subprocess_exec(
        "pgrep", "-a", "-f", words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await finding.communicate()
    return [line for line in output.decode().splitlines() if "pgrep" not in line]


def test_the_os_user_is_that_of_the_profile(os_user: Account) -> None:
    resource = Resource(
        type="local",
        name="here",
        tasks_python_config={"default_version": "3", "versions": {"3": PYTHON}},
    )
    given = ValidProfileLocal(name="mine", resource_type="local", username=os_user.name)

    as_other = local_launcher(resource, Profile(**given.model_dump(), resource_id=1))
    as_own = local_launcher(resource, Profile(name="own", resource_type="local", resource_id=1))

    assert as_other._runs_as.account == os_user
    assert as_own._runs_as.account is None
    with pytest.raises(ProfileError, match="which is root"):
        Account.named("root")
    with pytest.raises(ProfileError, match="There is no OS user '#0'"):
        Account.named("#0")
