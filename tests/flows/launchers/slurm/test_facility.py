"""What facilities' clusters do every day: limits, preemption, memory kills, outages, reservations.

Cases that wait for the same thing wait together; each has a batch of its own.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.base import BatchEnd
from flows.launchers.slurm.cluster import SubmissionRefusedError
from flows.launchers.slurm.state import SlurmState
from flows.launchers.slurm.verdict import OF_THE_CLUSTER
from flows.process.transport import (
    Completed,
    LocalTransport,
    SSHTransport,
    Transport,
    program_of,
)
from flows.units.batch import Batch, BatchUnit
from tests.cluster import Cluster, ClusterError
from tests.flows.launchers.slurm.test_launcher import PYTHON, Bench
from tests.lab import eventually

Benches = Callable[[str], Bench]
ONE_EACH = {"tasks_per_job": 1, "parallel_tasks_per_job": 1}


@pytest.fixture
async def benches(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Benches]:
    """Makes benches: by sudo, or by SSH over one connection."""
    cluster.known_hosts.write_text(cluster.host_key)
    host = f"127.0.0.1:{cluster.ssh_port}"
    transports: dict[str, Transport] = {
        "sudo": LocalTransport(cluster.user),
        "ssh": SSHTransport(host, cluster.user, cluster.key_path, cluster.known_hosts),
    }
    made: list[Bench] = []

    def make(kind: str) -> Bench:
        made.append(Bench(cluster, transports[kind], tmp_path / f"{len(made)}"))
        made[-1].home.parent.mkdir()
        return made[-1]

    yield make
    await cluster.cancel_all()
    await transports["ssh"].close()


@pytest.fixture(autouse=True)
async def nodes_that_stay_up(cluster: Cluster) -> AsyncIterator[None]:
    """What one test made SLURM drain does not keep the next one waiting."""
    yield
    states = await cluster.run("sinfo", "--noheader", "--Node", "--format=%N %T")
    for node in {line.split()[0] for line in states.splitlines() if "drain" in line}:
        await cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


class Case:
    """A batch on a bench, with how it is submitted."""

    def __init__(self, bench: Bench, number: int, /, *lines: str, **fields: Any) -> None:
        self.bench = bench
        default = fields.pop("default", {})
        self.batch: Batch = bench.batch(number, **fields)
        self.launcher = bench.launcher(**default, extra_lines=[f"#SBATCH {line}" for line in lines])

    async def run(self) -> BatchEnd:
        return await self.launcher.run(self.batch, self.bench.on_results)

    async def goes_well(self) -> None:
        """Run the batch: all units end well, and none ends twice, nor two of a unit at a time."""
        end = await self.run()
        told = self.bench.said, end
        assert not end.missing, told
        assert self.bench.succeeded == [unit.index for unit in self.batch.units], told
        assert set(self.bench.ended().values()) == {1}, told
        assert not twice_at_a_time(self.bench.journal), told

    async def says(self, words: str) -> None:
        async def said() -> str:
            return " ".join(self.bench.said)

        await eventually(said, lambda now: words in now)

    @property
    def tries_in_vain(self) -> dict[int, list[str]]:
        state = SlurmState.read(self.batch.folder)
        assert state is not None
        return state.in_vain


async def together(*cases: Coroutine[Any, Any, object]) -> None:
    """Wait for all; if one fails, the others are stopped."""
    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(case)


def twice_at_a_time(journal: Path) -> list[str]:
    """Units that began while an earlier execution of them still lived."""
    lines = map(json.loads, journal.read_text().splitlines())
    open_units: dict[str, int] = {}
    found = []
    for line in lines:
        if line["event"] == "end":
            open_units.pop(line["unit"], None)
            continue
        if line["unit"] in open_units and Path(f"/proc/{open_units[line['unit']]}").exists():
            found.append(line["unit"])
        open_units[line["unit"]] = line["pid"]
    return found


async def test_a_batch_beyond_a_limit_of_submissions_is_submitted_little_by_little(
    benches: Benches,
) -> None:
    cases = []
    for kind in ("sudo", "ssh"):
        cases.append(Case(benches(kind), 5, "--qos=two", meta=ONE_EACH))
        of_guests = benches(kind)
        of_guests.account = "guests"
        cases.append(Case(of_guests, 5, meta=ONE_EACH))
    await together(*(case.goes_well() for case in cases))
    limits = ("QOSMaxSubmitJobPerUserLimit", "AssocMaxSubmitJobLimit") * 2
    for limit, case in zip(limits, cases, strict=True):
        assert limit in " ".join(case.bench.said)
        assert not case.tries_in_vain


@pytest.mark.parametrize(
    ("line", "default", "words"),
    [
        ("--qos=normal", {"partition": "nowhere"}, "Invalid partition name specified"),
        ("--qos=normal", {"account": "nowhere"}, "Invalid account"),
        ("--qos=nowhere", {}, "Invalid qos specification"),
        ("--reservation=none", {}, "Requested reservation is invalid"),
        ("--tmp=9T", {}, "Requested node configuration is not available"),
        ("--qos=normal", {"gres": "gpu:9"}, "Requested node configuration is not available"),
    ],
    ids=["partition", "account", "qos", "reservation", "disk", "gres"],
)
async def test_what_slurm_refuses_for_good_fails_at_once_with_its_words(
    benches: Benches, line: str, default: dict[str, str], words: str
) -> None:
    for kind in ("sudo", "ssh"):
        with pytest.raises(SubmissionRefusedError, match=words):
            await Case(benches(kind), 2, line, default=default).run()


class HeldTransport(LocalTransport):
    """Runs commands on this machine, but holds them back for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._may_run = asyncio.Event()
        self._may_run.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        self._may_run.clear()
        try:
            yield
        finally:
            self._may_run.set()

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        await self._may_run.wait()
        return await super().run(command, stdin, seconds=seconds)


async def test_a_full_cluster_is_waited_for_and_what_slurm_forgets_is_looked_up(
    benches: Benches, cluster: Cluster
) -> None:
    """Two batches do not hear of SLURM until it has forgotten them. Accounting is away then, for
    longer than one of them waits for it, but not the other."""

    def deaf(*, patience: float) -> Case:
        bench = benches("sudo")
        bench.patience = patience
        bench.queries = queries
        return Case(bench, 2, args={"until": str(bench.journal.with_suffix(".gate"))})

    async def are_forgotten(arrays: set[str]) -> bool:
        known = await cluster.squeue("--states=all", "--format=%F")
        jobs = f"--jobs={','.join(arrays)}"
        ends = await cluster.run("sacct", "--allocations", "--noheader", "--format=State", jobs)
        return not arrays & set(known) and ends.count("CANCELLE") == len(arrays)

    queries = HeldTransport()
    async with cluster.configured(MaxJobCount=8, MinJobAge=2):
        patient, hasty = deaf(patience=4.0), deaf(patience=0.5)
        ends, goes_on = asyncio.create_task(patient.run()), asyncio.create_task(hasty.goes_well())
        for case in (patient, hasty):
            await case.bench.has_begun(2)
        with queries.held():
            held = ("sbatch", "--hold", "--array=0-4", f"--chdir={cluster.user_folder}")
            await cluster.run(*held, "--wrap=true", user=cluster.user)
            full = Case(benches("sudo"), 4, meta=ONE_EACH)
            runs = asyncio.create_task(full.goes_well())
            await full.says("Not submitted yet")
            await cluster.run("scancel", f"--user={cluster.user}")
            await runs
            arrays = {str(case.bench.submitted[0]) for case in (patient, hasty)}
            await eventually(partial(are_forgotten, arrays), bool)
            cluster.kill("slurmdbd")
        hasty.bench.journal.with_suffix(".gate").touch()
        await goes_on
        assert "FORGOTTEN" in " ".join(hasty.bench.said)
        await cluster.start("slurmdbd")
        end = await ends
    assert end.missing == (0, 1)
    assert all("CANCELLED, as accounting tells" in why for why in end.reasons.values())


async def interrupted(case: Case, act: Callable[[Case], Any]) -> None:
    running = asyncio.create_task(case.goes_well())
    await case.bench.has_begun(1)
    await act(case)
    await running
    assert {state for states in case.tries_in_vain.values() for state in states} <= OF_THE_CLUSTER
    assert case.bench.began().total() > case.bench.ended().total()


async def test_what_the_cluster_interrupts_goes_on_and_uses_up_no_tries(
    benches: Benches, cluster: Cluster
) -> None:
    async def preempt(case: Case) -> None:
        options = ("--qos=urgent", "--partition=spare", "--cpus-per-task=16", "--output=/dev/null")
        await cluster.run("sbatch", *options, "--wrap=sleep 1", user=cluster.user)
        await case.says("PREEMPTED")

    spare = {"partition": "spare"}
    cases = [Case(benches(kind), 2, default=spare, seconds=4) for kind in ("sudo", "ssh")]
    await together(*(interrupted(case, preempt) for case in cases))


async def test_what_an_administrator_requeues_goes_on(benches: Benches, cluster: Cluster) -> None:
    """SLURM lets it wait for two minutes. Started at once, as here, an element may be refused by
    its node, which takes it for the one that was just killed there; SLURM says that it FAILED."""

    async def requeue(case: Case) -> None:
        await case.bench.has_begun(2)  # both elements run
        elements = [f"{case.bench.submitted[0]}_{index}" for index in (0, 1)]
        for element in elements:
            await cluster.run("scontrol", "update", f"JobId={element}", "Requeue=1")
            await cluster.run("scontrol", "requeue", element)
        for element in elements:
            await eventually(partial(started, element), lambda has_started: has_started)

    async def started(element: str) -> bool:
        with suppress(ClusterError):  # as long as it is still ending
            await cluster.run("scontrol", "update", f"JobId={element}", "StartTime=now")
        return (await cluster.job(element))["JobState"] in ("RUNNING", "FAILED")

    cases = [Case(benches(kind), 2, seconds=8, meta=ONE_EACH) for kind in ("sudo", "ssh")]
    await together(*(interrupted(case, requeue) for case in cases))


async def test_what_waits_says_for_what_and_runs_when_it_may(
    benches: Benches, cluster: Cluster
) -> None:
    spare = f"nodes={cluster.spare}"
    held = Case(benches("ssh"), 2, "--hold", meta=ONE_EACH)
    limited = Case(benches("sudo"), 3, "--qos=one-runs", seconds=2, meta=ONE_EACH)
    maintained = Case(benches("sudo"), 2, default={"partition": "spare"})
    reservation = ("reservationname=maintenance", "starttime=now", "duration=5")
    await cluster.run(
        *("scontrol", "create", *reservation, "flags=maint,ignore_jobs", "users=root", spare)
    )
    drained = f"nodename={cluster.spare}"
    await cluster.run("scontrol", "update", drained, "state=drain", "reason=the tests")
    running = [asyncio.create_task(case.goes_well()) for case in (held, limited, maintained)]
    try:
        await held.says("2 SLURM jobs for JobHeldUser")
        await limited.says("QOSMaxJobsPerUserLimit")
        await maintained.says("DRAINED or reserved")
    finally:
        await cluster.run("scontrol", "update", drained, "state=resume")
        await cluster.run("scontrol", "delete", "reservationname=maintenance")
    for array in held.bench.submitted:
        await cluster.run("scontrol", "release", str(array))
    await asyncio.gather(*running)


async def test_gpus_arrays_that_run_few_at_once_and_clusters_by_name(
    benches: Benches, cluster: Cluster
) -> None:
    bench = benches("ssh")
    bench.name = "tests"
    bench.max_running_jobs = 1
    gpus = Case(bench, 3, default={"partition": "spare", "gres": "gpu:1"}, meta=ONE_EACH)
    await gpus.goes_well()
    (array,) = bench.submitted
    records = (await cluster.run("scontrol", "show", "job", "--oneliner", str(array))).splitlines()
    assert all("gres/gpu=1" in record for record in records)
    spans = sorted((r.started_at, r.ended_at) for r in bench.results)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))

    elsewhere = benches("sudo")
    elsewhere.name = "elsewhere"
    lost = Case(elsewhere, 1)
    running = asyncio.create_task(lost.run())
    await lost.says("elsewhere")
    await lost.launcher.stop(lost.batch.folder)
    assert (await running).stopped


# The second unit needs 150 MB, for long enough that SLURM sees it; the others run as long.
HUNGRY = (
    "import sys, time; "
    "hungry = sys.argv[2].endswith('par-000001.args.json'); "
    "kept = bytearray(150_000_000 if hungry else 1); time.sleep(8 if hungry else 2)"
)


async def test_limits_of_memory_and_time_cost_only_the_units_that_exceed_them(
    benches: Benches, cluster: Cluster
) -> None:
    async def ends_in(case: Case, seconds: int) -> None:
        job = f"JobId={case.bench.submitted[0]}"
        await cluster.run("scontrol", "update", job, f"EndTime=now+{seconds}seconds")

    async def one_is_too_large() -> None:
        meta = {"mem": 40, "tasks_per_job": 4, "parallel_tasks_per_job": 4}
        case = Case(benches("ssh"), 4, command=(PYTHON, "-c", HUNGRY), meta=meta)
        end = await case.run()
        assert case.bench.succeeded == [0, 2, 3], (case.bench.said, end)
        assert end.missing == (1,)
        assert "OUT_OF_MEMORY" in end.reasons[1]
        assert "one unit at a time" in " ".join(case.bench.said)

    async def one_gets_more() -> None:
        meta = {"mem": 40, "tasks_per_job": 4, "parallel_tasks_per_job": 4}
        case = Case(benches("sudo"), 4, command=(PYTHON, "-c", HUNGRY), meta=meta, grows=True)
        end = await case.run()
        assert not end.missing, (case.bench.said, end)
        assert case.bench.succeeded == [0, 1, 2, 3]
        assert "again, with 80 MB for each unit" in " ".join(case.bench.said)

    async def one_is_too_slow() -> None:
        case = Case(benches("sudo"), 1, seconds=120, meta={"time": "5"})
        running = asyncio.create_task(case.run())
        await case.bench.has_begun(1)
        await ends_in(case, 1)
        end = await running
        assert end.missing == (0,)
        assert "TIMEOUT" in end.reasons[0]

    async def the_job_is_too_slow() -> None:
        """Its first unit ends in time, the others do not; SLURM tells of the limit before."""
        bench = benches("ssh")
        gate = bench.journal.with_suffix(".gate")
        gates = [{}, {"until": str(gate)}, {"until": str(gate)}]
        units = [
            BatchUnit(number, f"par-{number:06d}", {"zarr_url": f"/plate/{number}", **until})
            for number, until in enumerate(gates)
        ]
        meta = {"time": "5", "tasks_per_job": 3, "parallel_tasks_per_job": 1}
        case = Case(bench, 3, units=units, meta=meta)
        running = asyncio.create_task(case.goes_well())
        await bench.has_begun(2)
        await ends_in(case, 40)
        await case.says("TIMEOUT, told so before the time limit")
        gate.touch()
        await running
        assert sorted(bench.began().values()) == [1, 1, 2]

    await together(one_is_too_large(), one_gets_more(), one_is_too_slow(), the_job_is_too_slow())


async def test_daemons_that_are_killed_cost_nothing_but_time(
    benches: Benches, cluster: Cluster
) -> None:
    """SLURM's controller forgets what it was told in the last seconds, and accounting is away."""
    cluster.kill("slurmdbd")
    cases = [Case(benches(kind), 4, seconds=2) for kind in ("sudo", "ssh")]
    running = [asyncio.create_task(case.goes_well()) for case in cases]
    for case in cases:
        await case.bench.has_begun(1)
    cluster.kill("slurmctld")
    await asyncio.sleep(3)
    await cluster.start("slurmdbd")  # without it the controller does not start
    # A node that is given a number again refuses it, and is drained.
    cluster.write_slurm_conf(FirstJobId=5000)
    await cluster.start("slurmctld")
    cluster.write_slurm_conf()
    await asyncio.gather(*running)


async def test_ids_that_slurm_gives_again_belong_to_others(
    benches: Benches, cluster: Cluster
) -> None:
    """The controller lost its state, and begins anew with the ids of our jobs, for somebody else.

    An element of the other job ends well at once, and the next one runs: neither is ours.
    """
    cases = []
    for kind in ("sudo", "ssh"):
        bench = benches(kind)
        args = {"until": str(bench.journal.with_suffix(".gate"))}
        cases.append(Case(bench, 2, args=args, meta=ONE_EACH))
    running = [asyncio.create_task(case.goes_well()) for case in cases]
    for case in cases:
        await case.bench.has_begun(2)
    first, second = sorted(job_id for case in cases for job_id in case.bench.submitted)
    jobs = ("--allocations", "--noheader", "--format=State", f"--jobs={first},{second}")
    accounting = partial(cluster.run, "sacct", *jobs)
    await eventually(accounting, lambda told: told.split() == ["RUNNING"] * 4)
    cluster.kill("slurmctld")
    cluster.forget_jobs()
    cluster.write_slurm_conf(FirstJobId=first)
    await cluster.start("slurmctld")
    cluster.write_slurm_conf()
    options = ("--parsable", "--array=0-1", "--partition=spare", f"--chdir={cluster.user_folder}")
    script = "[ $SLURM_ARRAY_TASK_ID = 0 ] || sleep 100"
    other = await cluster.run("sbatch", *options, f"--wrap={script}", user=cluster.user)
    assert int(other) == first
    for case in cases:
        await case.says("FORGOTTEN")
        case.bench.journal.with_suffix(".gate").touch()
    await asyncio.gather(*running)
    states = partial(cluster.squeue, f"--jobs={first}", "--format=%T")
    await eventually(states, lambda states: states == ["RUNNING"])


class CountingTransport(LocalTransport):
    """Notes when which program was run, for all users together."""

    def __init__(self, moments: dict[str, list[float]], user: str | None = None) -> None:
        super().__init__(user)
        self._moments = moments

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        self._moments[program_of(command)].append(time.monotonic())
        return await super().run(command, stdin, seconds=seconds)


async def test_many_users_share_a_cluster_each_within_limits(
    cluster: Cluster, tmp_path: Path
) -> None:
    moments: dict[str, list[float]] = defaultdict(list)

    def case_of(user: str, number: int, quality: str) -> Case:
        transport = CountingTransport(moments, user)
        bench = Bench(cluster, transport, tmp_path / f"{user}-{number}", user)
        bench.home.parent.mkdir()
        bench.queries = CountingTransport(moments)
        bench.queue_file = tmp_path / "queue.json"
        bench.seconds_per_submission = 0.5
        return Case(bench, 10, f"--qos={quality}", seconds=0, meta=ONE_EACH)

    *limited, free = cluster.users
    cases = [case_of(user, number, "ten") for number in range(2) for user in limited]
    free_case = case_of(free, 0, "normal")
    began = time.monotonic()
    await together(*(case.goes_well() for case in [*cases, free_case]))
    seconds = time.monotonic() - began
    assert len(moments["squeue"]) <= seconds + 1  # once per interval, however many ask
    sent = sorted(moments["sbatch"])
    # Twice a second; a busy machine may delay one that had its turn.
    assert all(later - earlier > 4.0 for earlier, later in zip(sent, sent[10:], strict=False))
    assert len(free_case.bench.submitted) == 1
    assert "Limit" not in " ".join(free_case.bench.said)
