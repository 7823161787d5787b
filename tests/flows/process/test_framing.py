"""Answers of our programs are told from all that is printed around them."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.process.framing import run_command, run_program
from flows.process.transport import CommandError, Completed, LocalTransport, NoAnswerError

SECONDS = 30.0


class FakeNoisyTransport(LocalTransport):
    """A fake login shell that prints before and after, and may cut or change what is between."""

    def __init__(self, before: bytes = b"", after: bytes = b"", change: object = None) -> None:
        super().__init__()
        self.before, self.after, self.change = before, after, change

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        ended = await super().run(command, stdin, seconds=seconds)
        answer = self.change(ended.stdout) if callable(self.change) else ended.stdout
        output = self.before + answer + self.after
        return Completed(ended.command, ended.exit_code, output, b"motd\n" + ended.stderr)


@pytest.fixture
def program(tmp_path: Path) -> types.ModuleType:
    path = tmp_path / "program.py"
    path.write_text(
        "import sys\n"
        "if sys.argv[1] == 'fail': sys.exit('it cannot be')\n"
        "if sys.argv[1] == 'break': raise ValueError('of no use')\n"
        "print('not in the frame', file=sys.__stdout__, flush=True)\n"
        "sys.stdout.buffer.write(sys.argv[1].encode() + sys.stdin.buffer.read())\n"
    )
    module = types.ModuleType("program")
    module.__file__ = str(path)
    return module


@pytest.mark.parametrize("noise", [b"", b"Welcome!\n", b"\xff\x00 no line end", b"x" * 100_000])
async def test_what_is_printed_around_an_answer_is_ignored(
    program: types.ModuleType, noise: bytes
) -> None:
    transport = FakeNoisyTransport(noise, noise)
    answer = await run_program(
        transport, sys.executable, program, "a", stdin=b"\x00\n\xff", seconds=SECONDS
    )
    assert answer == b"a\x00\n\xff"
    assert await run_command(transport, sys.executable, "echo", "b", seconds=SECONDS) == b"b\n"


async def test_a_program_that_fails_tells_why_in_its_own_words(program: types.ModuleType) -> None:
    transport = FakeNoisyTransport(b"Welcome!\n")
    with pytest.raises(CommandError, match=r"^it cannot be$"):
        await run_program(transport, sys.executable, program, "fail", seconds=SECONDS)
    with pytest.raises(CommandError, match=r"^ValueError: of no use$"):
        await run_program(transport, sys.executable, program, "break", seconds=SECONDS)
    command = ("sh", "-c", "echo no >&2; exit 3")
    with pytest.raises(CommandError, match=r"^sh failed: no$"):
        await run_command(transport, sys.executable, *command, seconds=SECONDS)
    with pytest.raises(CommandError, match="no-such-command cannot be started"):
        await run_command(transport, sys.executable, "no-such-command", seconds=SECONDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: b"",
        lambda answer: answer[:-3],
        lambda answer: answer.replace(b"hello", b"HELLO"),
        lambda answer: answer.replace(b"fractal-answer", b"fractal answer"),
    ],
    ids=["nothing", "cut", "changed", "without mark"],
)
async def test_without_a_whole_frame_what_came_is_quoted(
    program: types.ModuleType, change: object
) -> None:
    transport = FakeNoisyTransport(b"Quota exceeded!\n", change=change)
    with pytest.raises(NoAnswerError, match=r"exit code 0\), but: Quota exceeded!.* motd"):
        await run_program(transport, sys.executable, program, "hello", seconds=SECONDS)
