"""What the runners of a job say of where they ran, what they had, and what their units used."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.units.job_folder import JobFolder
from flows.units.runners import Reserved, Runner, runners_of

WARM = {"seconds": 5.1, "units": 16, "why_cold": None}
SLURM = {"job": "12_3", "cpus": 4, "mem_mb": 2048, "gpus": 1, "since": None}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def head(seconds: float, **more: Any) -> dict[str, Any]:
    own = {"host": "node1", "pid": 7, "started_at": seconds, "at_once": 4}
    return {"format": 2, **own, **more}


def result(index: int, started_at: float, ended_at: float) -> dict[str, Any]:
    used = {"max_rss_kb": 1 << 20, "cpu_seconds": 2.5}
    return {"index": index, "started_at": started_at, "ended_at": ended_at, **used}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


def write(folder: JobFolder, batch: str, *lines: Any) -> None:
    (folder.path / batch).mkdir(parents=True)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder.path / batch / "results.jsonl").write_text(text)


def test_a_runner_has_what_its_units_used(folder: JobFolder) -> None:
    end = {"end": True, "ended_at": 40.0, "stopped": False}
    write(folder, "0_a/batches/parallel", head(10.0), result(0, 11, 21), result(1, 11, 31), end)
    assert runners_of(folder) == [
        Runner("0_a/batches/parallel", 0, "node1", at(10), at(40), 4, None, 2, 5.0, 30.0)
    ]


def test_runners_of_one_batch_follow_each_other(folder: JobFolder) -> None:
    """The first was killed: it used its time up to the last unit that ended, and what is known."""
    killed = {"killed": [1], "at": 25.0}
    lines = [head(10.0), result(0, 11, 21), killed, head(50.0), result(1, 51, 52)]
    write(folder, "0_a/batches/parallel", *lines)
    found = [(each.number, each.started_at, each.ended_at) for each in runners_of(folder)]
    assert found == [(0, at(10), at(25)), (1, at(50), at(52))]


def test_a_runner_has_what_slurm_reserved_since_then(folder: JobFolder) -> None:
    slurm = {**SLURM, "since": 8.0}
    write(folder, "0_a/batches/parallel/000000", head(10.0, slurm=SLURM), result(0, 11, 21))
    write(folder, "0_a/batches/parallel/000001", head(10.0, slurm=slurm), result(1, 11, 21))
    first, second = runners_of(folder)
    assert first.reserved == Reserved(job="12_3", cpus=4, mem_mb=2048, gpus=1)
    assert (first.batch, first.started_at) == ("0_a/batches/parallel/000000", at(10))
    assert second.started_at == at(8)


def test_imports_are_those_of_all_runners_that_have_come_to_their_ends(folder: JobFolder) -> None:
    ends = [WARM, {"seconds": 2.0, "units": 0, "why_cold": "why"}, None, {"seconds": -1.0}]
    for number, warm in enumerate(ends):
        end = {"end": True, "ended_at": 3.0, "stopped": False, **({"warm": warm} if warm else {})}
        write(folder, f"0_a/batches/parallel/{number:06d}", head(1.0), end)
    write(folder, "0_a/batches/parallel/000004", head(1.0))
    found = [runner.imports for runner in runners_of(folder)]
    told = [(each.seconds, each.why_cold) for each in found if each is not None]
    assert told == [(5.1, None), (2.0, "why")]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "7",
        "null",
        "[]",
        "{}",
        '{"index": 1}',
        json.dumps(result(1, 11, 1e300)),
        json.dumps({**result(1, 11, 12), "cpu_seconds": "much"}),
        json.dumps({**result(1, 11, 12), "max_rss_kb": 1 << 62}),
        '{"format": 2, "started_at": NaN, "host": "x"}',
        '{"killed": [], "at": null}',
        "[" * 100_000,
    ],
)
def test_what_units_wrote_into_the_results_counts_nothing(folder: JobFolder, line: str) -> None:
    write(folder, "0_a/batches/parallel", head(10.0), result(0, 11, 21))
    path = folder.path / "0_a" / "batches" / "parallel" / "results.jsonl"
    path.write_text(f"{line}\n{path.read_text()}{line}\n")
    (runner,) = runners_of(folder)
    assert (runner.num_units, runner.ended_at) == (1, at(21))


def test_results_that_are_somewhere_else_are_not_read(folder: JobFolder, tmp_path: Path) -> None:
    write(folder, "0_a/batches/parallel", head(10.0))
    path = folder.path / "0_a" / "batches" / "parallel" / "results.jsonl"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert runners_of(folder) == []


def test_what_a_unit_calls_its_slurm_job_can_be_stored(folder: JobFolder) -> None:
    slurm = {**SLURM, "job": "\x00 12"}
    write(folder, "0_a/batches/parallel", head(10.0, slurm=slurm))
    odd = folder.path / "0_a" / "batches" / "parallel" / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "results.jsonl").write_text(f"{json.dumps(head(10.0))}\n")
    first, second = runners_of(folder)
    assert first.reserved is not None
    assert first.reserved.job == "\N{REPLACEMENT CHARACTER} 12"
    assert second.batch == "0_a/batches/parallel/caf\N{REPLACEMENT CHARACTER}"


def test_a_file_that_is_no_results_any_more_is_read_no_further(folder: JobFolder) -> None:
    write(folder, "0_a/batches/parallel", head(10.0), result(0, 11, 21))
    path = folder.path / "0_a" / "batches" / "parallel" / "results.jsonl"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert [runner.num_units for runner in runners_of(folder)] == [1]


def test_lines_that_make_no_end_of_runners_make_no_end_of_rows(folder: JobFolder) -> None:
    write(folder, "0_a/batches/parallel", *[head(10.0)] * 1500)
    assert len(runners_of(folder)) == 1000
