import json
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.base import (
    Batch,
    BatchUnit,
    DamagedResultsError,
    ResultsReader,
    UnitResult,
    write_batch,
)

HEAD = {"format": 1, "host": "node1", "pid": 1, "started_at": 1.0}


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
        "format": 1,
        "command": ["true"],
        "max_parallel": 1,
        "args": {"size": 1},
        "units": [{"index": 0, "name": "000000", "args": {"zarr_url": "/a"}}],
        "units_dir": str(tmp_path / "units"),
        "cwd": str(tmp_path / "here"),
        "env": None,
        "grace_seconds": 5.0,
    }
    assert [file.name for file in (tmp_path / "batch").iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ()}, "has no command"),
        ({"max_parallel": 0}, "would run 0 units at once"),
        ({"units": [BatchUnit(1, "a", {}), BatchUnit(1, "b", {})]}, "2 units with the index 1"),
        ({"units": [BatchUnit(1, "a", {}), BatchUnit(2, "a", {})]}, "2 units with the name 'a'"),
    ],
)
def test_an_impossible_batch_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        batch(tmp_path, **changes)


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


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", "null", '{"index": 1}', '{"end": true}', "", '{"other": 1}']
)
def test_a_damaged_line_is_named(path: Path, line: str) -> None:
    append(path, HEAD, result_line(0))
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DamagedResultsError, match=f"{path}, line 3 is not a result"):
        ResultsReader(path).read()
