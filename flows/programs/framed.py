"""Run a program and send what it writes in a frame: `python framed.py MARK ARGUMENTS...`.

Shells, their start-up files and sudo may print anything before, after and between the output of a
program. So an answer is sent as

    a line: MARK, how the program ended (0 or 1), the length of the answer, its SHA-256
    the answer, of this length: what the program wrote, or, if it failed, why

The mark is random, so whoever knows it finds the answer. The program comes on standard input: first
a line with the length of its text, then the text; the program itself reads what follows.

This file is sent as the text of `python -c`: it is one file, needs only the standard library, and
runs with Python 3.8 and newer.
"""

from __future__ import annotations

import hashlib
import io
import sys
import traceback


def main(mark: str, arguments: list[str]) -> None:
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    text = stdin.read(int(stdin.readline()))
    failed, answer = run(text, arguments)
    checksum = hashlib.sha256(answer).hexdigest()
    stdout.write(b"\n%s %d %d %s\n" % (mark.encode(), failed, len(answer), checksum.encode()))
    stdout.write(answer + b"\n")
    stdout.flush()


def run(text: bytes, arguments: list[str]) -> tuple[bool, bytes]:
    """Run a program. Returns whether it failed, and what it wrote or why it failed."""
    written = io.BytesIO()
    own, sys.stdout = sys.stdout, io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    sys.argv = ["-c", *arguments]
    why: object = None
    try:
        exec(compile(text, "program", "exec", dont_inherit=True), {"__name__": "__main__"})
    except SystemExit as end:
        why = end.code
    except Exception as error:
        why = "".join(traceback.format_exception_only(type(error), error)).strip()
    finally:
        content, sys.stdout = written.getvalue(), own
    failed = why is not None and why != 0
    return failed, str(why).encode() if failed else content


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
