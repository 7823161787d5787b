"""Move the files of batches to and from a cluster: `python cluster_files.py ACTION ...`.

This program is sent to where units run, as the text of `python -c`'s standard input, so it is one
file, needs the standard library only, and runs with Python 3.8 and newer. What follows on standard
input, and what comes out, is bytes.

    receive FOLDER    unpack a tar archive from stdin into a folder, which only its owner can read
    collect           send what units did; stdin is a JSON object, see `collect`
    stop              let runners stop their batches; stdin is a JSON list of batch folders
    end               tell how batches ended; stdin is a JSON list of pairs, a batch folder and the
                      file with the output of its SLURM job; stdout a JSON list of pairs, the end of
                      that file, and the indexes of the units that were started and have no result
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
from typing import Any, BinaryIO, Iterator

AT_ONCE = 16 * 1024 * 1024  # bytes that one `collect` sends, roughly
RESULTS_AT_ONCE = 64 * 1024
LONGEST_LOG = 1024 * 1024  # of a longer one the middle is left out
TAIL = 4096


def main(arguments: list[str]) -> int:
    os.umask(0o077)
    action, *rest = arguments
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    if action == "receive":
        receive(rest[0], stdin)
    elif action == "collect":
        collect(json.load(stdin), stdout)
    elif action == "stop":
        stop(json.load(stdin))
    elif action == "end":
        ends = [(tail(path), unfinished(folder)) for folder, path in json.load(stdin)]
        stdout.write(json.dumps(ends).encode())
    else:
        raise ValueError("unknown action %r" % action)
    return 0


def receive(folder: str, archive: BinaryIO) -> None:
    """Unpack files, each of which is whole as soon as it is there."""
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
            with open(partial, "wb") as file:
                file.write(content.read())
            os.rename(partial, path)


def collect(request: dict[str, Any], out: BinaryIO) -> None:
    """Send, as a tar archive, the new results of batches, each after the files of its unit.

    The request is `{"batches": {name: [folder, offset]}}`. A member `results/<name>` holds whole
    lines of the batch's `results.jsonl` from that offset on, a member `units/<file>` is a log or an
    output in the batch's `units_dir`.
    """
    with tarfile.open(fileobj=out, mode="w|") as tar:
        sent = 0
        for name, (folder, offset) in request["batches"].items():
            lines = new_lines(os.path.join(folder, "results.jsonl"), offset)
            if not lines:
                continue
            for file_name, content in files_of_units(folder, lines):
                add(tar, "units/" + file_name, content)
                sent += len(content)
            add(tar, "results/" + name, lines)
            sent += len(lines)
            if sent > AT_ONCE:
                return


def new_lines(path: str, offset: int) -> bytes:
    """The next whole lines of a file, perhaps not all of them."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            chunk = file.read(RESULTS_AT_ONCE)
    except FileNotFoundError:
        return b""
    return chunk[: chunk.rfind(b"\n") + 1]


def files_of_units(folder: str, lines: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of the units that have a result in these lines."""
    with open(os.path.join(folder, "batch.json"), encoding="utf-8") as file:
        batch = json.load(file)
    names = {unit["index"]: unit["name"] for unit in batch["units"]}
    earlier = ".attempt-%d.log" % (batch.get("attempt", 1) - 1)
    for line in lines.splitlines():
        result = json.loads(line)
        if "index" not in result:
            continue
        for ending in (earlier, ".log", ".out.json"):
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(batch["units_dir"], names[result["index"]] + ending)
                yield os.path.basename(path), content_of(path)


def content_of(path: str) -> bytes:
    """A file, or, if it is a long log, its beginning and end."""
    with open(path, "rb") as file:
        if not path.endswith(".log") or os.fstat(file.fileno()).st_size <= LONGEST_LOG:
            return file.read()
        begin = file.read(LONGEST_LOG // 2)
        file.seek(-LONGEST_LOG // 2, os.SEEK_END)
        return begin + b"\n[...]\n" + file.read()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def stop(folders: list[str]) -> None:
    """Leave word that the next SIGTERM stops these batches."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            open(os.path.join(folder, "stop"), "a").close()


def tail(path: str) -> str:
    """The end of a file; nothing if it is not there."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def unfinished(folder: str) -> list[int]:
    """The units of a batch that were started and have no result.

    A unit is started when its arguments are written: after the batch, if it is in this attempt.
    """
    path = os.path.join(folder, "batch.json")
    try:
        with open(path, encoding="utf-8") as file:
            batch = json.load(file)
    except FileNotFoundError:
        return []
    begun = os.stat(path).st_mtime
    results = os.path.join(folder, "results.jsonl")
    known = set()
    with contextlib.suppress(FileNotFoundError), open(results, "rb") as file:
        known = {json.loads(line).get("index") for line in file if line.endswith(b"\n")}
    found = []
    for unit in batch["units"]:
        arguments = os.path.join(batch["units_dir"], unit["name"] + ".args.json")
        with contextlib.suppress(FileNotFoundError):
            if unit["index"] not in known and os.stat(arguments).st_mtime >= begun:
                found.append(unit["index"])
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))
