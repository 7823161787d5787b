"""Units that are forked from a process with their imports are like those that make them."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.activities.commands import find_uv
from flows.programs import unit_runner, warm_process
from tests.flows.programs.batch_folder import (
    PATIENCE,
    BatchFolder,
    lives,
    wait_until,
)

CASES = Path(__file__).with_name("warm_cases.py")
NAMES = [
    node.name
    for node in ast.parse(CASES.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name not in ("main", "square")
]
ARGUMENTS = {"long_arguments": {"text": "abc" * 100_000}}
SAID_AT_IMPORT = """
import logging, sys, warnings
print("buffered at import")
print("at once at import", file=sys.stderr)
warnings.warn("at import")
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
calls = 0
def counted():
    global calls
    calls += 1
    return calls
"""
GUARD = '\nif __name__ == "__main__":\n    main()\n'


# ---- Which files


@pytest.mark.parametrize(
    ("top", "why"),
    [
        ("", None),
        ('"""Docstring."""\nfrom __future__ import annotations\nimport a.b\nfrom c import d', None),
        ("import logging\nlog = logging.getLogger(__name__)\nimport a", None),
        ("import a\nKINDS = a.make(3)\nNAME: str = f'{KINDS}'", None),
        ("try:\n    import a\nexcept ImportError:\n    a = None", None),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a", None),
        ("import a\n@a.task(3)\ndef f(x=a.b()): pass\nclass C(a.Base): x: int = a.Field(1)", None),
        ("import a\nasync def f(): await a.b()\ng = lambda: a.b()\nimport c", None),
        ("def f():\n    import a\n    a.run()", None),
        ("import a\na.run()", "does something at its top level, in line 2"),
        ("import a\na.x = 1", "does something at its top level, in line 2"),
        ("import os\nos.environ['A'] = 'b'\nimport c", "does something at its top level"),
        ("import os\nx, os.environ['A'] = 1, 'b'", "does something at its top level"),
        ("for x in 1, 2: pass", "does something at its top level, in line 1"),
        ("if a:\n    import b", "does something at its top level, in line 1"),
        ("try:\n    run()\nexcept E: pass", "does something at its top level"),
        ("import a\nx = a.b()\nimport c", "calls something before its last import, in line 2"),
        ("@a.b()\ndef f(): pass\nimport c", "calls something before its last import, in line 2"),
        ("class A:\n    x = f()\nimport c", "calls something before its last import, in line 1"),
        ("def f(x=g()): pass\nimport c", "calls something before its last import, in line 1"),
    ],
)
def test_a_file_runs_warm_if_its_top_level_only_imports_and_defines(
    top: str, why: str | None
) -> None:
    found = warm_process.why_cold((top + GUARD).encode())
    assert found == why or (found is not None and why is not None and found.startswith(why))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import a\ndef main(): pass", 'has no `if __name__ == "__main__":`'),
        ("import a\nif __name__ != '__main__':\n    main()", "has no `if"),
        ("if __name__ == '__main__':\n    main()\nelse:\n    a()", "has no `if"),
        ("if __name__ == '__main__':\n    main()\nimport a", "calls something before its last imp"),
        ("import a\n\0", "cannot be parsed"),
        ("import", "cannot be parsed"),
        ("# coding: no-such\nx = 1", "cannot be parsed"),
    ],
)
def test_a_file_without_a_part_of_its_own_for_main_runs_cold(source: str, why: str) -> None:
    assert str(warm_process.why_cold(source.encode())).startswith(why)


def test_imports_are_those_at_the_top_and_at_the_beginning_of_the_part_for_main() -> None:
    tree = ast.parse(
        "import a\ndef f(): import b\ntry:\n  import c\nexcept E: pass\n"
        "if __name__ == '__main__':\n  import d\n  f()\n  import e\n"
    )
    imports = ast.unparse(warm_process.imports_of(tree)).replace("\n", "; ")
    assert re.findall(r"import (\w)", imports) == ["a", "c", "d"]


@pytest.mark.parametrize("program", [warm_process, unit_runner])
def test_it_needs_only_python_3_8_and_the_standard_library(program: Any) -> None:
    tree = ast.parse(Path(program.__file__).read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names


# ---- Alike


class Executed:
    """All cases, executed in one batch: results by case, texts of logs and outputs by case."""

    def __init__(self, root: Path, *, warm: bool) -> None:
        root.mkdir()
        self.root = root
        self.batch = BatchFolder(root)
        shutil.copy(CASES, root / "task.py")
        (root / "said_at_import.py").write_text(SAID_AT_IMPORT)
        own_args = [{"case": name, **ARGUMENTS.get(name, {})} for name in NAMES]
        environment = {"LEFT": str(root / "left")}
        command = [sys.executable, "-Bs", str(root / "task.py"), "--kind", "of the tests"]
        self.batch.fill(command, own_args, env=environment, cwd=None, warm=warm)
        self.runner = self.batch.start()

    def wait(self) -> None:
        _, self.stderr = self.runner.communicate(timeout=3 * PATIENCE)
        self.results = self.batch.results()
        self.end = self.batch.lines()[-1]

    def of(self, case: str) -> dict[str, Any]:
        """What a case did, without what differs from one execution to the next."""
        index = NAMES.index(case)
        same = ("exit_code", "signal", "error", "has_output", "has_warnings")
        log = self.batch.log(index).replace(str(self.root), "ROOT")
        output = self.batch.units_dir / f"{index:06d}.out.json"
        return {
            "log": re.sub(r"0x[0-9a-f]+|\b\d{3,}\b", "N", log),
            "output": output.read_text() if output.exists() else None,
            "files": self.batch.files(index),
            **{name: self.results[index][name] for name in same},
        }


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Executed, Executed]]:
    """All cases, warm and cold."""
    root = tmp_path_factory.mktemp("cases")
    both = Executed(root / "one", warm=True), Executed(root / "two", warm=False)
    for each in both:
        each.wait()
    yield both
    for each in both:
        each.batch.kill_all()


@pytest.mark.parametrize("case", NAMES)
def test_a_warm_unit_does_what_a_cold_one_does(
    executed: tuple[Executed, Executed], case: str
) -> None:
    warm, cold = executed
    assert warm.of(case) == cold.of(case)


def test_all_cases_were_warm_or_cold(executed: tuple[Executed, Executed]) -> None:
    warm, cold = executed
    assert (warm.stderr, cold.stderr) == ("", "")
    told = warm.end["warm"]
    assert (told["units"], told["why_cold"]) == (len(NAMES), None)
    assert 0 < told["seconds"] < PATIENCE
    assert "warm" not in cold.end


def test_what_a_unit_used_is_counted_as_its_own(executed: tuple[Executed, Executed]) -> None:
    index = NAMES.index("no_newline")
    warm, cold = (each.results[index] for each in executed)
    assert 0.5 * cold["max_rss_kb"] < warm["max_rss_kb"] < 2 * cold["max_rss_kb"]
    assert warm["cpu_seconds"] < cold["cpu_seconds"]


def test_what_units_leave_running_is_killed(executed: tuple[Executed, Executed]) -> None:
    for each in executed:
        wait_until(lambda each=each: not lives(each.root / "left"))


def test_a_warm_unit_that_removes_its_folder_harms_nobody(a_task: "Task") -> None:
    a_task.write(
        script="import helper\nimport os\ndef main():\n    os.rmdir(os.getcwd())\n" + GUARD
    )
    assert a_task.run(units=3, cwd=None, max_parallel=1)["units"] == 3
    assert {result["exit_code"] for result in a_task.batch.results().values()} == {0}


# ---- Not alike, and so cold


SCRIPT = """{top}
def main():
    print("it ran")

if __name__ == "__main__":
    main()
"""


class Task:
    """A task of one file, and the module `helper` that it imports."""

    def __init__(self, batch: BatchFolder) -> None:
        self.batch = batch
        self.path = batch.work.parent / "task.py"

    def write(self, *, helper: str = "", script: str = SCRIPT.format(top="import helper")) -> None:
        self.path.with_name("helper.py").write_text(helper)
        self.path.write_text(script)

    def fill(self, units: int = 2, **options: Any) -> None:
        command = [sys.executable, str(self.path)]
        self.batch.fill(command, [{"i": i} for i in range(units)], warm=True, **options)

    def run(self, units: int = 2, **options: Any) -> dict[str, Any]:
        """What the results say of imports, when all units have run."""
        self.fill(units, **options)
        ended = self.batch.run()
        assert (ended.returncode, ended.stderr) == (0, "")
        told: dict[str, Any] = self.batch.lines()[-1]["warm"]
        return told


@pytest.fixture
def a_task(batch: BatchFolder) -> Task:
    return Task(batch)


TORCH = "class cuda:\n    is_initialized = staticmethod(lambda: True)\n"


@pytest.mark.parametrize(
    ("helper", "why"),
    [
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "importing starts threads",
        ),
        ("import subprocess\nchild = subprocess.Popen(['sleep', '60'])", "starts other processes"),
        ("import socket\nkept = socket.socket()", "importing leaves socket:"),
        ("kept = open(__file__)", "helper.py open"),
        ("import os\nos.chdir('/')", "importing changes the working folder"),
        ("import sys, types\nsys.modules['tensorflow'] = types.ModuleType('tensorflow')", "tensor"),
        ("import sys, types\nsys.modules['jax'] = types.ModuleType('jax')", "jax, which it imp"),
        (f"import sys\n{TORCH}sys.modules['torch'] = sys.modules[__name__]", "torch.cuda"),
        ("import random\nrandom.seed(1)", "importing draws random numbers"),
        ("import random\ngenerator = random.Random(1)", "helper, which it imports, has random"),
        ("import tempfile\nname = tempfile.mkdtemp()", "importing makes temporary files"),
        ("print('x' * 3_000_000)", "importing writes too much into the log"),
        ("import os\nos.kill(os.getpid(), 11)", "importing fails"),
        ("import os\nos._exit(0)", "importing fails"),
    ],
)
def test_units_are_cold_if_what_is_imported_does_not_survive_a_fork(
    a_task: Task, helper: str, why: str
) -> None:
    a_task.write(helper=helper)
    told = a_task.run()
    assert told["units"] == 0
    assert why in told["why_cold"]
    log = a_task.batch.log(0)
    if why != "importing fails":
        assert log.endswith("it ran\n")
    assert all(result["max_rss_kb"] for result in a_task.batch.results().values())
    assert not a_task.batch.members()


def test_an_import_that_fails_is_told_by_each_unit(a_task: Task) -> None:
    a_task.write(helper="import no_such_module")
    assert a_task.run()["why_cold"] == (
        "importing fails: ModuleNotFoundError: No module named 'no_such_module'"
    )
    for index in (0, 1):
        log = a_task.batch.log(index)
        assert log.startswith("Traceback (most recent call last):\n")
        assert "warm_process" not in log
        assert a_task.batch.results()[index]["exit_code"] == 1


def test_a_file_that_is_not_for_it_runs_cold(a_task: Task) -> None:
    a_task.write(script="import helper\nprint('it ran')\n")
    assert a_task.run()["why_cold"] == f'{a_task.path} has no `if __name__ == "__main__":`'
    assert a_task.batch.log(1) == "it ran\n"


@pytest.mark.parametrize(
    "command",
    [
        ["true"],
        ["sh", "{file}"],
        [sys.executable],
        [sys.executable, "task.py"],
        [sys.executable, "-m", "task"],
        [sys.executable, "-W", "ignore", "{file}"],
    ],
)
def test_other_commands_run_cold(a_task: Task, command: list[str]) -> None:
    a_task.path.write_text("true\n")
    words = [word.format(file=a_task.path) for word in command]
    a_task.batch.fill(words, [{}, {}], cwd=str(a_task.path.parent), warm=True)
    assert a_task.batch.run().returncode == 0
    told = a_task.batch.lines()[-1]["warm"]
    assert told == {"seconds": 0.0, "units": 0, "why_cold": unit_runner.NOT_PYTHON}


def test_one_unit_imports_for_itself(a_task: Task) -> None:
    a_task.write(helper="print('imported', flush=True)")
    assert a_task.run(units=1) == {"seconds": 0.0, "units": 0, "why_cold": None}
    assert a_task.batch.log(0) == "imported\nit ran\n"


def test_importing_has_a_time_limit(a_task: Task) -> None:
    a_task.write(helper="import time, sys\nif '--out-json' not in sys.argv: time.sleep(60)")
    a_task.fill()
    runner = a_task.batch.start_python(
        "import sys; from flows.programs import unit_runner as u; u.IMPORT_SECONDS = 0.5;"
        "sys.exit(u.main(sys.argv[1:]))",
        str(a_task.batch.folder),
    )
    runner.communicate(timeout=PATIENCE)
    told = a_task.batch.lines()[-1]["warm"]
    assert told["why_cold"] == "importing takes longer than 0.5 s"
    assert [a_task.batch.log(index) for index in (0, 1)] == ["it ran\n"] * 2


def test_a_stop_while_importing_ends_the_batch(a_task: Task) -> None:
    a_task.write(helper="import time\nopen('importing', 'w').close()\ntime.sleep(60)")
    a_task.fill()
    runner = a_task.batch.start()
    a_task.batch.wait_for_units("importing")
    a_task.batch.allow_stop()
    runner.terminate()
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == unit_runner.EXIT_STOPPED
    assert a_task.batch.results() == {}
    wait_until(lambda: not a_task.batch.members())


@pytest.fixture(scope="module")
def with_numpy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has NumPy."""
    uv, folder = find_uv(), tmp_path_factory.mktemp("numpy") / "venv"
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "numpy"]
    subprocess.run(install, check=True)
    return python


@pytest.mark.pypi
@pytest.mark.parametrize(
    ("helper", "numbers", "warm"),
    [("", 4, 4), ("import numpy; numpy.random.seed(3)", 1, 0)],
)
def test_numpy_gives_each_unit_other_numbers_unless_importing_seeds_it(
    a_task: Task, with_numpy: str, helper: str, numbers: int, warm: int
) -> None:
    a_task.write(
        helper=helper,
        script="import helper\nimport numpy\ndef main():\n"
        "    numpy.ones((300, 300)) @ numpy.ones((300, 300))\n    print(numpy.random.rand())\n"
        + GUARD,
    )
    command = [with_numpy, str(a_task.path)]
    a_task.batch.fill(command, [{}] * 4, warm=True)
    assert a_task.batch.run().returncode == 0
    assert a_task.batch.lines()[-1]["warm"]["units"] == warm
    assert len({a_task.batch.log(index) for index in range(4)}) == numbers


# ---- Children of the runner


DIES = """import helper
import os, signal
def main():
    os.path.exists("died") or (open("died", "w").close(), print("now", flush=True), {dies})
    print("it ran")
"""
TOLD = (
    "now\nThe unit was killed: {meaning}. It had been forked from a process that had imported "
    "for all units. It runs once more, started by itself.\nit ran\n"
)


def test_a_unit_that_was_told_to_end_does_not_run_again(a_task: Task) -> None:
    a_task.write(script=DIES.format(dies="os.kill(os.getpid(), 15)") + GUARD)
    a_task.run(max_parallel=1)
    assert a_task.batch.log(0) == "now\nThe unit was killed: Terminated (15).\n"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_unit_that_a_signal_ends_runs_once_more_cold(a_task: Task, number: int) -> None:
    a_task.write(script=DIES.format(dies=f"os.kill(os.getpid(), {int(number)})") + GUARD)
    a_task.run(max_parallel=1)
    meaning = f"{signal.strsignal(number)} ({int(number)})"
    assert a_task.batch.log(0) == TOLD.format(meaning=meaning)
    assert [a_task.batch.results()[index]["exit_code"] for index in (0, 1)] == [0, 0]


def test_a_unit_that_a_signal_ends_again_has_failed(a_task: Task) -> None:
    a_task.write(script="import os\ndef main(): os.kill(os.getpid(), 11)\n" + GUARD)
    a_task.run()
    assert {result["signal"] for result in a_task.batch.results().values()} == {11}
    last_lines = a_task.batch.log(1).splitlines()
    assert last_lines[-1] == "The unit was killed: Segmentation fault (11)."
    assert len(last_lines) == 2


def test_a_unit_that_was_killed_for_memory_does_not_run_again(a_task: Task) -> None:
    a_task.write(script=DIES.format(dies="os.kill(os.getpid(), 9)") + GUARD)
    a_task.fill(max_parallel=1)
    runner = a_task.batch.start_python(
        "import itertools, sys; from flows.programs import unit_runner as u;"
        "u.killed_for_memory = itertools.count().__next__;"  # the kernel counts one more
        "sys.exit(u.main(sys.argv[1:]))",
        str(a_task.batch.folder),
    )
    runner.communicate(timeout=PATIENCE)
    assert a_task.batch.results()[0]["signal"] == signal.SIGKILL
    assert a_task.batch.log(0) == "now\nThe unit was killed: Killed (9).\n"


JOURNAL = """import helper
import sys
def main():
    open(sys.argv[4], "w").write("{}")
    with open("journal", "a") as journal:
        journal.write(sys.argv[2] + chr(10))
"""
WAITS = """import helper
import os, time
def main():
    name = "pid." + str(os.getpid())
    open("new" + name, "w").write(str(os.getpid()))
    os.rename("new" + name, name)
    while not os.path.exists("go"): time.sleep(0.02)
"""


def fill_with_journal(task: Task, units: int, **options: Any) -> None:
    task.write(script=JOURNAL + GUARD)
    task.fill(units, **options)


@pytest.mark.parametrize(
    "moment",
    [
        "Board.announce",
        "socket.socket.sendmsg",  # and so before the unit is forked, or while it is
        "Warm.fork",
        "Unit.settle_output",
        "ResultsFile.append",
        "Children.reap",
        "Board.remove",
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_no_result_is_lost_whenever_the_runner_is_killed(
    a_task: Task, moment: str, pause: float
) -> None:
    fill_with_journal(a_task, units=6)
    a_task.batch.assert_nothing_is_lost_if_killed_at(moment, pause, units=6)


SLOW_TO_END = """import os, sys, time
from flows.programs import warm_process
setpgid = os.setpgid
def setpgid_and_rest(process, group):
    setpgid(process, group)
    if process:  # the child that has forked a unit
        time.sleep(60)
os.setpgid = setpgid_and_rest
task = warm_process.warm_task(sys.argv)
exec(task.code, task.namespace)
"""
SLOW_TO_BE_KILLED = """import os, sys, threading
from flows.programs import unit_runner
guard, send_to_group = os.getpid(), unit_runner.send_to_group
def send_late(*arguments):
    threading.Timer(0.2 * (os.getpid() == guard), send_to_group, arguments).start()
unit_runner.send_to_group, unit_runner.WARM_PROGRAM = send_late, sys.argv[2]
sys.exit(unit_runner.main(sys.argv[1:2]))
"""


def test_a_unit_is_named_as_killed_though_what_forked_it_takes_time_to_end(a_task: Task) -> None:
    a_task.write(script=WAITS + GUARD)
    a_task.fill()
    program = a_task.path.with_name("slow_to_end.py")
    program.write_text(SLOW_TO_END)
    folder = str(a_task.batch.folder)
    guard = a_task.batch.start_python(SLOW_TO_BE_KILLED, folder, str(program))
    wait_until(lambda: any(a_task.batch.work.glob("pid.*")))
    os.kill(a_task.batch.runner_pid(), signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 128 + signal.SIGKILL
    assert [line["killed"] for line in a_task.batch.lines() if "killed" in line] == [[0]]
    assert a_task.batch.log(0) == f"{unit_runner.ENDED_WITH_ITS_RUNNER}\n"


ENDS_BEFORE_ITS_RUNNER = """import os, signal, sys, time
from flows.programs import unit_runner as programs
folder = sys.argv[1]
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, programs.SIGNALS)
batch = programs.read_batch(folder)
lock, board = programs.Lock(folder + "/lock", 0), programs.Board(1)
unit = programs.Unit(0, batch["units_dir"] + "/" + batch["units"][0]["name"])
unit.prepare({}, 1, goes_on=False)
board.announce(unit)
runner = os.fork() or time.sleep(0.2) or os.kill(os.getpid(), 9)
process = os.fork() or os._exit(0)
board.started(unit, process)
sys.exit(programs.Guard(runner, lock, folder, batch, programs.Children(), board).run())
"""


def test_a_unit_that_the_guard_adopts_while_the_runner_ends_has_a_result(a_task: Task) -> None:
    """The kernel gives orphans to the guard as soon as the runner begins to end."""
    a_task.fill()
    guard = a_task.batch.start_python(ENDS_BEFORE_ITS_RUNNER, str(a_task.batch.folder))
    _, stderr = guard.communicate(timeout=PATIENCE)
    assert guard.returncode == 128 + signal.SIGKILL, stderr
    assert [line["exit_code"] for line in a_task.batch.lines()] == [0]


def kill_runner(batch: BatchFolder) -> Callable[[int, int], None]:
    return lambda _, runner: os.kill(runner, signal.SIGKILL)


def kill_warm_process(batch: BatchFolder) -> Callable[[int, int], None]:
    def kill(guard: int, runner: int) -> None:
        batch.send_to(children_of(runner), signal.SIGKILL)
        os.kill(runner, signal.SIGKILL)

    return kill


def end_all(batch: BatchFolder) -> Callable[[int, int], None]:
    return lambda *_: batch.send_to_all(signal.SIGTERM)


def children_of(process: int) -> list[int]:
    found = []
    for each in unit_runner.processes():
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(each)
    return found


@pytest.mark.parametrize("how", [kill_runner, kill_warm_process, end_all])
def test_every_unit_has_one_result_though_processes_are_killed_at_random(
    a_task: Task, how: Callable[[BatchFolder], Callable[[int, int], None]]
) -> None:
    fill_with_journal(a_task, units=150, max_parallel=4)
    assert a_task.batch.run_and_kill_at_random(how(a_task.batch)) > 1
    a_task.batch.assert_only_killed_units_ran_twice(units=150)


def begun_units(batch: BatchFolder, number: int) -> set[int]:
    """The processes of units that wait, when so many have begun."""
    wait_until(lambda: len(list(batch.work.glob("pid.*"))) == number)
    return {int(path.suffix[1:]) for path in batch.work.glob("pid.*")}


def test_the_warm_process_ends_with_its_runner_and_guard(a_task: Task) -> None:
    a_task.write(script=WAITS + GUARD)
    a_task.fill(units=3)
    guard = a_task.batch.start()
    units = begun_units(a_task.batch, 2)
    runner = a_task.batch.runner_pid()
    assert set(children_of(runner)) > units
    (warm,) = set(children_of(runner)) - units
    guard.kill()
    os.kill(runner, signal.SIGKILL)
    guard.communicate(timeout=PATIENCE)
    wait_until(lambda: not lives(warm))
    assert all(lives(unit) for unit in units)
    (a_task.batch.work / "go").touch()
    assert a_task.batch.run().returncode == 0
    assert [line["killed"] for line in a_task.batch.lines() if "killed" in line] in ([[0, 1]], [])


def test_units_go_on_cold_when_the_warm_process_is_killed(a_task: Task) -> None:
    a_task.write(script=WAITS + GUARD)
    a_task.fill(units=5)
    runner = a_task.batch.start()
    units = begun_units(a_task.batch, 2)
    (warm,) = set(children_of(a_task.batch.runner_pid())) - units
    os.kill(warm, signal.SIGKILL)
    (a_task.batch.work / "go").touch()
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 0
    told = a_task.batch.lines()[-1]["warm"]
    assert (told["units"], told["why_cold"]) == (2, "the process that had imported does not answer")
    assert [result["exit_code"] for result in a_task.batch.results().values()] == [0] * 5


def test_a_stopped_batch_ends_its_warm_units(a_task: Task) -> None:
    a_task.write(script=WAITS + GUARD)
    a_task.fill(units=3)
    runner = a_task.batch.start()
    wait_until(lambda: len(list(a_task.batch.work.glob("pid.*"))) == 2)
    a_task.batch.allow_stop()
    runner.terminate()
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == unit_runner.EXIT_STOPPED
    outcome = {(r["signal"], r["error"]) for r in a_task.batch.results().values()}
    assert outcome == {(signal.SIGTERM, "stopped")}
    assert a_task.batch.log(0) == "The unit was stopped.\n"
    assert not a_task.batch.members()
