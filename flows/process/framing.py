"""Runs our programs on other machines and finds their answers in the output."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flows.process.transport import CommandError, NoAnswerError, Transport
from flows.programs import framed

# Runs a command. If it fails, this fails with the command's message.
_COMMAND = b"""
import subprocess, sys
nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
try:
    ended = subprocess.run(sys.argv[1:], stdin=nothing, stdout=pipe, stderr=pipe)
except OSError as error:
    sys.exit("%s cannot be started: %s" % (sys.argv[1], error))
if ended.returncode:
    said = (ended.stderr or ended.stdout).decode(errors="replace").strip()
    sys.exit("%s failed: %s" % (sys.argv[1], said or "exit code %d and no word" % ended.returncode))
sys.stdout.buffer.write(ended.stdout)
"""
_LONGEST_WHY = 2000


async def run_program(
    transport: Transport,
    python: str,
    program: ModuleType,
    *arguments: str,
    stdin: bytes = b"",
    seconds: float,
) -> bytes:
    """Run one of our programs with a Python of 3.8 or newer on that machine, and return its answer.

    Raises:
        TransportError, AnswerError: as `Transport.run`.
        CommandError: the program failed; the message says why.
        NoAnswerError: the output contains no answer; the message quotes the output.
    """
    text = Path(str(program.__file__)).read_bytes()
    return await _run(transport, python, text, arguments, stdin, seconds)


async def run_command(transport: Transport, python: str, *command: str, seconds: float) -> bytes:
    """What a command writes to its standard output, without anything that others write there.

    Raises:
        TransportError, AnswerError, CommandError, NoAnswerError: as `run_program`.
    """
    return await _run(transport, python, _COMMAND, command, b"", seconds)


async def _run(
    transport: Transport,
    python: str,
    text: bytes,
    arguments: Sequence[str],
    stdin: bytes,
    seconds: float,
) -> bytes:
    mark = f"fractal-answer-{secrets.token_hex(8)}"
    frame = Path(framed.__file__).read_text(encoding="utf-8")
    ended = await transport.run(
        (python, "-I", "-S", "-c", frame, mark, *arguments),
        b"%d\n" % len(text) + text + stdin,
        seconds=seconds,
    )
    found = answer_in(ended.stdout, mark)
    if found is None:
        raise NoAnswerError(ended)
    failed, answer = found
    if failed:
        raise CommandError(answer[-_LONGEST_WHY:].decode(errors="replace").strip())
    return answer


def answer_in(output: bytes, mark: str) -> tuple[bool, bytes] | None:
    """Whether a program failed, and its answer: from the first complete frame in the output.

    None if the output has no complete frame.
    """
    head = re.compile(rb"%s ([01]) (\d{1,10}) ([0-9a-f]{64})\r?\n" % re.escape(mark.encode()))
    for frame in head.finditer(output):
        answer = output[frame.end() : frame.end() + int(frame[2])]
        if hashlib.sha256(answer).hexdigest().encode() == frame[3]:
            return frame[1] == b"1", answer
    return None
