import json
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from flows.units.batch import Batch, BatchUnit, DamagedBatchError, write_batch
from flows.units.results import (
    DamagedResultsError,
    Imports,
    ResultsReader,
    UnitResult,
)

HEAD = {"format": 2, "host": "node1", "pid": 1, "started_at": 1.0}


def result_line(index: int, **changes: Any) -> dict[str, Any]:
    line = {
        "index": index,
        "exit_code": 0,
        "signal": None,
        "error": None,
        "started_at": 10.5,
        "ended_at": 11.0,
        "max_rss_kb": 2048,
        "cpu_seconds": 0.25,
        "host": "node1",
        "has_output": True,
        "has_warnings": False,
    }
    return line | changes


def append(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def batch(folder: Path, **changes: Any) -> Batch:
    values: dict[str, Any] = {
        "folder": folder / "batch",
        "units_dir": folder / "units",
        "command": ("true",),
        "common_args": {"size": 1},
        "units": [BatchUnit(0, "000000", {"zarr_url": "/a"})],
        "max_parallel": 1,
    }
    return Batch(**(values | changes))


def test_a_batch_is_written_with_absolute_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_batch(batch(Path(), cwd=Path("here")))
    assert json.loads((tmp_path / "batch" / "batch.json").read_text()) == {
        "format": 2,
        "command": ["true"],
        "max_parallel": 1,
        "args": {"size": 1},
        "units": [{"index": 0, "name": "000000", "args": {"zarr_url": "/a"}}],
        "units_dir": str(tmp_path / "units"),
        "cwd": str(tmp_path / "here"),
        "env": None,
        "grace_seconds": 5.0,
        "attempt": 1,
        "warm": False,
    }
    assert [file.name for file in (tmp_path / "batch").iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ()}, "has no command"),
        ({"max_parallel": 0}, "would run 0 units at once"),
        ({"attempt": 0}, "is attempt 0; the first is 1"),
        ({"units": [BatchUnit(1, "a", {}), BatchUnit(1, "b", {})]}, "2 units with the index 1"),
        ({"units": [BatchUnit(1, "a", {}), BatchUnit(2, "a", {})]}, "2 units with the name 'a'"),
    ],
)
def test_an_impossible_batch_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        batch(tmp_path, **changes)


def begin(folder: Path, **changes: Any) -> Path:
    """A `batch.json` as it was written, with changes; None takes an entry away."""
    write_batch(batch(folder))
    path = folder / "batch" / "batch.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def test_a_begun_batch_is_left_as_it_is(tmp_path: Path) -> None:
    path = begin(tmp_path, cwd=None, env=None, unheard_of=1)
    write_batch(batch(tmp_path))
    inode = path.stat().st_ino
    write_batch(batch(tmp_path))
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    "changes",
    [
        {"max_parallel": 7},
        {"warm": True},
        {"format": 1},
        {"format": 1, "attempt": None, "grace_seconds": None},
    ],
)
def test_a_begun_batch_is_brought_up_to_date(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = begin(tmp_path, **changes)
    write_batch(batch(tmp_path))
    content = json.loads(path.read_text())
    assert (content["format"], content["max_parallel"], content["attempt"]) == (2, 1, 1)
    assert [file.name for file in path.parent.iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ["false"]}, r"does not match the job \(in: command\)"),
        ({"args": {"size": 2}, "units": []}, r"does not match the job \(in: args, units\)"),
        ({"units_dir": None}, r"does not match the job \(in: units_dir\)"),
        ({"cwd": "/elsewhere"}, r"does not match the job \(in: cwd\)"),
        ({"format": 3}, "has format 3, supported are 1 to 2; .* newer version: upgrade"),
    ],
)
def test_another_batch_in_the_same_place_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = begin(tmp_path, **changes)
    before = path.read_bytes()
    with pytest.raises(DamagedBatchError, match=f"{path} {message}"):
        write_batch(batch(tmp_path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"format": 2, "comm', b"\xff", b"[1]"])
def test_a_damaged_batch_is_refused(tmp_path: Path, content: bytes) -> None:
    path = begin(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DamagedBatchError, match=f"{path} is damaged: "):
        write_batch(batch(tmp_path))


def test_a_result_is_read_with_its_times_in_utc(path: Path) -> None:
    append(path, HEAD, result_line(3))
    assert ResultsReader(path).read() == [
        UnitResult(
            index=3,
            exit_code=0,
            signal=None,
            error=None,
            started_at=datetime(1970, 1, 1, 0, 0, 10, 500_000, tzinfo=UTC),
            ended_at=datetime(1970, 1, 1, 0, 0, 11, tzinfo=UTC),
            max_rss_kb=2048,
            cpu_seconds=0.25,
            host="node1",
            has_output=True,
            has_warnings=False,
        )
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"exit_code": 1}, False),
        ({"exit_code": None, "signal": 9}, False),
        ({"error": "stopped"}, False),
    ],
)
def test_a_unit_succeeded_if_it_ended_by_itself_with_exit_code_0(
    path: Path, changes: dict[str, Any], expected: bool
) -> None:
    append(path, result_line(0, **changes))
    assert [result.succeeded for result in ResultsReader(path).read()] == [expected]


def test_each_result_is_read_once_and_a_line_only_when_it_is_whole(path: Path) -> None:
    reader = ResultsReader(path)
    assert reader.read() == []
    append(path, HEAD, result_line(0))
    text = json.dumps(result_line(1))
    with path.open("a") as file:
        file.write(text[:40])
    assert [result.index for result in reader.read()] == [0]
    assert reader.read() == []
    with path.open("a") as file:
        file.write(text[40:] + "\n")
    assert [result.index for result in reader.read()] == [1]
    assert reader.read() == []


def test_many_results_are_read_in_portions(path: Path) -> None:
    append(path, HEAD, *(result_line(index) for index in range(3000)))
    reader = ResultsReader(path)
    portions = []
    while results := reader.read():
        portions.append([result.index for result in results])
    assert len(portions) > 1
    assert list(chain.from_iterable(portions)) == list(range(3000))


def test_the_end_is_that_of_the_latest_runner(path: Path) -> None:
    reader = ResultsReader(path)
    seen = []
    for line in (
        HEAD,
        {"end": True, "ended_at": 2.0, "stopped": True},
        HEAD,
        {"end": True, "ended_at": 3.0, "stopped": False},
    ):
        append(path, line)
        assert reader.read() == []
        seen.append((reader.ended, reader.stopped))
    assert seen == [(False, False), (True, True), (False, False), (True, False)]


def test_results_of_an_older_version_and_killed_units_are_read(path: Path) -> None:
    append(path, HEAD | {"format": 1}, result_line(0), {"killed": [1], "at": 2.0})
    append(path, HEAD, result_line(1), {"end": True, "ended_at": 3.0, "stopped": False})
    reader = ResultsReader(path)
    assert [result.index for result in reader.read()] == [0, 1]
    assert reader.ended


def test_results_of_a_newer_version_are_refused(path: Path) -> None:
    append(path, HEAD | {"format": 3})
    with pytest.raises(DamagedResultsError, match=f"{path} has format 3, .* upgrade"):
        ResultsReader(path).read()


END = {"end": True, "ended_at": 3.0, "stopped": False}
WARM = {"seconds": 5.1, "units": 16, "why_cold": None}


def test_the_end_tells_what_imports_took(path: Path) -> None:
    append(path, HEAD, END | {"warm": WARM})
    reader = ResultsReader(path)
    assert reader.read() == []
    assert reader.imports == Imports(seconds=5.1, units=16, why_cold=None)


@pytest.mark.parametrize(
    "warm", [{}, {**WARM, "units": -1}, {**WARM, "seconds": "1"}, {**WARM, "why_cold": "x" * 2000}]
)
def test_a_wrong_end_is_named(path: Path, warm: dict[str, Any]) -> None:
    append(path, HEAD, END | {"warm": warm})
    with pytest.raises(DamagedResultsError, match=f"{path}, line 2 is not a result"):
        ResultsReader(path).read()


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", "null", '{"index": 1}', '{"end": true}', "", '{"other": 1}']
)
def test_a_damaged_line_is_named(path: Path, line: str) -> None:
    append(path, HEAD, result_line(0))
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DamagedResultsError, match=f"{path}, line 3 is not a result"):
        ResultsReader(path).read()
