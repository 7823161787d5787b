"""The program that moves files of batches: sent by standard input, run by the system's Python."""

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.slurm.cluster import unpacked
from flows.programs import cluster_files


def call(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        [sys.executable, "-I", "-S", cluster_files.__file__, *arguments],
        input=stdin,
        capture_output=True,
        check=True,
    ).stdout


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A batch of three units, two of which have results."""
    units = [{"index": n, "name": f"par-{n}"} for n in range(3)]
    batch = {"units": units, "units_dir": str(tmp_path), "attempt": 2}
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    lines: list[dict[str, Any]] = [{"format": 2}, {"index": 1}, {"index": 0}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "results.jsonl").write_text(f'{text}{{"index": 2')
    for name in ("par-0.log", "par-1.log", "par-1.attempt-1.log", "par-1.out.json", "par-2.log"):
        (tmp_path / name).write_text(name)
    return tmp_path


def collect(folder: Path, offset: int = 0) -> dict[str, str]:
    request = {"batches": {"7": [str(folder), offset], "8": ["/nowhere", 0]}}
    found = unpacked(call("collect", stdin=json.dumps(request).encode()))
    return {name: content.decode() for name, content in found.items()}


def test_files_are_received_into_a_private_folder(tmp_path: Path) -> None:
    target = tmp_path / "job"
    call("receive", str(target), stdin=archive(**{"a.json": "A", "b/c.json": "C"}))
    assert (target / "a.json").read_text() == "A"
    assert (target / "b" / "c.json").read_text() == "C"
    for path in (target, target / "b", target / "a.json"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-I", "-S", cluster_files.__file__, "receive"]
    done = subprocess.run(
        [*command, str(tmp_path / "file" / "job")], input=archive(a="A"), capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.decode().strip() == f"[Errno 20] Not a directory: '{tmp_path}/file/job'"


def test_results_come_after_the_files_of_their_units(folder: Path) -> None:
    found = collect(folder)
    assert list(found) == [
        "units/par-1.attempt-1.log",
        "units/par-1.log",
        "units/par-1.out.json",
        "units/par-0.log",
        "results/7",
    ]
    assert found["results/7"].splitlines() == ['{"format": 2}', '{"index": 1}', '{"index": 0}']


def test_only_new_whole_lines_are_sent(folder: Path) -> None:
    known = len(collect(folder)["results/7"])
    assert collect(folder, known) == {}
    with (folder / "results.jsonl").open("a") as file:
        file.write("}\n")
    assert collect(folder, known) == {"units/par-2.log": "par-2.log", "results/7": '{"index": 2}\n'}


def test_the_middle_of_a_long_log_is_left_out(folder: Path) -> None:
    (folder / "par-0.log").write_text("b" + "x" * 2 * cluster_files.LONGEST_LOG + "e")
    log = collect(folder)["units/par-0.log"]
    assert len(log) < cluster_files.LONGEST_LOG + 10
    assert (log[0], log[-1]) == ("b", "e")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_regular_file_is_as_if_it_were_not_there(
    folder: Path, make: Callable[[Path], None]
) -> None:
    for name in ("par-0.log", "par-1.out.json"):
        (folder / name).unlink()
        make(folder / name)
    (folder / "output").unlink(missing_ok=True)
    make(folder / "output")
    assert list(collect(folder)) == ["units/par-1.attempt-1.log", "units/par-1.log", "results/7"]
    request = json.dumps([[str(folder), str(folder / "output")]]).encode()
    assert json.loads(call("end", stdin=request)) == [["", []]]
    (folder / "results.jsonl").unlink()
    make(folder / "results.jsonl")
    assert collect(folder) == {}
    make(folder / "stop")
    call("stop", stdin=json.dumps([str(folder)]).encode())
    (folder / "batch.json").unlink()
    make(folder / "batch.json")
    assert json.loads(call("end", stdin=request)) == [["", []]]


@pytest.mark.parametrize("line", ["{", "[]", '{"index": "0"}', '{"index": 9}', "[" * 5000])
def test_lines_that_are_no_results_are_sent_without_files(folder: Path, line: str) -> None:
    (folder / "results.jsonl").write_text(f"{line}\n")
    assert collect(folder) == {"results/7": f"{line}\n"}


def test_of_a_line_that_does_not_end_the_beginning_is_sent(folder: Path) -> None:
    (folder / "results.jsonl").write_text("x" * 2 * cluster_files.RESULTS_AT_ONCE)
    assert collect(folder) == {"results/7": "x" * cluster_files.RESULTS_AT_ONCE}


def test_of_a_long_output_so_much_is_sent_that_it_shows(folder: Path) -> None:
    with (folder / "par-1.out.json").open("wb") as file:
        file.truncate(2 * cluster_files.LONGEST_OUTPUT)
    output = collect(folder)["units/par-1.out.json"]
    assert len(output) == cluster_files.LONGEST_OUTPUT + 1


def test_no_answer_is_much_longer_than_one_should_be(folder: Path) -> None:
    for unit in range(2):
        (folder / f"par-{unit}.out.json").write_bytes(b"x" * cluster_files.AT_ONCE)
    found = collect(folder)
    assert list(found) == [
        "units/par-1.attempt-1.log",
        "units/par-1.log",
        "units/par-1.out.json",
        "results/7",
    ]
    assert list(collect(folder, len(found["results/7"]))) == [
        "units/par-0.log",
        "units/par-0.out.json",
        "results/7",
    ]


def test_word_is_left_that_batches_are_to_stop(folder: Path) -> None:
    call("stop", stdin=json.dumps([str(folder), "/nowhere"]).encode())
    assert (folder / "stop").exists()


def test_it_is_told_what_was_said_at_the_end_and_what_had_begun(folder: Path) -> None:
    (folder / "output").write_text("x" * 2 * cluster_files.TAIL + "end")
    for name in ("par-0", "par-2"):
        (folder / f"{name}.args.json").touch()
    request = [[str(folder), str(folder / "output")], ["/nowhere", "/nowhere/output"]]
    (said, unfinished), nothing = json.loads(call("end", stdin=json.dumps(request).encode()))
    assert said.endswith("end")
    assert len(said) == cluster_files.TAIL
    assert unfinished == [2]  # unit 0 has a result, unit 1 was not started
    assert nothing == ["", []]


def test_what_an_attempt_before_had_begun_does_not_count(folder: Path) -> None:
    (folder / "par-2.args.json").touch()
    os.utime(folder / "par-2.args.json", (1, 1))
    ((_, unfinished),) = json.loads(call("end", stdin=json.dumps([[str(folder), "-"]]).encode()))
    assert unfinished == []


def test_folders_are_removed_but_not_what_links_lead_to(tmp_path: Path) -> None:
    job, others = tmp_path / "job", tmp_path / "others"
    for folder in (job / "0_task", others):
        folder.mkdir(parents=True)
        (folder / "image").touch()
    (job / "link").symlink_to(others)
    replaced = tmp_path / "replaced"
    replaced.symlink_to(others)
    folders = [str(job), str(tmp_path / "gone before"), str(replaced)]
    gone = json.loads(call("remove", stdin=json.dumps(folders).encode()))
    assert gone == folders[:2]
    assert not job.exists()
    assert (others / "image").exists()


def test_what_folders_take_is_told_without_what_links_lead_to(tmp_path: Path) -> None:
    job, large = tmp_path / "job", tmp_path / "large"
    (job / "0_task").mkdir(parents=True)
    (job / "0_task" / "image").write_bytes(bytes(100_000))
    large.write_bytes(bytes(10_000_000))
    (job / "link").symlink_to(large)
    folders = [str(job), str(tmp_path / "gone before")]
    ((folder, size),) = json.loads(call("sizes", stdin=json.dumps(folders).encode()))
    assert folder == str(job)
    assert 100_000 <= size < 200_000
