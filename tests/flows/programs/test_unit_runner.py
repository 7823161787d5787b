import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.programs import unit_runner
from tests.flows.programs.batch_folder import (
    PATIENCE,
    RUNNER,
    BatchFolder,
    has_pending,
    lives,
    wait_until,
)


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
    runner = batch.runner_pid()
    assert runner != process.pid
    started_at = head["started_at"]
    assert head == {
        "format": 2,
        "host": host,
        "pid": runner,
        "started_at": started_at,
        "at_once": 2,
    }
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
    head, end = batch.lines()
    assert head["format"] == 2
    assert end["end"]


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


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, {"job": "7", "cpus": None, "mem_mb": None, "gpus": 0, "since": None}),
        (
            {
                "SLURM_ARRAY_JOB_ID": "5",
                "SLURM_ARRAY_TASK_ID": "2",
                "SLURM_JOB_CPUS_PER_NODE": "4",
                "SLURM_MEM_PER_NODE": "2048",
                "SLURM_GPUS_ON_NODE": "1",
                "SLURM_JOB_START_TIME": "1700000000",
            },
            {"job": "5_2", "cpus": 4, "mem_mb": 2048, "gpus": 1, "since": 1_700_000_000},
        ),
        (
            {
                "SLURM_JOB_NUM_NODES": "3",
                "SLURM_JOB_CPUS_PER_NODE": "4(x2),1",
                "SLURM_MEM_PER_CPU": "100",
                "SLURM_GPUS_ON_NODE": "2",
            },
            {"job": "7", "cpus": 9, "mem_mb": 900, "gpus": 6, "since": None},
        ),
    ],
)
def test_what_slurm_has_reserved_is_read_from_its_variables(
    told: dict[str, str], expected: dict[str, Any]
) -> None:
    assert unit_runner.slurm_job({"SLURM_JOB_ID": "7", **told}) == expected


def test_environment_and_folder_are_the_batchs(batch: BatchFolder) -> None:
    batch.fill_with_shell('echo "$COLOUR in $PWD, $HOME"', env={"COLOUR": "green"})
    batch.run()
    assert batch.log(0) == f"green in {batch.work}, {os.environ['HOME']}\n"


def test_without_a_folder_units_run_in_one_in_that_of_the_batch(batch: BatchFolder) -> None:
    batch.fill_with_shell("pwd", cwd=None)
    batch.run()
    assert batch.log(0) == f"{batch.folder}/work\n"


def test_a_unit_that_removes_its_working_folder_harms_nobody(batch: BatchFolder) -> None:
    batch.fill_with_shell('echo > leftover; rm -r "$PWD"', units=3, cwd=None, max_parallel=1)
    assert batch.run().returncode == 0
    assert [result["exit_code"] for result in batch.results().values()] == [0, 0, 0]


@pytest.mark.parametrize("obstacle", ["mkfifo", "mkdir", "ln -s /dev/null", "ln -s nowhere"])
def test_what_a_unit_puts_in_place_of_anothers_files_is_not_used(
    batch: BatchFolder, obstacle: str
) -> None:
    """The first unit is in the way of the second one."""
    other = batch.units_dir / "000001"
    files = [f"{other}{ending}" for ending in (".args.json", ".log", ".out.json.partial")]
    script = f"test $1 = 1 || for i in {' '.join(files)}; do {obstacle} $i; done; echo {{}} > $out"
    batch.fill_with_shell(f"{script}; echo $1", units=2, max_parallel=1)
    assert batch.run().returncode == 0
    assert [result["exit_code"] for result in batch.results().values()] == [0, 0]
    assert batch.log(1) == "1\n"
    assert (batch.units_dir / "000001.out.json").read_text() == "{}\n"


@pytest.mark.parametrize("what", ["{batch}", "{batch}/results.jsonl"])
def test_a_runner_whose_results_are_removed_ends_with_its_units(
    batch: BatchFolder, what: str
) -> None:
    """Nobody would see what they do."""
    removed = what.format(batch=batch.folder)
    batch.fill_with_shell(
        f"echo $1 >> ran; test $1 = 1 || exec sleep 60;"
        f" until grep -q 0 ran; do sleep 0.01; done; rm -r {removed}",
        units=9,
    )
    ended = batch.run()
    assert ended.returncode == unit_runner.EXIT_NOT_WRITTEN
    assert f"{batch.folder}/results.jsonl" in ended.stderr
    assert sorted((batch.work / "ran").read_text().split()) == ["0", "1"]
    assert not batch.members()


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
        ("warn, WARN-ING", False),
        ("no warnings to speak of", True),
        ("PREWARNINGS", True),
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


@pytest.mark.parametrize("before", [2**20, 2**20 - 1, 2**20 - 6, 2**20 - 7, 3 * 2**20 + 5])
def test_warnings_are_found_anywhere_in_a_long_log(batch: BatchFolder, before: int) -> None:
    (batch.work / "0").write_text("x" * before + "WaRnInG" + "x" * 2**20)
    (batch.work / "1").write_text("x" * before + "WaRn\nInG" + "x" * 2**20)
    batch.fill_with_shell("cat $1", units=2)
    batch.run()
    results = batch.results()
    assert [results[index]["has_warnings"] for index in range(2)] == [True, False]


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


@pytest.mark.parametrize("told", ["guard", "runner"])
@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_batch_ends_its_units_and_says_so(
    batch: BatchFolder, told: str, told_by: int
) -> None:
    batch.fill_with_shell(STUBBORN_OR_NOT, units=6, max_parallel=3, grace_seconds=1.0)
    runner = batch.start()
    pids = [batch.work / f"pid.{index}" for index in (1, 2, 3)]
    wait_until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    batch.allow_stop()
    os.kill(runner.pid if told == "guard" else batch.runner_pid(), told_by)
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
    os.kill(batch.runner_pid(), signal.SIGSTOP)
    (batch.work / "go").touch()
    wait_until(lambda: not lives(batch.work / "pid"))
    batch.allow_stop()
    runner.send_signal(signal.SIGTERM)
    wait_until(lambda: has_pending(batch.runner_pid(), signal.SIGTERM))
    os.kill(batch.runner_pid(), signal.SIGCONT)
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 143
    assert (batch.results()[0]["exit_code"], batch.results()[0]["error"]) == (0, None)


WAITS = "echo $$ > pid.new.$1; mv pid.new.$1 pid.$1; until test -e go; do sleep 0.02; done"
INTERRUPTIBLE = """
test -e go && { echo $1 >> done; exit 0; }
case $1 in
0) echo $1 >> done; exit 0;;
1) ;;
2) trap '' TERM;;
3) trap 'exit 7' TERM;;
4) trap 'trap "" TERM; echo $1 >> done; echo {} > $out; exit 0' TERM;;
esac
echo $$ > new.$1; mv new.$1 pid.$1
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("told", "told_by"),
    [
        ("guard", signal.SIGTERM),
        ("runner", signal.SIGTERM),
        ("runner", signal.SIGINT),
        ("all", signal.SIGTERM),
        ("guard", signal.SIGUSR1),
    ],
)
def test_units_of_an_interrupted_runner_run_again_unless_they_ended_well(
    batch: BatchFolder, told: str, told_by: int
) -> None:
    batch.fill_with_shell(INTERRUPTIBLE, units=6, max_parallel=4, grace_seconds=1.0)
    guard = batch.start()
    batch.wait_for_units("pid.1", "pid.2", "pid.3", "pid.4")
    if told == "all":
        batch.send_to_all(told_by)
    else:
        os.kill(guard.pid if told == "guard" else batch.runner_pid(), told_by)
    _, stderr = guard.communicate(timeout=PATIENCE)
    assert guard.returncode == unit_runner.EXIT_INTERRUPTED == 75
    time_was_up = told_by == signal.SIGUSR1
    assert f"interrupted {'as its time was up' if time_was_up else 'by a signal'}" in stderr
    assert batch.lines()[-1].get("time_was_up", False) is time_was_up
    assert not any(lives(batch.work / f"pid.{index}") for index in (1, 2, 3, 4))
    assert batch.lines()[-1]["killed"] == [1, 2, 3]
    assert sorted(batch.results()) == [0, 4]
    assert batch.results()[4]["has_output"]
    assert batch.log(1).endswith("The unit was killed, because its runner was.\n")
    assert batch.files(5) == set()

    (batch.work / "go").touch()
    assert batch.run().returncode == 0
    assert sorted((batch.work / "done").read_text().split()) == ["0", "1", "2", "3", "4", "5"]
    assert {(r["exit_code"], r["error"]) for r in batch.results().values()} == {(0, None)}


def test_an_interrupted_runner_that_leaves_nothing_has_come_to_its_end(batch: BatchFolder) -> None:
    batch.fill_with_shell(f"trap 'exit 0' TERM; {WAITS}", units=1)
    guard = batch.start()
    batch.wait_for_units("pid.0")
    guard.terminate()
    guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 0
    assert batch.lines()[-1]["stopped"] is False


@pytest.mark.parametrize("by_way_of_a_shell", [False, True])
@pytest.mark.parametrize("follows", [False, True])
def test_a_unit_that_a_shutdown_reached_first_is_interrupted_with_its_runner(
    batch: BatchFolder, by_way_of_a_shell: bool, follows: bool
) -> None:
    """The unit is dead before its runner gets SIGTERM; if none comes, it just was killed."""
    trap = "trap 'exit 143' TERM;" if by_way_of_a_shell else ""
    batch.fill_with_shell(f"test -e go || {{ {trap} {WAITS}; }}", units=2, max_parallel=1)
    guard = batch.start_with_time_for_its_end() if follows else batch.start()
    batch.wait_for_units("pid.0")
    unit = int((batch.work / "pid.0").read_text())
    killed_at = time.time()
    os.kill(unit, signal.SIGTERM)
    wait_until(lambda: not lives(unit))
    (batch.work / "go").touch()
    if follows:
        guard.terminate()
    guard.communicate(timeout=PATIENCE)
    if follows:
        assert guard.returncode == 75
        assert batch.lines()[-1]["killed"] == [0]
        assert batch.run().returncode == 0
        assert [batch.results()[index]["exit_code"] for index in (0, 1)] == [0, 0]
    else:
        assert guard.returncode == 0
        result = batch.results()[0]
        assert (result["exit_code"], result["signal"]) in [(None, signal.SIGTERM), (143, None)]
        assert killed_at <= result["ended_at"] <= batch.results()[1]["started_at"] - 0.9
        assert batch.results()[1]["exit_code"] == 0


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_unit_that_was_killed_first_of_all_is_killed_with_its_runner(
    batch: BatchFolder, is_seen: bool
) -> None:
    """As by a scheduler that kills a job, with or without time for the runner to see the first."""
    batch.fill_with_shell(f"test -e go || {{ {WAITS}; }}", units=2, max_parallel=1)
    guard = batch.start_with_time_for_its_end()
    batch.wait_for_units("pid.0")
    unit, runner = int((batch.work / "pid.0").read_text()), batch.runner_pid()
    if not is_seen:
        os.kill(runner, signal.SIGSTOP)
    os.kill(unit, signal.SIGKILL)
    if is_seen:
        wait_until(lambda: not lives(unit))
    os.kill(runner, signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    assert not batch.results()
    (batch.work / "go").touch()
    assert batch.run().returncode == 0
    assert [batch.results()[index]["exit_code"] for index in (0, 1)] == [0, 0]


def test_units_of_an_interrupted_runner_run_again_though_it_is_killed_meanwhile(
    batch: BatchFolder,
) -> None:
    """As a shutdown does that loses patience: the guard knows that the unit was told to end."""
    batch.fill_with_shell(
        f"test -e again && exit 0; trap 'touch told' TERM; {WAITS}; exit 7", grace_seconds=1000
    )
    guard = batch.start()
    batch.wait_for_units("pid.0")
    guard.terminate()
    batch.wait_for_units("told")
    os.kill(batch.runner_pid(), signal.SIGSTOP)
    (batch.work / "go").touch()
    wait_until(lambda: not lives(batch.work / "pid.0"))
    os.kill(batch.runner_pid(), signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    assert batch.lines()[-1]["killed"] == [0]
    (batch.work / "again").touch()
    assert batch.run().returncode == 0
    assert batch.results()[0]["exit_code"] == 0


def write_results(batch: BatchFolder, *indexes: int, tail: str = "", format: int = 2) -> None:
    lines = [{"format": format, "host": "h", "pid": 1, "started_at": 1.0}]
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
        ("{", "batch.json is damaged: Expecting"),
        ("[1]", "batch.json is damaged: "),
        (
            '{"format": 3}',
            "batch.json has format 3, supported are 1 to 2; it was written by a newer",
        ),
        ('{"format": null}', "batch.json has format None, supported are 1 to 2\n"),
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


def test_a_batch_that_an_older_version_began_is_gone_on_with(batch: BatchFolder) -> None:
    write_results(batch, 0, 2, format=1)
    batch.fill_with_shell("echo $1 >> ran", units=4, max_parallel=1, format=1)
    assert batch.run().returncode == 0
    assert (batch.work / "ran").read_text().split() == ["1", "3"]
    assert [line["format"] for line in batch.lines() if "format" in line] == [1, 2]
    assert sorted(batch.results()) == [0, 1, 2, 3]


def test_results_of_a_newer_version_are_refused(batch: BatchFolder) -> None:
    write_results(batch, 0, format=3)
    batch.fill_with_shell("touch ran", units=2)
    ended = batch.run()
    assert ended.returncode == 2
    assert f"{batch.folder}/results.jsonl has format 3, supported are 1 to 2" in ended.stderr
    assert "upgrade" in ended.stderr
    assert not (batch.work / "ran").exists()


def test_the_log_of_the_attempt_before_is_kept(batch: BatchFolder) -> None:
    for attempt in (1, 2, 3):
        (batch.folder / "results.jsonl").unlink(missing_ok=True)
        batch.fill_with_shell(f"echo attempt {attempt}", attempt=attempt)
        batch.run()
    assert batch.log(0) == "attempt 3\n"
    kept = {path.name: path.read_text() for path in batch.units_dir.glob("*.attempt-*.log")}
    assert kept == {
        "000000.attempt-1.log": "attempt 1\n",
        "000000.attempt-2.log": "attempt 2\n",
    }


def test_a_kept_log_is_not_replaced_by_that_of_an_interrupted_execution(batch: BatchFolder) -> None:
    (batch.units_dir / "000000.attempt-1.log").write_text("attempt 1\n")
    (batch.units_dir / "000000.log").write_text("attempt 2, interr")
    batch.fill_with_shell("echo attempt 2", attempt=2)
    batch.run()
    assert (batch.units_dir / "000000.attempt-1.log").read_text() == "attempt 1\n"
    assert batch.log(0) == "attempt 2\n"


def test_units_of_a_killed_runner_are_killed_and_run_again(batch: BatchFolder) -> None:
    batch.fill_with_shell(f"test $1 = 2 || {{ {WAITS}; }}", units=3)
    guard = batch.start()
    batch.wait_for_units("pid.0", "pid.1")
    os.kill(batch.runner_pid(), signal.SIGKILL)
    _, stderr = guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 128 + signal.SIGKILL
    assert "the runner was killed: Killed (9). Units that were killed with it" in stderr
    assert not lives(batch.work / "pid.0")
    assert not lives(batch.work / "pid.1")
    assert batch.lines()[-1]["killed"] == [0, 1]
    assert batch.log(0) == "The unit was killed, because its runner was.\n"
    (batch.work / "go").touch()
    assert batch.run().returncode == 0
    assert [batch.results()[index]["exit_code"] for index in range(3)] == [0, 0, 0]


def test_units_that_ended_by_themselves_have_a_result_though_their_runner_is_killed(
    batch: BatchFolder,
) -> None:
    """The runner sleeps while the units end, and is killed in its sleep."""
    batch.fill_with_shell(
        f"{WAITS}; echo {{}} > $out; test $1 != 1 || exit 7; test $1 != 2 || kill -11 $$",
        units=3,
        max_parallel=3,
    )
    guard = batch.start()
    batch.wait_for_units("pid.0", "pid.1", "pid.2")
    os.kill(batch.runner_pid(), signal.SIGSTOP)
    (batch.work / "go").touch()
    wait_until(lambda: not any(lives(batch.work / f"pid.{index}") for index in range(3)))
    os.kill(batch.runner_pid(), signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    results = batch.results()
    found = [(results[i]["exit_code"], results[i]["signal"], results[i]["error"]) for i in range(3)]
    assert found == [(0, None, None), (7, None, None), (None, signal.SIGSEGV, None)]
    assert [results[i]["has_output"] for i in range(3)] == [True, False, False]
    assert all(r["started_at"] < r["ended_at"] and r["max_rss_kb"] > 0 for r in results.values())
    assert "killed" not in batch.lines()[-1]


def test_a_unit_that_was_stopped_is_so_though_its_runner_is_killed(batch: BatchFolder) -> None:
    batch.fill_with_shell(f"trap 'touch told' TERM; {WAITS}; test -e told", grace_seconds=1000)
    guard = batch.start()
    batch.wait_for_units("pid.0")
    batch.allow_stop()
    guard.terminate()
    batch.wait_for_units("told")
    os.kill(batch.runner_pid(), signal.SIGSTOP)
    (batch.work / "go").touch()
    wait_until(lambda: not lives(batch.work / "pid.0"))
    os.kill(batch.runner_pid(), signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    assert (batch.results()[0]["exit_code"], batch.results()[0]["error"]) == (0, "stopped")
    assert batch.log(0).endswith("The unit was stopped.\n")


def test_a_guard_that_cannot_write_results_leaves_no_unit_running(batch: BatchFolder) -> None:
    batch.fill_with_shell(WAITS)
    guard = batch.start()
    batch.wait_for_units("pid.0")
    with (batch.folder / "results.jsonl").open("a") as results:
        results.write("damaged\n")
    os.kill(batch.runner_pid(), signal.SIGKILL)
    _, stderr = guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 74
    assert "results.jsonl, line 2 is damaged" in stderr
    assert not lives(batch.work / "pid.0")


def fill_with_journal(batch: BatchFolder, units: int, **options: Any) -> None:
    """Units of a millisecond, which write an output and then their name into a journal."""
    script = 'echo {} > "$4"; echo "$2" >> journal'
    batch.fill(["sh", "-c", script, "sh"], [{}] * units, **options)


@pytest.mark.parametrize(
    "moment",
    [
        "Board.announce",  # and so before the unit is started
        "os.posix_spawn",  # and so before its process id is noted
        "Board.started",
        "Unit.settle_output",  # and so before its result is appended
        "ResultsFile.append",
        "Children.reap",
        "Board.remove",
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_no_result_is_lost_whenever_the_runner_is_killed(
    batch: BatchFolder, moment: str, pause: float
) -> None:
    fill_with_journal(batch, units=6)
    batch.assert_nothing_is_lost_if_killed_at(moment, pause, units=6)


def test_every_unit_has_one_result_though_runners_are_killed_at_random(batch: BatchFolder) -> None:
    fill_with_journal(batch, units=400, max_parallel=4)
    killed = batch.run_and_kill_at_random(lambda _, runner: os.kill(runner, signal.SIGKILL))
    assert killed > 3
    batch.assert_only_killed_units_ran_twice(units=400)


def test_no_unit_fails_though_all_processes_get_sigterm_at_random(batch: BatchFolder) -> None:
    def shut_down(guard: int, runner: int) -> None:
        members = batch.members()
        batch.send_to(random.sample(members, len(members)), signal.SIGTERM)

    fill_with_journal(batch, units=200, max_parallel=4)
    assert batch.run_and_kill_at_random(shut_down) > 1
    batch.assert_only_killed_units_ran_twice(units=200)


def test_every_unit_has_one_result_though_runner_and_guard_are_killed(batch: BatchFolder) -> None:
    """Without guard, units that had ended just then run again; never more than `max_parallel`."""

    def kill(guard: int, runner: int) -> None:
        os.kill(guard, signal.SIGKILL)
        os.kill(runner, signal.SIGKILL)

    fill_with_journal(batch, units=200)
    killed = batch.run_and_kill_at_random(kill)
    assert killed > 1
    assert set(batch.journal()) == set(range(200)) == set(batch.results())
    assert len(batch.journal()) <= 200 + 2 * killed


def test_units_whose_runner_and_guard_were_killed_do_not_run_on_beside_the_next_runner(
    batch: BatchFolder,
) -> None:
    batch.fill_with_shell(f"test -e pid.$1 && exit; {WAITS}", units=2)
    guard = batch.start()
    batch.wait_for_units("pid.0", "pid.1")
    guard.kill()
    os.kill(batch.runner_pid(), signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    assert lives(batch.work / "pid.0")
    assert batch.run().returncode == 0
    assert not lives(batch.work / "pid.0")
    assert [line["killed"] for line in batch.lines() if "killed" in line] == [[0, 1]]
    assert [batch.results()[index]["exit_code"] for index in (0, 1)] == [0, 0]


def test_a_runner_whose_guard_is_killed_carries_on(batch: BatchFolder) -> None:
    batch.fill_with_shell(f"echo $1 >> ran; {WAITS}", units=4)
    guard = batch.start()
    batch.wait_for_units("pid.0", "pid.1")
    guard.kill()
    guard.wait(PATIENCE)
    assert batch.run().returncode == 3
    (batch.work / "go").touch()
    wait_until(lambda: not lives(batch.runner_pid()))
    assert sorted((batch.work / "ran").read_text().split()) == ["0", "1", "2", "3"]
    assert batch.lines()[-1]["end"]
    assert sorted(batch.results()) == [0, 1, 2, 3]


def test_orphans_of_units_are_reaped(batch: BatchFolder) -> None:
    batch.fill_with_shell(
        "test $1 = 0 || { until test -e go; do sleep 0.02; done; exit; }\n"
        "setsid sh -c 'echo $$ > new; mv new orphan; until test -e on; do sleep 0.02; done' &\n"
        "until test -e orphan; do sleep 0.02; done",
        units=2,
    )
    guard = batch.start()
    results = batch.folder / "results.jsonl"
    wait_until(lambda: results.exists() and "index" in results.read_text())
    orphan = Path("/proc", (batch.work / "orphan").read_text().strip())
    assert f"PPid:\t{guard.pid}\n" in (orphan / "status").read_text()
    (batch.work / "on").touch()
    wait_until(lambda: not orphan.exists())
    (batch.work / "go").touch()
    guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 0


def test_without_ctypes_there_is_no_guard_and_all_else_is_as_ever(batch: BatchFolder) -> None:
    batch.fill_with_shell("echo {} > $out; sleep 1000 & test $1 != 1 || exit 7", units=5)
    code = "import sys, runpy; sys.modules['ctypes'] = None; sys.argv[:1] = []; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    runner = batch.start_python(code, str(RUNNER), str(batch.folder))
    _, stderr = runner.communicate(timeout=PATIENCE)
    assert (runner.returncode, stderr) == (0, "")
    assert runner.pid == batch.runner_pid()
    results = batch.results()
    assert [results[index]["exit_code"] for index in range(5)] == [0, 7, 0, 0, 0]
    assert all(result["max_rss_kb"] > 0 for result in results.values())


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
