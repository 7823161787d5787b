"""A task that does what tasks may do: `python warm_cases.py --args-json A --out-json B`.

The arguments name the case. It is executed warm and cold, and what it does is compared. So nothing
that it writes may differ from one execution to the next.
"""

import atexit
import json
import logging
import multiprocessing
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import said_at_import

log = logging.getLogger("task")


class CustomError(Exception):
    pass


def square(number: int) -> int:
    return number * number


def where_it_is() -> None:
    print(
        os.getpid() == os.getpgrp(),
        sys.argv[0] == __file__,
        sys.path[0] == os.path.dirname(__file__),
    )
    print(os.getcwd(), sys.argv[1:], sys.executable, sys.flags)
    print(sys.path)


def what_main_is() -> None:
    main = sys.modules["__main__"]
    print(main.__dict__ is globals(), __name__, __file__, __spec__, __package__, __doc__)
    print(type(__builtins__).__name__, type(__loader__).__name__, sorted(globals()))
    print(pickle.loads(pickle.dumps(square))(3), pickle.loads(pickle.dumps(CustomError("x"))).args)


def who_runs_it() -> None:
    text = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()
    print(text.split("\0"), getattr(sys, "orig_argv", None))


def environment() -> None:
    print(sorted(os.environ.items()))
    print(oct(os.umask(0)), os.nice(0), resource.getrlimit(resource.RLIMIT_CORE))


def signals() -> None:
    status = Path("/proc/self/status").read_text().splitlines()
    print([line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt", "ShdPnd"))])
    print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD))


def files() -> None:
    print(sorted(os.listdir("/proc/self/fd"))[:-1])  # without that of the listing
    print([os.readlink(f"/proc/self/fd/{number}") for number in range(3)])


def stdin_is_empty() -> None:
    print(repr(sys.stdin.read()), repr(os.read(0, 10)))


def both_streams() -> None:
    print("first, buffered")
    print("second, at once", file=sys.stderr)
    os.write(1, b"third, past the buffer\n")
    print(sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.encoding)


def no_newline() -> None:
    sys.stdout.write("no newline")


def exits_with_zero() -> None:
    sys.exit(0)


def exits_with_none() -> None:
    sys.exit()


def exits_with_a_number() -> None:
    sys.exit(3)


def exits_with_a_large_number() -> None:
    sys.exit(256 + 7)


def exits_with_a_negative_number() -> None:
    sys.exit(-1)


def exits_with_a_text() -> None:
    sys.exit("this is wrong")


def exits_with_an_object() -> None:
    raise SystemExit(["a", 1])


def exits_with_true() -> None:
    raise SystemExit(True)


def exits_at_once() -> None:
    print("lost, as it is in a buffer")
    os._exit(5)


def raises() -> None:
    raise ValueError("of the task")


def raises_from() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise CustomError("outer") from error


def raises_while_handling() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        square("x")  # type: ignore[arg-type]


def shows_an_error_by_itself() -> None:
    try:
        square(None)  # type: ignore[arg-type]
    except TypeError:
        traceback.print_exc()


def has_an_excepthook() -> None:
    def hook(kind: type, error: BaseException, trace: object) -> None:
        print("hook:", kind.__name__, error, [f.name for f in traceback.extract_tb(trace)])

    sys.excepthook = hook
    raises()


def is_interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def recurses() -> None:
    def deeper(level: int) -> int:
        return deeper(level + 1)

    try:
        deeper(0)
    except RecursionError:
        print("too deep")


def at_exit() -> None:
    atexit.register(print, "at exit, first registered")
    atexit.register(print, "at exit, last registered")
    raise ValueError("before")


def warns() -> None:
    warnings.warn("of the task", stacklevel=1)
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)


def logs() -> None:
    log.warning("by a logger that was set up at import")
    logging.getLogger("said").info("by another")


def threads() -> None:
    print(threading.active_count(), threading.current_thread() is threading.main_thread())
    with ThreadPoolExecutor(3) as pool:
        print(list(pool.map(square, range(5))))
    thread = threading.Thread(target=lambda: print("in a thread that outlives the main one"))
    thread.start()


def thread_raises() -> None:
    thread = threading.Thread(target=raises, name="of-task")
    thread.start()
    thread.join()


def forks() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(square, range(5)))


def spawns() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, range(3)))


def runs_a_command() -> None:
    subprocess.run(["sh", "-c", "echo from a child; echo $PPID > ../parent"], check=True)
    print(int(Path("../parent").read_text()) == os.getpid())


def leaves_children() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    Path(os.environ["LEFT"]).write_text(str(child.pid))


def changes_its_folder() -> None:
    os.chdir("/")
    print(os.getcwd())


def fills_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**26, now + 2**26))
    bytearray(2**30)


def long_arguments(text: str = "") -> None:
    print(len(text), text[:3], text[-3:])


def temporary_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").touch()
        print(os.listdir(folder))


def random_numbers() -> None:
    print(len({random.random() for _ in range(100)}), len(random.Random(7).sample(range(9), 3)))


def memory_of_imports() -> None:
    print(said_at_import.counted(), said_at_import.counted())


def no_output() -> None:
    sys.exit("an output that does not count")


def main() -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    args = json.loads(Path(options["--args-json"]).read_text())
    Path(options["--out-json"]).write_text(json.dumps({"case": args["case"]}))
    globals()[args.pop("case")](**args)


if __name__ == "__main__":
    main()
