"""What a cluster answers is hostile: units can replace whatever answers in their user's name."""

import asyncio
import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.launchers.slurm.cluster import SubmissionRefusedError, unpacked
from flows.launchers.slurm.launcher import SlurmLauncher
from flows.process import transport
from flows.process.transport import (
    AnswerError,
    CommandError,
    LocalTransport,
    TransportError,
)
from flows.units.batch import DamagedFileError
from flows.units.results import UnitResult
from tests import night
from tests.fake_cluster import FakeCluster, answer, batch_of_two, fake_context, lines, result

MIB = 1 << 20


class Victim:
    """A job of two units on a cluster that answers as it likes; beside its folder is a secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "jobs" / "job"
        self.home.mkdir(parents=True)
        (folder / "secret").write_text("of the server")
        (folder / "jobs" / "other").mkdir()

    async def run(self, cluster: FakeCluster) -> list[UnitResult]:
        found: list[UnitResult] = []

        async def on_results(results: list[UnitResult]) -> None:
            found.extend(results)

        async def on_submitted(job_id: int) -> None:
            assert 0 < job_id < 2**31

        launcher = SlurmLauncher(fake_context(self.home, cluster, on_submitted, lambda _: None))
        batch = batch_of_two(self.home)
        async with asyncio.timeout(20):
            await launcher.run(batch, on_results)
        return found

    def outside(self) -> dict[str, str]:
        """All that is not in the job's folder."""
        return {
            str(path): path.read_text() if path.is_file() else ""
            for path in self.folder.rglob("*")
            if not path.is_relative_to(self.home)
        }

    def inside(self) -> set[str]:
        """The files of the job's folder, but for what the launcher itself keeps there."""
        found = {str(p.relative_to(self.home)) for p in self.home.rglob("*") if not p.is_dir()}
        kept = ("queue.json", "pace", "0_task/batches")
        return {name for name in found if not name.startswith(kept)}


SENTENCES = (CommandError, DamagedFileError, SubmissionRefusedError)


async def attack(folder: Path, cluster: FakeCluster) -> str:
    """Let a job hear what a cluster answers; the sentence with which it ends, if it does not well.

    Nothing outside of its folder may change, and in it there may be nothing but files of its units.
    """
    with contextlib.ExitStack() as stack:
        victim = Victim(folder)
        before = victim.outside()
        stack.callback(tracemalloc.stop)
        tracemalloc.start()
        try:
            found = await victim.run(cluster)
            said = ""
        except SENTENCES as error:
            found, said = [], str(error)
            assert said
            assert "\x00" not in said
        assert tracemalloc.get_traced_memory()[1] < 200 * MIB
    assert victim.outside() == before
    assert all(name.startswith("0_task/par-00000") for name in victim.inside()), victim.inside()
    assert {each.index for each in found} <= {0, 1}
    return said


HOSTILE_NAMES = [
    "units//etc/cron.d/evil",
    "units/../../../secret",
    "units/../other/evil",
    "units/par-000000.log/../../evil",
    "units/par-000007.log",
    "units/par-000000.args.json",
    "units/par-000000.sh",
    "units/.log",
    "units/",
    "results/../../../../secret",
    "results/7",
    "results/-1",
    "results/00",
    "results/\u0661",
    "results/",
    "/etc/passwd",
    "",
    "units/par-000000.log\x00",
    "../secret",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_only_files_that_the_batch_must_have_are_taken(name: str, tmp_path: Path) -> None:
    said = await attack(tmp_path, FakeCluster(answer((name, b"evil"))))
    assert "which this job has not" in said
    assert not any(path.read_bytes() == b"evil" for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "line",
    [
        result(2),  # of no unit
        result(-1),
        result(1),  # of the other part
        {**result(), "index": True},
        result(0, exit_code=2**70),
        result(0, signal=-9),
        result(0, error=7),
        result(0, error="x" * 20_000),
        result(0, started_at=1e300),
        result(0, started_at=float("nan")),
        result(0, ended_at=-1e15),
        result(0, max_rss_kb=2**80),
        result(0, cpu_seconds=float("inf")),
        result(0, host=["node"]),
        result(0, has_output="yes"),
        result(0, more=1),
        {"format": [2]},
        {"end": True},
        [],
    ],
)
async def test_every_number_and_text_of_a_result_is_checked(line: object, tmp_path: Path) -> None:
    said = await attack(tmp_path, FakeCluster(answer(("results/0", lines(line)))))
    assert "results.jsonl" in said


async def test_texts_of_a_result_can_be_stored(tmp_path: Path) -> None:
    hostile = result(0, exit_code=1, error="\x00\x1b[2J", host="\x00node")
    cluster = FakeCluster(answer(("results/0", lines(hostile))))
    found = await Victim(tmp_path).run(cluster)
    assert found[0].error == "\N{REPLACEMENT CHARACTER}" * 2 + "[2J"
    assert found[0].host == "\N{REPLACEMENT CHARACTER}node"


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000 + b"\n", b"x" * MIB, b"9" * 100_000 + b"\n", b"\xff\n", b"\n"],
    ids=["deep", "without end", "a long number", "no UTF-8", "empty"],
)
async def test_a_line_that_cannot_be_read_ends_the_job(content: bytes, tmp_path: Path) -> None:
    said = await attack(tmp_path, FakeCluster(answer(("results/0", content))))
    assert "is not a result of the unit runner" in said


async def test_results_have_an_end(tmp_path: Path) -> None:
    more = answer(("results/0", lines({"format": 2, "host": "node"}) * 2000))
    said = await attack(tmp_path, FakeCluster(*[more] * 1000))
    assert "bytes of results" in said


@pytest.mark.parametrize(
    "index",
    [
        b"[" * MIB,
        b"[" + b'["",0],' * MIB,
        b'[["units/par-000000.log", 99999999999999999999]]',
        b'[["units/par-000000.log", -1]]',
        b'[["units/par-000000.log", 1e3]]',
        b'[["results/0", 4], ["results/0", 0]]',
        b'{"results/0": 4}',
        b"[1]",
        b"\xff\xfe",
    ],
)
def test_an_index_of_files_is_read_in_little_memory(index: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(AnswerError):
            unpacked(index + b"\nevil")
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


HOSTILE_FILES = st.tuples(
    st.one_of(
        st.sampled_from(HOSTILE_NAMES),
        st.sampled_from(["units/par-000000.log", "units/par-000001.out.json", "results/0"]),
        st.text(max_size=40),
    ),
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.sampled_from(sorted(result())), st.none() | st.integers()).map(
            lambda fields: lines({**result(), **fields})
        ),
    ),
)


@settings(
    max_examples=night.examples(40, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    hostile=st.one_of(
        st.binary(max_size=500), st.lists(HOSTILE_FILES, max_size=4).map(lambda f: answer(*f))
    ),
    sbatch=st.just(b"Submitted batch job 1\n") | st.binary(max_size=60),
    squeue=st.just(b"")
    | st.binary(max_size=200)
    | st.from_regex(r"fractal-job\|.{0,60}", fullmatch=True).map(str.encode),
    scontrol=st.just(b"MaxArraySize=1001\n") | st.binary(max_size=60),
)
async def test_whatever_is_answered_nothing_outside_changes_and_the_job_ends(
    hostile: bytes,
    sbatch: bytes,
    squeue: bytes,
    scontrol: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cluster = FakeCluster(hostile, sbatch=sbatch, squeue=squeue, scontrol=scontrol)
    await attack(tmp_path_factory.mktemp("victim"), cluster)


@pytest.fixture
def small_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transport, "LONGEST_ANSWER", 4 * MIB)
    tracemalloc.start()
    yield
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()


@pytest.mark.usefixtures("small_answers")
async def test_of_endless_output_little_is_taken_into_memory() -> None:
    with pytest.raises(AnswerError, match=r"yes wrote more than 4 MiB.* begins with: y y y"):
        await LocalTransport().run(("yes",))


@pytest.mark.usefixtures("small_answers")
async def test_of_endless_errors_the_end_is_kept() -> None:
    ended = await LocalTransport().run(("sh", "-c", "head -c 50000000 /dev/zero >&2; echo no >&2"))
    assert ended.stderr.endswith(b"no\n")


async def test_a_command_that_reads_nothing_of_its_input_ends() -> None:
    assert (await LocalTransport().run(("true",), b"x" * 10 * MIB)).exit_code == 0


async def test_a_command_that_says_nothing_is_given_up() -> None:
    with pytest.raises(TransportError):
        await LocalTransport().run(("sleep", "60"), seconds=0.2)
