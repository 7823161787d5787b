"""Move the files of batches to and from a cluster: `python cluster_files.py ACTION ...`.

This program is sent to where units run, on standard input (see `framed.py`), so it is one file,
needs only the standard library, and runs with Python 3.8 and newer. Its further input and its
output are bytes.

Units can write where this program reads. So it opens only regular files, never through a symbolic
link, and treats everything else as missing. The content of these files is sent unchanged: the
receiver does not trust it.

    receive FOLDER  unpack a tar archive from stdin into a folder that only its owner can read
    collect         send what units did; stdin is a JSON object, see `collect`
    begun TOKEN     list the SLURM jobs that began to execute a submission; stdin is a JSON list
                    of its batch folders, stdout a JSON list of ids
    void TOKEN      prevent a submission from ever beginning, unless it has; in and out as `begun`
    remove          remove job folders; stdin is a JSON list of them, stdout of those that are gone
    sizes           measure job folders; stdin is a JSON list of them, stdout one of pairs, for each
                    folder that is there: its path, and the bytes of all that is in it
    stop            let runners stop their batches; stdin is a JSON list of batch folders
    end             say how batches ended; stdin is a JSON list of pairs, a batch folder and the
                    file with the output of its SLURM job; stdout is a JSON list of pairs, the end
                    of that file, and the indexes of units that were started and have no result
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tarfile
from typing import Any, BinaryIO, Iterator

AT_ONCE = 16 * 1024 * 1024  # bytes that one `collect` sends, roughly
FILES_AT_ONCE = 10000
RESULTS_AT_ONCE = 64 * 1024
LONGEST_LOG = 1024 * 1024  # of a longer one the middle is left out
LONGEST_OUTPUT = 32 * 1024 * 1024  # of a longer one a byte more is sent, so that it shows
TAIL = 4096


def main(arguments: list[str]) -> int:
    os.umask(0o077)
    action, *rest = arguments
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    if action == "receive":
        receive(rest[0], stdin)
    elif action == "collect":
        collect(json.load(stdin), stdout)
    elif action in ("begun", "void"):
        folders = json.load(stdin)
        if action == "void":
            void(rest[0], folders)
        stdout.write(json.dumps(begun(rest[0], folders)).encode())
    elif action == "stop":
        stop(json.load(stdin))
    elif action == "remove":
        stdout.write(json.dumps(remove(json.load(stdin))).encode())
    elif action == "sizes":
        found = [folder for folder in json.load(stdin) if os.path.isdir(folder)]
        stdout.write(json.dumps([(folder, size(folder)) for folder in found]).encode())
    elif action == "end":
        ends = [(tail(path), unfinished(folder)) for folder, path in json.load(stdin)]
        stdout.write(json.dumps(ends).encode())
    else:
        raise ValueError("unknown action %r" % action)
    return 0


def receive(folder: str, archive: BinaryIO) -> None:
    """Unpack files, each of which appears only when it is complete."""
    os.makedirs(folder, exist_ok=True)
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            path = os.path.join(folder, member.name)
            content = tar.extractfile(member)
            if content is None:
                os.makedirs(path, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            partial = "%s.%d.partial" % (path, os.getpid())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            with open(partial, "xb") as file:
                file.write(content.read())
            os.rename(partial, path)


def collect(request: dict[str, Any], out: BinaryIO) -> None:
    """Send the new results of batches, each after the files of its unit.

    The request is `{"batches": {name: [folder, offset]}}`. The answer is a line with a JSON list of
    pairs, a name and a size, followed by the contents one after the other. `results/<name>` has
    complete lines of the batch's `results.jsonl`, beginning at the offset; `units/<file>` is a log
    or an output in the batch's `units_dir`.
    """
    found: list[tuple[str, bytes]] = []
    size = 0
    for name, (folder, offset) in request["batches"].items():
        lines = new_lines(os.path.join(folder, "results.jsonl"), offset)
        if not lines:
            continue
        batch, sent = read_batch(folder), b""
        names = {unit["index"]: unit["name"] for unit in batch["units"]}
        for line in lines.splitlines(keepends=True):
            unit = names.get(index_in(line))
            files = [] if unit is None else list(files_of_unit(batch, unit))
            found += files
            sent += line
            size += len(line) + sum(len(content) for _, content in files)
            if size > AT_ONCE or len(found) > FILES_AT_ONCE:
                break
        found.append(("results/" + name, sent))
        if size > AT_ONCE or len(found) > FILES_AT_ONCE:
            break
    out.write(json.dumps([(name, len(content)) for name, content in found]).encode() + b"\n")
    for _, content in found:
        out.write(content)


def new_lines(path: str, offset: int) -> bytes:
    """The next complete lines of a file, up to a limit; of too long a line the beginning."""
    with contextlib.suppress(FileNotFoundError), open_regular(path) as file:
        file.seek(offset)
        chunk = file.read(RESULTS_AT_ONCE)
        whole = chunk[: chunk.rfind(b"\n") + 1]
        return whole or (chunk if len(chunk) == RESULTS_AT_ONCE else b"")
    return b""


def files_of_unit(batch: dict[str, Any], name: str) -> Iterator[tuple[str, bytes]]:
    """A unit's existing files, by name: the log of the attempt before, its log, its output."""
    for ending in (".attempt-%d.log" % (batch.get("attempt", 1) - 1), ".log", ".out.json"):
        path = os.path.join(batch["units_dir"], name + ending)
        with contextlib.suppress(FileNotFoundError), open_regular(path) as file:
            content = log_of(file) if ending.endswith(".log") else file.read(LONGEST_OUTPUT + 1)
            yield "units/" + os.path.basename(path), content


def log_of(file: BinaryIO) -> bytes:
    """The content of a log; of a long one, only the beginning and the end."""
    if os.fstat(file.fileno()).st_size <= LONGEST_LOG:
        return file.read(LONGEST_LOG)
    begin = file.read(LONGEST_LOG // 2)
    file.seek(-LONGEST_LOG // 2, os.SEEK_END)
    return begin + b"\n[...]\n" + file.read(LONGEST_LOG // 2)


def index_in(line: bytes) -> int | None:
    """The index of the unit in a line of results; None if the line is about no unit."""
    try:
        index = json.loads(line)["index"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return index if isinstance(index, int) else None


def read_batch(folder: str) -> dict[str, Any]:
    """The content of a `batch.json`."""
    with open_regular(os.path.join(folder, "batch.json")) as file:
        batch: dict[str, Any] = json.load(file)
    return batch


def open_regular(path: str) -> BinaryIO:
    """Open a regular file to read it. Raises FileNotFoundError if there is no such file."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
            raise FileNotFoundError(errno.ENOENT, "No regular file", path) from error
        raise
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb")
    os.close(number)
    raise FileNotFoundError(errno.ENOENT, "No regular file", path)


def begun(token: str, folders: list[str]) -> list[int]:
    """The ids of the SLURM jobs that began a submission, as its script has written them.

    See `sbatch_script` in `flows/launchers/slurm/script.py`.
    """
    found = set()
    for folder in folders:
        path = os.path.join(folder, token + ".job")
        with contextlib.suppress(FileNotFoundError, ValueError), open_regular(path) as file:
            found.add(int(file.read(20)))
    return sorted(found)


def void(token: str, folders: list[str]) -> None:
    """Write a file into batch folders so that a submission never begins, unless it has."""
    if begun(token, folders):
        return
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            open(os.path.join(folder, token + ".void"), "x").close()


def stop(folders: list[str]) -> None:
    """Write a file into each batch folder that makes the next SIGTERM stop the batch."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            open(os.path.join(folder, "stop"), "x").close()


def remove(folders: list[str]) -> list[str]:
    """Remove folders with all that is in them. Returns those that do not exist any more."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder for folder in folders if not os.path.lexists(folder)]


def size(folder: str) -> int:
    """The bytes that a folder takes with all that is in it."""
    total = 0
    for directory, _, files in os.walk(folder):
        for name in [".", *files]:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def tail(path: str) -> str:
    """The end of a file; empty if the file does not exist."""
    with contextlib.suppress(FileNotFoundError), open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        return file.read(TAIL).decode(errors="replace")
    return ""


def unfinished(folder: str) -> list[int]:
    """The indexes of a batch's units that were started and have no result.

    When a unit is started, its arguments are written. If they were written after the `batch.json`,
    the unit was started in this attempt.
    """
    path = os.path.join(folder, "batch.json")
    try:
        batch, begun = read_batch(folder), os.lstat(path).st_mtime
    except FileNotFoundError:
        return []
    known = set()
    results = os.path.join(folder, "results.jsonl")
    with contextlib.suppress(FileNotFoundError), open_regular(results) as file:
        known = {index_in(line) for line in file if line.endswith(b"\n")}
    found = []
    for unit in batch["units"]:
        arguments = os.path.join(batch["units_dir"], unit["name"] + ".args.json")
        with contextlib.suppress(FileNotFoundError):
            if unit["index"] not in known and os.lstat(arguments).st_mtime >= begun:
                found.append(unit["index"])
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        sys.exit("batch.json is damaged: %r" % error)
