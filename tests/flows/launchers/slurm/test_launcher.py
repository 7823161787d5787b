"""Batches as SLURM jobs, on a real cluster with accounting, by sudo and by SSH."""

import asyncio
import contextlib
import json
import shutil
import signal
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from flows.launchers.base import BatchEnd
from flows.launchers.slurm.batching import BatchingError
from flows.launchers.slurm.cluster import Cluster as JobCluster
from flows.launchers.slurm.cluster import SubmissionRefusedError
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.pace import Pace
from flows.launchers.slurm.queue import SlurmQueue
from flows.process.transport import (
    Completed,
    LocalTransport,
    SSHTransport,
    Transport,
    TransportError,
)
from flows.units.batch import Batch, BatchUnit
from flows.units.results import UnitResult
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from tests import journal_tasks
from tests.cluster import Cluster, ClusterError
from tests.consistency import events
from tests.lab import eventually

PYTHON = "/usr/bin/python3"
_numbers = count(1)


def config(max_running_jobs: int | None = None, **default: Any) -> JobRunnerConfigSLURM:
    """Two units in a job, if there are not more than twenty."""
    return JobRunnerConfigSLURM.model_validate(
        {
            "default_slurm_config": {"cpus_per_task": 1, "mem": 50, **default},
            "batching_config": {
                "target_cpus_per_job": 2,
                "max_cpus_per_job": 4,
                "target_mem_per_job": 500,
                "max_mem_per_job": 1000,
                "target_num_jobs": 10,
                "max_num_jobs": 20,
            },
            "max_running_jobs": max_running_jobs,
        }
    )


class Bench:
    """A job that runs batches on the cluster; what it was told."""

    def __init__(
        self, cluster: Cluster, transport: Transport, folder: Path, user: str = Cluster.user
    ) -> None:
        self.cluster = cluster
        self.transport = transport
        self.user = user
        self.home = folder / "job"
        self.there = cluster.root / user / f"jobs-{next(_numbers)}" / "job"
        self.journal = cluster.root / user / f"journal-{next(_numbers)}.jsonl"
        self.journal.touch()
        shutil.chown(self.journal, user)
        self.program = cluster.root / "journal_tasks.py"
        shutil.copy(journal_tasks.__file__, self.program)
        self.submitted: list[int] = []
        self.said: list[str] = []
        self.results: list[UnitResult] = []
        self.queue_file = folder / "queue.json"
        self.queries: Transport = LocalTransport()
        self.seconds_per_submission = 0.1
        self.patience = 2.0
        self.account: str | None = None
        self.name: str | None = None  # of the cluster, for SLURM's commands
        self.max_running_jobs: int | None = None

    def launcher(self, transport: Transport | None = None, **default: Any) -> SlurmLauncher:
        """As each process of the job makes its own."""

        async def on_submitted(job_id: int) -> None:
            self.submitted.append(job_id)

        transport = transport or self.transport
        return SlurmLauncher(
            SlurmContext(
                cluster=JobCluster(
                    transport, self.queries, PYTHON, PurePosixPath(self.there), self.name
                ),
                queue=SlurmQueue(self.queue_file, self.queries, 1.0, cluster=self.name),
                pace=Pace(
                    self.queue_file.with_name("pace"), self.seconds_per_submission, self.user
                ),
                config=config(self.max_running_jobs, **default),
                home=self.home,
                account=self.account,
                worker_init="export GREETING='good day'",
                seconds=0.2,
                on_submitted=on_submitted,
                say=self.said.append,
                patience=self.patience,
            )
        )

    def batch(self, number: int, /, *, command: Sequence[str] = (), **fields: Any) -> Batch:
        """A batch of so many units, which write into the journal or have another command."""
        seconds = fields.pop("seconds", 0.05)
        own = {"journal": str(self.journal), "seconds": seconds, **fields.pop("args", {})}
        return Batch(
            **{
                "folder": self.home / "0_task" / "batches" / "parallel",
                "units_dir": self.home / "0_task",
                "command": command or (PYTHON, "-I", "-S", str(self.program), "process"),
                "common_args": own,
                "units": [
                    BatchUnit(n, f"par-{n:06d}", {"zarr_url": f"/plate/{n}"}) for n in range(number)
                ],
                "max_parallel": 1,
                **fields,
            }
        )

    async def on_results(self, results: list[UnitResult]) -> None:
        self.results += results

    @property
    def succeeded(self) -> list[int]:
        return sorted({result.index for result in self.results if result.succeeded})

    def log(self, unit: int) -> str:
        path = self.home / "0_task" / f"par-{unit:06d}.log"
        return path.read_text() if path.exists() else ""

    def ended(self) -> Counter[Any]:
        return events(self.journal, "end")

    def began(self) -> Counter[Any]:
        return events(self.journal, "begin")

    async def has_begun(self, units: int) -> None:
        async def began() -> int:
            return self.began().total()

        await eventually(began, lambda now: now >= units)


@pytest.fixture(params=["sudo", "ssh"])
async def transport(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    if request.param == "sudo":
        yield LocalTransport(cluster.user)
        return
    known_hosts = cluster.root / "known_hosts"
    known_hosts.write_text(cluster.host_key)
    host = f"127.0.0.1:{cluster.ssh_port}"
    ssh = SSHTransport(host, cluster.user, cluster.key_path, known_hosts)
    yield ssh
    await ssh.close()


@pytest.fixture
async def bench(cluster: Cluster, transport: Transport, tmp_path: Path) -> AsyncIterator[Bench]:
    yield Bench(cluster, transport, tmp_path)
    await cluster.cancel_all()


@pytest.fixture
async def by_sudo(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Bench]:
    """What does not depend on how commands reach the cluster."""
    yield Bench(cluster, LocalTransport(cluster.user), tmp_path)
    await cluster.cancel_all()


async def test_units_run_as_the_user_and_their_files_arrive(bench: Bench) -> None:
    end = await bench.launcher().run(bench.batch(7), bench.on_results)
    assert end == BatchEnd(missing=(), stopped=False, stderr="")
    assert bench.succeeded == list(range(7))
    assert set(bench.ended().values()) == {1}
    assert len(bench.submitted) == 1  # one array, of four jobs
    output = json.loads((bench.home / "0_task" / "par-000003.out.json").read_text())
    assert output["image_list_updates"][0]["zarr_url"] == "/plate/3"
    for path in (bench.there, *bench.there.rglob("*")):
        assert path.owner() == bench.cluster.user
        assert not stat.S_IMODE(bench.there.stat().st_mode) & 0o077


async def test_worker_init_and_logs(bench: Bench) -> None:
    command = ("/bin/sh", "-c", 'echo "$GREETING from $(id -un)"; exit 3', "unit")
    await bench.launcher().run(bench.batch(1, command=command), bench.on_results)
    assert bench.log(0) == f"good day from {bench.cluster.user}\n"
    assert bench.results[0].exit_code == 3


async def test_a_launcher_that_dies_is_followed_by_one_that_goes_on(bench: Bench) -> None:
    batch = bench.batch(8, seconds=1)

    async def die(results: list[UnitResult]) -> None:
        if bench.began():
            raise RuntimeError("the process is killed")

    with pytest.raises(RuntimeError):
        await bench.launcher().run(batch, die)
    end = await bench.launcher().run(batch, bench.on_results)
    assert not end.missing
    assert bench.succeeded == list(range(8))
    assert set(bench.began().values()) == {1}
    assert len(set(bench.submitted)) == 1


async def test_stopping_ends_what_runs_and_what_waits(bench: Bench) -> None:
    launcher = bench.launcher()
    batch = bench.batch(40, seconds=60)
    running = asyncio.create_task(launcher.run(batch, bench.on_results))
    await bench.has_begun(2)
    await launcher.stop(batch.folder)
    async with asyncio.timeout(15):
        end = await running
    assert end.stopped
    assert not bench.succeeded
    await bench.cluster.wait_idle()
    assert not bench.ended()


async def test_what_runs_is_stopped_also_if_its_folder_was_removed(by_sudo: Bench) -> None:
    launcher = by_sudo.launcher()
    batch = by_sudo.batch(2, seconds=60)
    running = asyncio.create_task(launcher.run(batch, by_sudo.on_results))
    await by_sudo.has_begun(2)
    shutil.rmtree(batch.folder)
    await launcher.stop(batch.folder)
    assert (await running).stopped
    await by_sudo.cluster.wait_idle()
    assert not by_sudo.ended()


async def test_a_batch_can_be_stopped_by_another_process(by_sudo: Bench) -> None:
    batch = by_sudo.batch(4, seconds=60)
    running = asyncio.create_task(by_sudo.launcher().run(batch, by_sudo.on_results))
    await by_sudo.has_begun(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await by_sudo.launcher().stop(batch.folder)
    await by_sudo.cluster.wait_idle()


async def test_a_refused_submission_quotes_slurm(by_sudo: Bench) -> None:
    launcher = by_sudo.launcher(partition="nowhere")
    with pytest.raises(SubmissionRefusedError, match="invalid partition"):
        await launcher.run(by_sudo.batch(2), by_sudo.on_results)


class ForgetfulTransport(LocalTransport):
    """A fake that loses the answer of the first `sbatch`, which can happen on any network."""

    def __init__(self, user: str, *, before: bool) -> None:
        super().__init__(user)
        self.before = before
        self.lost = 0

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        if command[0] != "sbatch" or self.lost:
            return await super().run(command, stdin, seconds=seconds)
        self.lost += 1
        if not self.before:
            await super().run(command, stdin, seconds=seconds)
        raise TransportError("the connection was lost")


@pytest.mark.parametrize("before", [True, False], ids=["before SLURM had it", "after"])
async def test_a_submission_whose_answer_is_lost_is_not_made_twice(
    by_sudo: Bench, before: bool
) -> None:
    transport = ForgetfulTransport(by_sudo.cluster.user, before=before)
    await by_sudo.launcher(transport=transport).run(by_sudo.batch(4), by_sudo.on_results)
    assert by_sudo.succeeded == [0, 1, 2, 3]
    assert set(by_sudo.began().values()) == {1}
    assert len(by_sudo.submitted) == 1
    assert "the connection was lost" in by_sudo.said[0]


async def _fails(
    bench: Bench, batch: Batch, act: Callable[[], Any], launcher: SlurmLauncher | None = None
) -> BatchEnd:
    running = asyncio.create_task((launcher or bench.launcher()).run(batch, bench.on_results))
    await bench.has_begun(1)
    await act()
    await asyncio.wait([running], timeout=90)
    assert running.done(), (bench.said, bench.succeeded)
    return await running


async def test_jobs_that_are_cancelled_from_outside_say_so(by_sudo: Bench) -> None:
    end = await _fails(by_sudo, by_sudo.batch(2, seconds=60), by_sudo.cluster.cancel_all)
    assert end.missing == (0, 1)
    assert not end.stopped
    assert all("CANCELLED" in end.reasons[unit] for unit in end.missing)


async def test_jobs_survive_that_the_controller_is_away(by_sudo: Bench) -> None:
    async def outage() -> None:
        by_sudo.cluster.kill("slurmctld", signal.SIGTERM)  # a killed one forgets jobs
        await asyncio.sleep(2)
        await by_sudo.cluster.start("slurmctld")

    end = await _fails(by_sudo, by_sudo.batch(8, seconds=1.5), outage)
    assert not end.missing
    assert set(by_sudo.began().values()) == {1}


async def test_connections_may_break(cluster: Cluster, bench: Bench) -> None:
    async def outage() -> None:
        cluster.kill("sshd")
        await asyncio.sleep(2)
        await cluster.start("sshd")

    end = await _fails(bench, bench.batch(8, seconds=1.5), outage)
    assert not end.missing
    assert set(bench.began().values()) == {1}


# The second unit needs 150 MB, for long enough that SLURM sees it.
HUNGRY = (
    "import sys, time; "
    "hungry = sys.argv[2].endswith('par-000001.args.json'); "
    "kept = bytearray(150_000_000 if hungry else 1); time.sleep(4 if hungry else 0)"
)


async def test_units_that_need_too_much_memory_say_so_and_others_run(by_sudo: Bench) -> None:
    meta = {"mem": 100, "tasks_per_job": 4, "parallel_tasks_per_job": 1}
    batch = by_sudo.batch(4, command=(PYTHON, "-c", HUNGRY), meta=meta)
    end = await by_sudo.launcher().run(batch, by_sudo.on_results)
    assert end.missing == (1,)
    assert "OUT_OF_MEMORY" in end.reasons[1]
    assert "exceeded memory limit" in end.reasons[1]
    assert by_sudo.succeeded == [0, 2, 3]


async def test_a_later_attempt_has_more_memory_where_that_is_wanted(by_sudo: Bench) -> None:
    meta = {"mem": 100, "retry": {"max": 1, "mem_factor": 3}}
    batch = by_sudo.batch(2, command=(PYTHON, "-c", HUNGRY), meta=meta, attempt=2)
    end = await by_sudo.launcher().run(batch, by_sudo.on_results)
    assert not end.missing
    assert by_sudo.succeeded == [0, 1]


async def test_units_of_a_node_that_fails_run_again(by_sudo: Bench) -> None:
    cluster = by_sudo.cluster
    node = f"nodename={cluster.node}"

    async def is_resumed() -> bool:
        with contextlib.suppress(ClusterError):  # as long as it is not seen to be down
            await cluster.run("scontrol", "update", node, "state=resume")
        # It may also have come back by itself, as it answers.
        return "down" not in await cluster.run("sinfo", "--noheader", "--format=%T")

    async def node_fails() -> None:
        await cluster.run("scontrol", "update", node, "state=down", "reason=the tests")
        await eventually(is_resumed, bool)

    end = await _fails(by_sudo, by_sudo.batch(2, seconds=3), node_fails)
    assert not end.missing
    assert by_sudo.succeeded == [0, 1]
    assert set(by_sudo.ended().values()) == {1}
    assert len(set(by_sudo.submitted)) == 2
    assert any("NODE_FAIL" in said for said in by_sudo.said)


async def test_more_jobs_than_an_array_may_have_are_several_arrays(by_sudo: Bench) -> None:
    meta = {"tasks_per_job": 1, "parallel_tasks_per_job": 1}
    async with by_sudo.cluster.configured(MaxArraySize=3):
        end = await by_sudo.launcher().run(by_sudo.batch(7, meta=meta), by_sudo.on_results)
    assert not end.missing
    assert by_sudo.succeeded == list(range(7))
    assert len(by_sudo.submitted) == 3


async def test_what_does_not_fit_into_slurm_jobs_is_refused_before_anything_is_submitted(
    by_sudo: Bench,
) -> None:
    batch = by_sudo.batch(2, meta={"cpus_per_task": 5})
    with pytest.raises(BatchingError, match="max_cpus_per_job"):
        await by_sudo.launcher().run(batch, by_sudo.on_results)
    assert not by_sudo.there.exists()


class ServerTransport(LocalTransport):
    """Commands are given by the server's user, who is not root, by the rule for sudo."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.user)
        self._server_user = cluster.server_user

    def prefix(self) -> list[str]:
        return ["runuser", "-u", self._server_user, "--", *super().prefix()]


async def test_the_rule_for_sudo_is_enough_for_a_server_without_other_rights(
    by_sudo: Bench,
) -> None:
    launcher = by_sudo.launcher(transport=ServerTransport(by_sudo.cluster))
    batch = by_sudo.batch(6, seconds=1)
    running = asyncio.create_task(launcher.run(batch, by_sudo.on_results))
    await by_sudo.has_begun(4)
    await launcher.stop(batch.folder)
    end = await running
    assert end.stopped
    await by_sudo.cluster.wait_idle()
