"""The real Fractal client, unchanged, as people run it."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from fractal_client.parser import parser_main

Command = tuple[str, ...]

_COMMAND = str(Path(sys.executable).with_name("fractal"))
_AT_ONCE = asyncio.Semaphore(4)


class Client:
    """`fractal` as one user, in a folder of its own; `used` and `refused` are what was tried."""

    used: set[Command] = set()
    refusals: set[Command] = set()

    def __init__(self, server: str, folder: Path, email: str, token: str) -> None:
        self.server, self.folder, self.email, self.token = server, folder, email, token
        self.login = ["--token-path", str(self.file("token", token))]

    @classmethod
    async def of(cls, server: str, folder: Path, email: str, password: str) -> "Client":
        """The client of a user who has logged in."""
        async with httpx.AsyncClient(base_url=server, timeout=30) as http:
            credentials = {"username": email, "password": password}
            answer = await http.post("/auth/token/login/", data=credentials)
        return cls(server, folder, email, answer.json()["access_token"])

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
    ) -> tuple[int | None, str]:
        who = self.login if login is None else login
        async with _AT_ONCE:
            process = await asyncio.create_subprocess_exec(
                *(_COMMAND, *who, "--fractal-server", server or self.server, *before),
                *map(str, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "FRACTAL_CACHE_PATH": str(self.folder / "cache")},
                cwd=self.folder,
            )
            output, errors = await process.communicate(stdin.encode())
        told = output if process.returncode == 0 else output + errors
        return process.returncode, told.decode().strip()


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
