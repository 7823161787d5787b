"""Import what a task needs once, and fork its units from there: a *warm process*.

    python warm_process.py CONTROL,BOARD,RUNNER FILE.py ROOM

`unit_runner.py` starts it, with the interpreter of the task, for a batch whose command is
`python [-I ...] FILE.py ...`. It is one file, needs only the standard library, and runs with
Python 3.8 and newer. Linux only.

**Which tasks.** `why_cold` reads FILE.py: it must have an `if __name__ == "__main__":`, and beside
it at the top only imports, definitions, constants and docstrings, of which none before an import
calls anything. So nothing is lost by making the imports first, and by executing the rest, in order,
in each unit. When the imports are made, `why_not_forked` looks at this process: it must be one that
survives a fork. If it is not, the runner is told why, and starts units as ever (*cold*).

**A unit** executes the whole file as `__main__`, after a fork, with its own process group, log,
`sys.argv` and command line (as `ps` shows it). What Python does by itself at the end of a program
is left to Python: exit codes, tracebacks, `atexit`, flushed streams. What imports wrote into the
log is at the beginning of each unit's log: the runner has put it there. What a unit can see all the
same is one more frame at the bottom of its stack, some modules that this program needs, and
that what was imported is hidden from the garbage collector (`gc.freeze`).

**Whose child.** The runner asks for a unit by a message: its place on the board, its command, its
working folder, and its log as an open file. This process forks a child, which forks the unit and
ends; so the unit becomes a child of the nearest ancestor that adopts orphans, the runner or, if
that was killed, its guard. Before a unit leaves the process group of this process, its process id
is on the board, which the runner and its guard share. So when the guard has killed this process
group, it finds on the board all units that have begun. Then it waits until it is their parent:
until the children that forked them have ended, too. This process ends with its runner, whatever it
does.
"""

from __future__ import annotations

import _thread
import ast
import ctypes
import gc
import importlib.machinery
import json
import mmap
import os
import random
import signal
import socket
import sys
import types
from typing import Any, NamedTuple

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG
MESSAGE = 64 * 1024
READY, FORKED, NOT_FORKED = b"ready", b"1", b"0"
NEVER_FORKED = ("tensorflow", "jax")
DEVICES = ("cuda", "xpu")
# Threads that libraries start when they are imported, and that their forks can do without: of
# jemalloc, which is prepared for forks, and of Polars, one that removes temporary files.
THREADS_LEFT_BEHIND = {"jemalloc_bg_thd", "polars-ooc-clea"}


class Task(NamedTuple):
    """What a unit executes."""

    code: types.CodeType
    namespace: dict[str, Any]


def warm_task(arguments: list[str]) -> Task:
    """Import, then fork units as long as the runner asks for some. Returns only in a unit."""
    numbers, path = arguments[1:3]
    control_number, board_number, runner = map(int, numbers.split(","))
    end_with(runner)
    control = socket.socket(fileno=control_number)
    control.set_inheritable(False)
    os.set_inheritable(board_number, False)
    with open(path, "rb") as file:
        source = file.read()
    why = why_cold(source)
    if why is not None:
        refuse(control, f"{path} {why}")
    tree = ast.parse(source, path)
    task = Task(compile(source, path, "exec", dont_inherit=True), become_main(path))
    folder, state = os.getcwd(), random.getstate()
    exec(compile(imports_of(tree), path, "exec", dont_inherit=True), task.namespace)
    why = why_not_forked(folder, state, {control_number, board_number})
    if why is not None:
        refuse(control, why)
    tell(control, READY)
    # Units need not look through what was imported for garbage, which takes longer than some work.
    gc.collect()
    gc.freeze()
    serve(control, Board(board_number))
    return task


def end_with(runner: int) -> None:
    """Have the kernel kill this process when the runner ends."""
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != runner:  # it has ended already
        os._exit(1)


def refuse(control: socket.socket, why: str) -> None:
    """Tell the runner why units must not be forked from here, and end."""
    tell(control, why.encode(errors="replace"))
    os._exit(0)


def tell(control: socket.socket, message: bytes) -> None:
    """Send a message to the runner, which waits for signals, not for messages."""
    control.send(message)
    os.kill(os.getppid(), signal.SIGCHLD)


# ---- Which tasks


def why_cold(source: bytes) -> str | None:
    """Why a file's imports cannot be made before the rest of it; None if they can.

    The answer goes on after the file's name: "has no ...".
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return "cannot be parsed"
    if not any(is_guard(node) for node in body):
        return 'has no `if __name__ == "__main__":`'
    last_import = max((i for i, node in enumerate(body) if is_import(node)), default=-1)
    for position, node in enumerate(body):
        if not is_guard(node) and not is_passive(node):
            return f"does something at its top level, in line {node.lineno}"
        if position < last_import and (is_guard(node) or calls(node)):
            return f"calls something before its last import, in line {node.lineno}"
    return None


def is_import(node: ast.AST) -> bool:
    """Whether a statement imports; also in a `try`, for what may be missing."""
    if isinstance(node, ast.Try):
        return any(is_import(each) for each in node.body)
    return isinstance(node, (ast.Import, ast.ImportFrom))


def is_guard(node: ast.AST) -> bool:
    """Whether a statement is `if __name__ == "__main__":`, without `else`."""
    if not isinstance(node, ast.If) or node.orelse or not isinstance(node.test, ast.Compare):
        return False
    test = node.test
    sides = [test.left, *test.comparators]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    texts = [side.value for side in sides if isinstance(side, ast.Constant)]
    is_equality = len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)
    return is_equality and names == ["__name__"] and texts == ["__main__"]


def is_passive(node: ast.AST) -> bool:
    """Whether a statement imports, defines, names a constant, or is a docstring."""
    if isinstance(node, ast.Try):
        handled = [each for handler in node.handlers for each in handler.body]
        return all(map(is_passive, [*node.body, *handled, *node.orelse, *node.finalbody]))
    if isinstance(node, ast.If):  # of imports for annotations
        return is_type_checking(node.test) and not node.orelse
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for each in targets for part in getattr(each, "elts", [each])]
        return all(isinstance(part, ast.Name) for part in parts)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass)
    return is_import(node) or isinstance(node, definitions) or type(node).__name__ == "TypeAlias"


def is_type_checking(test: ast.AST) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def calls(node: ast.AST) -> bool:
    """Whether executing a statement calls something; a logger may be asked for."""
    if isinstance(node, ast.Call) and ast.dump(node.func) != GET_LOGGER:
        return True
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        defaults = [each for each in node.args.kw_defaults if each is not None]
        return bool(node.decorator_list) or any(map(calls, [*node.args.defaults, *defaults]))
    if isinstance(node, ast.ClassDef) and node.decorator_list:
        return True
    if isinstance(node, ast.Lambda):
        return False
    return any(map(calls, ast.iter_child_nodes(node)))


GET_LOGGER = ast.dump(ast.parse("logging.getLogger", mode="eval").body)


def imports_of(tree: ast.Module) -> ast.Module:
    """The imports of a file, also those with which its part for `__main__` begins."""
    found = [node for node in tree.body if is_import(node)]
    for guard in filter(is_guard, tree.body):
        assert isinstance(guard, ast.If)
        for node in guard.body:
            if not is_import(node):
                break
            found.append(node)
    return ast.Module(body=found, type_ignores=[])


# ---- Which processes


def why_not_forked(folder: str, random_state: object, own_files: set[int]) -> str | None:
    """Why units must not be forked from this process, which has imported; None if they may.

    `folder` and `random_state` are as they were before, `own_files` those of this program.
    """
    for module in NEVER_FORKED:
        if module in sys.modules:
            return f"{module}, which it imports, does not survive a fork"
    for device in DEVICES:
        of_torch = getattr(sys.modules.get("torch"), device, None)
        if of_torch is not None and of_torch.is_initialized():
            return f"importing initialises torch.{device}"
    if _thread._count():
        return "importing starts threads"
    if os.getcwd() != folder:
        return "importing changes the working folder"
    return why_threads() or why_children() or why_files(own_files) or why_random(random_state)


def why_threads() -> str | None:
    """As `why_not_forked`: threads that are not Python's. Those of OpenBLAS survive a fork."""
    own, *others = [
        read(f"/proc/self/task/{number}/comm").strip()
        for number in sorted(map(int, os.listdir("/proc/self/task")))
    ]
    others = [name for name in others if name not in THREADS_LEFT_BEHIND]
    named = sorted({name for name in others if name != own})
    if named or (others and "openblas" not in read("/proc/self/maps")):
        return f"importing starts threads ({', '.join(named) or len(others)})"
    return None


def why_children() -> str | None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return "importing starts other processes"


def why_files(own: set[int]) -> str | None:
    """As `why_not_forked`: open files, sockets and devices, which units would share."""
    for number in sorted(set(map(int, os.listdir("/proc/self/fd"))) - own - {0, 1, 2}):
        try:
            return f"importing leaves {os.readlink(f'/proc/self/fd/{number}')} open"
        except OSError:  # that of the listing itself
            continue
    return None


def why_random(state: object) -> str | None:
    """As `why_not_forked`: random numbers that would be the same in all units.

    Only the generators of `random` and of NumPy that everybody shares begin anew in each unit, and
    only if importing does not give them a beginning of its own.
    """
    if random.getstate() != state:
        return "importing draws random numbers"
    if getattr(sys.modules.get("tempfile"), "_name_sequence", None) is not None:
        return "importing makes temporary files"
    kinds: list[type] = [random.Random]
    shared: list[object] = [random._inst]
    of_numpy = sys.modules.get("numpy.random.mtrand")
    if of_numpy is not None:
        shared.append(of_numpy._rand)
        kinds.append(of_numpy.RandomState)
        generators = sys.modules.get("numpy.random._generator")
        if generators is not None:
            kinds.append(generators.Generator)
        if getattr(of_numpy._rand._bit_generator, "_seed_seq", True) is None:
            return "importing seeds NumPy's random numbers"
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            if type(value) in kinds and not any(value is each for each in shared):
                name = getattr(module, "__name__", "a module")
                return f"{name}, which it imports, has random numbers of its own"
    return None


def read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


# ---- Units


class Board:
    """The board of the runner: numbers of 64 bits in memory that it shares with this process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.memory = mmap.mmap(number, 0)
        self.numbers = memoryview(self.memory).cast("q")

    def close(self) -> None:
        self.numbers.release()
        self.memory.close()
        os.close(self.number)


def serve(control: socket.socket, board: Board) -> None:
    """Fork units as the runner asks for them. Returns only in a unit."""
    while True:
        message, ancillary, _, _ = control.recvmsg(MESSAGE, socket.CMSG_SPACE(4))
        if not message:
            os._exit(0)
        unit = json.loads(message)
        log = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        try:
            child = os.fork()
        except OSError:
            child = None
        if child == 0 and is_unit(board, unit["slot"]):
            control.close()
            board.close()
            become_unit(unit, log)
            return
        os.close(log)
        ended_well = child is not None and os.waitpid(child, 0)[1] == 0
        control.send(FORKED if ended_well else NOT_FORKED)


def is_unit(board: Board, slot: int) -> bool:
    """Fork the unit and end; in the unit, return True when its runner can find it."""
    try:
        unit = os.fork()
    except OSError:
        os._exit(1)
    board.numbers[slot] = unit or os.getpid()
    if unit == 0:
        os.setpgid(0, 0)
        return True
    try:
        os.setpgid(unit, unit)
    finally:  # also if it has ended already, or executes something else
        os._exit(0)


def become_main(path: str) -> dict[str, Any]:
    """Make a module `__main__` of the file, as Python does. Returns its namespace."""
    flags = sys.flags
    if not flags.isolated and not getattr(flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.argv[:] = [path]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    main.__dict__.update(
        {"__builtins__": sys.modules["builtins"], "__file__": path, "__loader__": loader}
    )
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = None
    if sys.version_info < (3, 14):
        main.__dict__["__annotations__"] = {}
    return main.__dict__


def become_unit(unit: dict[str, Any], log: int) -> None:
    """Give this process what is the unit's own, besides its process group."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if unit["folder"] is not None:
        os.chdir(unit["folder"])
    sys.argv[1:] = unit["arguments"]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = unit["command"]
    show_command(unit["command"])
    of_numpy = sys.modules.get("numpy.random.mtrand")
    if of_numpy is not None:
        of_numpy.seed()


def show_command(command: list[str]) -> None:
    """Have this process listed as one that was started by a command.

    The command is written over that of the warm process, which has room for it.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    text = b"".join(os.fsencode(word) + b"\0" for word in command)
    if 0 < begin < begin + len(text) <= end:
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def without_first_frame(hook: Any) -> Any:
    """A `sys.excepthook` that shows an error without the frame of this program."""

    def show(kind: type, error: BaseException, trace: types.TracebackType) -> None:
        hook(kind, error.with_traceback(trace.tb_next), trace.tb_next)

    return show


if __name__ == "__main__":
    task = warm_task(sys.argv)
    try:
        exec(task.code, task.namespace)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook = without_first_frame(sys.excepthook)
        raise
