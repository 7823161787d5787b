import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import unit_runner

RUNNER = Path(unit_runner.__file__)
PATIENCE = 20.0


class BatchFolder:
    """A batch, and the runner on it. `work` is a folder for what the units of a test leave."""

    def __init__(self, root: Path) -> None:
        self.folder, self.units_dir, self.work = root / "batch", root / "units", root / "work"
        for folder in (self.folder, self.units_dir, self.work):
            folder.mkdir()
        self.runners: list[subprocess.Popen[str]] = []

    def fill(self, command: list[str], own_args: list[dict[str, Any]], **options: Any) -> None:
        content = {
            "format": 1,
            "command": command,
            "max_parallel": 2,
            "args": {},
            "units": [
                {"index": index, "name": f"{index:06d}", "args": args}
                for index, args in enumerate(own_args)
            ],
            "units_dir": str(self.units_dir),
            "cwd": str(self.work),
            "env": None,
            **options,
        }
        (self.folder / "batch.json").write_text(json.dumps(content))

    def fill_with_shell(self, script: str, units: int = 1, **options: Any) -> None:
        """In the script, $1 is the unit's index, $args and $out are its files."""
        path = self.folder / "unit.sh"
        path.write_text(f'args="$2"; out="$4"; set -- "$(grep -o "[0-9]*" "$args")"\n{script}\n')
        self.fill(["sh", str(path)], [{"i": i} for i in range(units)], **options)

    def start(self, files_of_at_most: int = -1) -> "subprocess.Popen[str]":
        limit = (
            f"import resource as r, os, sys; r.setrlimit(r.RLIMIT_FSIZE, ({files_of_at_most},)*2)"
        )
        program = [sys.executable, str(RUNNER), str(self.folder)]
        with RUNNER.open() as not_for_units:
            runner = subprocess.Popen(
                [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])", *program],
                stdin=not_for_units,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.runners.append(runner)
        return runner

    def run(self) -> "subprocess.CompletedProcess[str]":
        process = self.start()
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "results.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def results(self) -> dict[int, dict[str, Any]]:
        found = [line for line in self.lines() if "index" in line]
        assert len({line["index"] for line in found}) == len(found), "a unit has two results"
        return {line["index"]: line for line in found}

    def log(self, index: int) -> str:
        return (self.units_dir / f"{index:06d}.log").read_text()

    def files(self, index: int) -> set[str]:
        return {path.name[7:] for path in self.units_dir.glob(f"{index:06d}.*")}


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[BatchFolder]:
    batch = BatchFolder(tmp_path)
    yield batch
    for runner in batch.runners:
        runner.kill()
    unit_runner.kill_processes_of(str(batch.folder))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def lives(pid_file: Path) -> bool:
    try:
        status = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_unit_gets_the_common_arguments_overridden_by_its_own(batch: BatchFolder) -> None:
    copy = batch.work / "copy.sh"
    copy.write_text('test "$1 $3" = "--args-json --out-json" && cp "$2" "$4"\n')
    batch.fill(
        ["sh", str(copy)],
        [{"url": "a"}, {"url": "b", "size": 2}],
        args={"size": 1, "name": "gr\u00fcn"},
    )
    assert batch.run().returncode == 0
    outputs = [json.loads((batch.units_dir / f"00000{i}.out.json").read_text()) for i in (0, 1)]
    assert outputs == [
        {"size": 1, "name": "gr\u00fcn", "url": "a"},
        {"size": 2, "name": "gr\u00fcn", "url": "b"},
    ]
    assert batch.files(0) == {"args.json", "out.json", "log"}


def test_the_results_have_a_head_a_line_per_unit_and_an_end(batch: BatchFolder) -> None:
    before = time.time()
    batch.fill_with_shell('echo "{}" > $out', units=1)
    process = batch.start()
    process.communicate(timeout=PATIENCE)
    head, result, end = batch.lines()
    host = os.uname().nodename
    assert head == {"format": 1, "host": host, "pid": process.pid, "started_at": head["started_at"]}
    assert result == {
        "index": 0,
        "exit_code": 0,
        "signal": None,
        "error": None,
        "started_at": result["started_at"],
        "ended_at": result["ended_at"],
        "max_rss_kb": result["max_rss_kb"],
        "cpu_seconds": result["cpu_seconds"],
        "host": host,
        "has_output": True,
        "has_warnings": False,
    }
    assert end == {"end": True, "ended_at": end["ended_at"], "stopped": False}
    times = [head["started_at"], result["started_at"], result["ended_at"], end["ended_at"]]
    assert sorted(times) == times
    assert before <= times[0] <= times[-1] <= time.time()


def test_a_batch_without_units_ends(batch: BatchFolder) -> None:
    batch.fill(["true"], [])
    assert batch.run().returncode == 0
    assert [sorted(line)[0] for line in batch.lines()] == ["format", "end"]


def test_a_failed_unit_has_its_exit_code_and_no_output_and_the_others_go_on(
    batch: BatchFolder,
) -> None:
    batch.fill_with_shell("echo {} > $out; test $1 != 1 || exit 7", units=3, max_parallel=1)
    assert batch.run().returncode == 0
    results = batch.results()
    assert [results[i]["exit_code"] for i in range(3)] == [0, 7, 0]
    assert [results[i]["has_output"] for i in range(3)] == [True, False, True]
    assert batch.files(1) == {"args.json", "log"}


def test_what_an_earlier_execution_left_is_not_taken_for_the_units(batch: BatchFolder) -> None:
    for name in ("out.json", "out.json.partial", "log"):
        (batch.units_dir / f"000000.{name}").write_text("WARNING old")
    batch.fill_with_shell("echo new")
    batch.run()
    assert batch.files(0) == {"args.json", "log"}
    assert batch.log(0) == "new\n"
    assert not batch.results()[0]["has_output"]
    assert not batch.results()[0]["has_warnings"]


def test_stdout_and_stderr_are_in_the_log_in_order_and_stdin_is_empty(batch: BatchFolder) -> None:
    batch.fill_with_shell("echo one; echo two >&2; cat; echo three")
    batch.run()
    assert batch.log(0) == "one\ntwo\nthree\n"


def test_a_unit_is_a_process_group_of_its_own(batch: BatchFolder) -> None:
    batch.fill_with_shell("echo $$; cut -d' ' -f5 /proc/$$/stat")
    batch.run()
    pid, group = batch.log(0).splitlines()
    assert pid == group


def test_a_unit_starts_with_the_usual_signals(batch: BatchFolder) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and the runner blocks those that it waits for."""
    batch.fill(["grep", "-hse", "Sig[BI]", "/proc/self/status", "--"], [{}])
    batch.run()
    blocked, ignored = [int(line.split()[1], 16) for line in batch.log(0).splitlines()]
    assert blocked == 0
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_environment_and_folder_are_the_batchs(batch: BatchFolder) -> None:
    batch.fill_with_shell('echo "$COLOUR in $PWD, $HOME"', env={"COLOUR": "green"})
    batch.run()
    assert batch.log(0) == f"green in {batch.work}, {os.environ['HOME']}\n"


def test_without_a_folder_units_run_in_that_of_the_batch(batch: BatchFolder) -> None:
    batch.fill_with_shell("pwd", cwd=None)
    batch.run()
    assert batch.log(0) == f"{batch.folder}\n"


def test_a_unit_killed_by_a_signal_is_failed_and_its_log_says_so(batch: BatchFolder) -> None:
    batch.fill_with_shell("echo {} > $out; printf half; kill -9 $$")
    batch.run()
    result = batch.results()[0]
    assert (result["exit_code"], result["signal"], result["error"]) == (None, 9, None)
    assert not result["has_output"]
    assert batch.log(0) == "half\nThe unit was killed: Killed (9).\n"


@pytest.fixture
def executables(batch: BatchFolder) -> Path:
    """A folder with a file that is not executable, and one whose interpreter is missing."""
    (batch.work / "plain").write_text("true\n")
    (batch.work / "orphan").write_text("#!/no/such/interpreter\n")
    (batch.work / "orphan").chmod(0o755)
    return batch.work


@pytest.mark.parametrize(
    ("command", "exit_code", "error"),
    [
        ("no-such-command", 127, "executable not found: no 'no-such-command' in a folder of PATH"),
        ("/no/such/file", 127, "executable not found: '/no/such/file'"),
        ("./plain", 126, "executable cannot be started: './plain'"),
        ("./orphan", 126, "executable cannot be started: interpreter of './orphan'"),
        ("./plain/x", 127, "executable not found: './plain/x'"),
    ],
)
def test_a_unit_that_cannot_be_started_is_failed_and_its_log_says_why(
    batch: BatchFolder, executables: Path, command: str, exit_code: int, error: str
) -> None:
    batch.fill([command], [{}, {}, {}])
    assert batch.run().returncode == 0
    results = batch.results()
    assert [results[i]["exit_code"] for i in range(3)] == [exit_code] * 3
    assert results[2]["signal"] is None
    assert results[2]["error"].startswith(f"{error} (")
    assert batch.log(2) == f"The unit could not be started: {results[2]['error']}.\n"


def test_a_bare_name_is_looked_up_in_the_path_of_the_batch(batch: BatchFolder) -> None:
    (batch.work / "greet").write_text("#!/bin/sh\necho hello\n")
    (batch.work / "greet").chmod(0o755)
    batch.fill(["greet"], [{}], env={"PATH": f"/no/such/folder:{batch.work}"})
    batch.run()
    assert batch.log(0) == "hello\n"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", False),
        ("all is well", False),
        ("no warnings, WARNINGS, PREWARNING", False),
        ("Warning: said in passing", False),
        ("WARNING: low contrast", True),
        ("2024-05-01 12:00:00; WARNING; low contrast", True),
        ("first line\n/lib/site.py:12: UserWarning: low contrast", True),
    ],
)
def test_warnings_are_found_in_the_log(batch: BatchFolder, log: str, expected: bool) -> None:
    (batch.work / "text").write_text(log)
    batch.fill_with_shell("cat text")
    batch.run()
    assert batch.results()[0]["has_warnings"] is expected


def test_a_warning_of_python_is_found(batch: BatchFolder) -> None:
    script = batch.work / "unit.py"
    script.write_text("import warnings; warnings.warn('low contrast')")
    batch.fill([sys.executable, str(script)], [{}])
    batch.run()
    assert batch.results()[0]["has_warnings"]


def test_units_run_at_once_but_never_more_than_allowed(batch: BatchFolder) -> None:
    # 0 and 1 can only end if they run together.
    batch.fill_with_shell(
        "touch $1; for try in $(seq 500); do test -e 0 -a -e 1 && exit 0; sleep 0.02; done; exit 1",
        units=8,
    )
    batch.run()
    results = batch.results().values()
    assert [result["exit_code"] for result in results] == [0] * 8
    for one in results:
        at_once = [r for r in results if r["started_at"] <= one["started_at"] < r["ended_at"]]
        assert len(at_once) <= 2


def test_results_come_in_the_order_in_which_units_end(batch: BatchFolder) -> None:
    batch.fill_with_shell(
        "test $1 = 1 || until grep -q 'index\": 1' ../batch/results.jsonl; do sleep 0.01; done",
        units=2,
    )
    assert batch.run().returncode == 0
    assert list(batch.results()) == [1, 0]


def test_memory_and_cpu_time_are_the_units_with_its_descendants(batch: BatchFolder) -> None:
    script = batch.work / "unit.py"
    script.write_text(
        "import json, sys, time\n"
        "args = json.load(open(sys.argv[2]))\n"
        "memory = bytearray(args['mib'] * 2**20)\n"
        "while time.process_time() < args['cpu']: pass\n"
    )
    wrapper = batch.work / "unit.sh"
    wrapper.write_text(f'{sys.executable} {script} "$@"; exit $?\n')
    batch.fill(["sh", str(wrapper)], [{"mib": 0, "cpu": 0}, {"mib": 50, "cpu": 0.5}])
    batch.run()
    small, large = batch.results()[0], batch.results()[1]
    assert 40 * 1024 < large["max_rss_kb"] - small["max_rss_kb"] < 60 * 1024
    assert small["cpu_seconds"] < 0.5 <= large["cpu_seconds"]


def test_what_a_unit_leaves_in_the_background_is_killed(batch: BatchFolder) -> None:
    batch.fill_with_shell("sleep 1000 & echo $! > pid")
    assert batch.run().returncode == 0
    assert batch.results()[0]["exit_code"] == 0
    wait_until(lambda: not lives(batch.work / "pid"))


STUBBORN_OR_NOT = """
case $1 in
0) exit 0;;
1) ;;
2) trap '' TERM;;
3) trap 'echo {} > $out; exit 0' TERM;;
esac
echo $$ > pid.$1
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_batch_ends_its_units_and_says_so(batch: BatchFolder, told_by: int) -> None:
    batch.fill_with_shell(STUBBORN_OR_NOT, units=6, max_parallel=3, grace_seconds=1.0)
    runner = batch.start()
    pids = [batch.work / f"pid.{index}" for index in (1, 2, 3)]
    wait_until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    runner.send_signal(told_by)
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 143
    outcome = {
        index: (result["exit_code"], result["signal"], result["error"], result["has_output"])
        for index, result in batch.results().items()
    }
    assert outcome == {
        0: (0, None, None, False),
        1: (None, signal.SIGTERM, "stopped", False),
        2: (None, signal.SIGKILL, "stopped", False),
        3: (0, None, "stopped", False),
    }
    assert [batch.log(index) for index in (0, 1, 2)] == ["", *["The unit was stopped.\n"] * 2]
    assert batch.files(4) == set()
    assert batch.lines()[-1]["stopped"] is True
    wait_until(lambda: not any(lives(pid) for pid in pids))


def test_a_unit_that_ended_before_the_stop_keeps_its_result(batch: BatchFolder) -> None:
    batch.fill_with_shell("echo $$ > new; mv new pid; until test -e go; do sleep 0.02; done")
    runner = batch.start()
    wait_until((batch.work / "pid").exists)
    runner.send_signal(signal.SIGSTOP)
    (batch.work / "go").touch()
    wait_until(lambda: not lives(batch.work / "pid"))
    runner.send_signal(signal.SIGTERM)
    runner.send_signal(signal.SIGCONT)
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 143
    assert (batch.results()[0]["exit_code"], batch.results()[0]["error"]) == (0, None)


def write_results(batch: BatchFolder, *indexes: int, tail: str = "") -> None:
    lines = [{"format": 1, "host": "h", "pid": 1, "started_at": 1.0}]
    lines += [{"index": index, "exit_code": 0} for index in indexes]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (batch.folder / "results.jsonl").write_text(text + tail)


@pytest.mark.parametrize("tail", ["", '{"index": 2, "exit_', '{"index": 2}', '{"end": tr'])
def test_a_begun_batch_is_gone_on_with(batch: BatchFolder, tail: str) -> None:
    """A last line without newline was cut by a crash: its unit runs again."""
    write_results(batch, 0, 3, tail=tail)
    batch.fill_with_shell("echo $1 >> ran", units=5, max_parallel=1)
    assert batch.run().returncode == 0
    assert (batch.work / "ran").read_text().split() == ["1", "2", "4"]
    assert list(batch.results()) == [0, 3, 1, 2, 4]
    assert batch.run().returncode == 0
    assert (batch.work / "ran").read_text().split() == ["1", "2", "4"]


def test_a_damaged_line_is_named_and_nothing_runs(batch: BatchFolder) -> None:
    write_results(batch, 0, tail="damaged\n")
    batch.fill_with_shell("touch ran", units=2)
    ended = batch.run()
    assert ended.returncode == 2
    assert f"{batch.folder}/results.jsonl, line 3 is damaged: b'damaged\\n'" in ended.stderr
    assert not (batch.work / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        ("{", "Expecting"),
        ('{"format": 2}', "has format 2, needed is 1"),
        ('{"format": 1, "command": [], "max_parallel": 1}', "lacks args, units, units_dir"),
    ],
)
def test_an_unusable_batch_is_refused(
    batch: BatchFolder, content: str | None, message: str
) -> None:
    if content is not None:
        (batch.folder / "batch.json").write_text(content)
    ended = batch.run()
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_second_runner_leaves_the_batch_alone(batch: BatchFolder) -> None:
    batch.fill_with_shell("touch ran; until test -e go; do sleep 0.02; done")
    first = batch.start()
    wait_until((batch.work / "ran").exists)
    before = {path: path.read_bytes() for path in batch.folder.iterdir()}
    second = batch.run()
    assert second.returncode == 3
    assert second.stderr == f"unit_runner: another unit runner works on {batch.folder}\n"
    assert {path: path.read_bytes() for path in batch.folder.iterdir()} == before
    (batch.work / "go").touch()
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 0
    assert list(batch.results()) == [0]


def test_units_of_a_killed_runner_do_not_run_on_beside_those_of_the_next(
    batch: BatchFolder,
) -> None:
    batch.fill_with_shell("test -e pid && exit; echo $$ > pid.new; mv pid.new pid; sleep 1000")
    killed = batch.start()
    wait_until((batch.work / "pid").exists)
    killed.kill()
    killed.communicate(timeout=PATIENCE)
    assert lives(batch.work / "pid")
    assert batch.run().returncode == 0
    wait_until(lambda: not lives(batch.work / "pid"))
    assert batch.results()[0]["exit_code"] == 0


def test_a_result_that_cannot_be_written_ends_the_runner_and_its_units(batch: BatchFolder) -> None:
    """With files limited to 512 bytes there is room for one result, and the second is cut."""
    batch.fill_with_shell(
        "test $1 != 0 -o -e pid || { echo $$ > pid.new; mv pid.new pid; sleep 1000; }\n"
        "until test -e pid; do sleep 0.01; done",
        units=4,
    )
    limited = batch.start(files_of_at_most=512)
    _, stderr = limited.communicate(timeout=PATIENCE)
    assert limited.returncode == 74
    assert f"'{batch.folder}/results.jsonl'" in stderr
    assert "Traceback" not in stderr
    wait_until(lambda: not lives(batch.work / "pid"))
    assert batch.run().returncode == 0
    assert [batch.results()[index]["exit_code"] for index in range(4)] == [0] * 4


def test_it_needs_only_python_3_8_and_the_standard_library() -> None:
    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names
