"""The real Fractal client, unchanged, as people run it.

Commands are forked from a process that has imported the client: to import it takes most of the time
of a command.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
from fractal_client import config
from fractal_client.main import main as client_main
from fractal_client.parser import parser_main

Command = tuple[str, ...]

_COMMAND = str(Path(sys.executable).with_name("fractal"))
# Not forked, but started as people do.
_STARTED = ("version", "auth")


@dataclass(frozen=True)
class Call:
    """A command with the folder and the text that it gets."""

    arguments: list[str]
    folder: str
    stdin: str

    @property
    def environment(self) -> dict[str, str]:
        return {"FRACTAL_CACHE_PATH": f"{self.folder}/cache"}


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    errors: str


class Forks:
    """The process that commands are forked from, one after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def run(self, call: Call) -> Ended:
        async with self._turn:
            return await asyncio.to_thread(self._run, call)

    def _run(self, call: Call) -> Ended:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(asdict(call)), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def forks() -> Iterator[Forks]:
    command = [sys.executable, "-m", "tests.client"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Forks(process)


def fork_for_each_line() -> None:
    """The program of that process: a call in each line, and how it ended."""
    for line in sys.stdin:
        call = Call(**json.loads(line))
        files = [Path(call.folder, name) for name in ("stdin", "output", "errors")]
        files[0].write_text(call.stdin)
        process = os.fork()
        if process == 0:
            _be(call, files)
        _, status = os.waitpid(process, 0)
        output, errors = (file.read_text() for file in files[1:])
        ended = Ended(os.waitstatus_to_exitcode(status), output, errors)
        print(json.dumps(asdict(ended)), flush=True)


def _be(call: Call, files: list[Path]) -> NoReturn:
    """Be the command."""
    modes = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (file, mode) in enumerate(zip(files, modes, strict=True)):
        os.dup2(os.open(file, mode), number)
    sys.stdin = os.fdopen(0)  # without what this process has read ahead
    os.chdir(call.folder)
    os.environ.update(call.environment)
    config.settings.__init__()  # type: ignore[misc]  # which it does when it is imported
    sys.argv = [_COMMAND, *call.arguments]
    code: object = 1
    try:
        client_main()
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


class Client:
    """`fractal` as one user, in a folder of its own; `used` and `refused` are what was tried."""

    used: set[Command] = set()
    refusals: set[Command] = set()

    def __init__(self, forks: Forks, server: str, folder: Path, email: str, token: str) -> None:
        self.forks = forks
        self.server, self.folder, self.email, self.token = server, folder, email, token
        self.login = ["--token-path", str(self.file("token", token))]

    @classmethod
    async def of(
        cls, forks: Forks, server: str, folder: Path, email: str, password: str
    ) -> "Client":
        """The client of a user who has logged in."""
        async with httpx.AsyncClient(base_url=server, timeout=30) as http:
            credentials = {"username": email, "password": password}
            answer = await http.post("/auth/token/login/", data=credentials)
        return cls(forks, server, folder, email, answer.json()["access_token"])

    async def __call__(self, *arguments: object, batch: bool = True, **options: Any) -> str:
        """What a command prints, which must succeed: with `batch` mostly ids."""
        code, told = await self._run(["--batch"] if batch else [], arguments, **options)
        assert code == 0, (arguments, told)
        self.used.add(_command(arguments))
        return told

    async def shown(self, *arguments: object) -> Any:
        """What a command shows, which must succeed."""
        return json.loads(await self(*arguments, batch=False))

    async def refused(self, *arguments: object, **options: Any) -> str:
        """What a command tells, which must fail, and must tell it to a person."""
        code, told = await self._run([], arguments, **options)
        assert code != 0, (arguments, told)
        assert "Traceback" not in told, told
        self.refusals.add(_command(arguments))
        return told

    async def refusals_of(self, *commands: tuple[object, ...]) -> dict[tuple[object, ...], str]:
        """What several commands tell, which must all fail."""
        told = await asyncio.gather(*(self.refused(*command) for command in commands))
        return dict(zip(commands, told, strict=True))

    def file(self, name: str, content: object) -> Path:
        """A JSON file; or one with this text."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    async def _run(
        self,
        before: list[str],
        arguments: tuple[object, ...],
        login: list[str] | None = None,
        server: str | None = None,
        stdin: str = "",
    ) -> tuple[int, str]:
        who = self.login if login is None else login
        words = [*who, "--fractal-server", server or self.server, *before, *map(str, arguments)]
        call = Call(words, str(self.folder), stdin)
        ended = await (_started(call) if arguments[0] in _STARTED else self.forks.run(call))
        told = ended.output if ended.code == 0 else ended.output + ended.errors
        return ended.code, told.strip()


async def _started(call: Call) -> Ended:
    process = await asyncio.create_subprocess_exec(
        _COMMAND,
        *call.arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | call.environment,
        cwd=call.folder,
    )
    output, errors = await process.communicate(call.stdin.encode())
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), errors.decode())


def commands() -> set[Command]:
    """All commands of the client."""
    return set(_commands(parser_main))


def _commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    actions = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not actions:
        yield ()
    for action in actions:
        for name, inner in action.choices.items():
            for command in _commands(inner):
                yield (name, *command)


def _command(arguments: tuple[object, ...]) -> Command:
    known = commands()
    first = tuple(map(str, arguments[:2]))
    return first if first in known else first[:1]


if __name__ == "__main__":
    fork_for_each_line()
