"""Where task environments are made: on this machine, or on a cluster that is reached by SSH."""

import abc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefect.logging import get_run_logger
from prefect_shell import ShellOperation
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities import while_connected
from flows.activities.commands import find_uv, program
from flows.launchers.of_job import ProfileMissingError, ssh_transport
from flows.launchers.transport import (
    CommandError,
    LocalTransport,
    SSHTransport,
    Transport,
)
from fractal_models.tables import Profile, Resource, TaskGroupV2, UserOAuth

# Removing or reading the many files of an environment on a file system of a cluster.
_SECONDS = 600.0
_LOG_LINES_TOLD = 20

_EXISTING = 'for path; do if [ -f "$path" ]; then printf "%s\\n" "$path"; fi; done'
# The parent of a folder goes with it if nothing else is there.
_REMOVE = 'rm -rf -- "$1" && { rmdir -- "$(dirname -- "$1")" 2> /dev/null || true; }'
# A file is whole as soon as it is there.
_WRITE = """
set -e
umask 022
mkdir -p -- "$(dirname -- "$1")"
cat > "$1.partial"
mv -- "$1.partial" "$1"
"""


class Site(abc.ABC):
    """A machine, as the user who makes environments there.

    `python` is an interpreter there, of version 3.8 or newer; `uv` the path of uv, where it is
    known to be there; `pixi_cache_dir` the folder of pixi's cache, if it is not that of pixi.

    Every method raises TransportError if the machine cannot be reached, and CommandError if a
    command fails.
    """

    uv: str | None = None
    pixi_cache_dir: str | None = None

    def __init__(self, transport: Transport, python: str) -> None:
        self._transport = transport
        self.python = python

    @abc.abstractmethod
    async def shell(self, commands: Sequence[str]) -> list[str]:
        """Run shell commands until one fails, their output in the Prefect log; its lines.

        When this is cancelled, they are ended. The error of one that fails has the end of it.
        """

    async def output(self, *command: str) -> str:
        """What a command prints."""
        ended = await self._transport.run(command, seconds=_SECONDS)
        return ended.check().stdout.decode(errors="replace").strip()

    async def write(self, path: str, content: bytes) -> None:
        """Write a file that all may read, in a folder that is made if need be."""
        ended = await self._transport.run(
            ("sh", "-c", _WRITE, "write", path), content, seconds=_SECONDS
        )
        ended.check()

    async def existing(self, paths: Sequence[str]) -> set[str]:
        """Those of some paths that are files."""
        return set((await self.output("sh", "-c", _EXISTING, "existing", *paths)).splitlines())

    async def remove(self, folder: str) -> None:
        """Remove a folder, if it is there, and its parent, if nothing else is in that."""
        await self.output("sh", "-c", _REMOVE, "remove", folder)


class LocalSite(Site):
    """This machine, as the user of this process."""

    def __init__(self) -> None:
        super().__init__(LocalTransport(), sys.executable)
        self.uv = find_uv()

    async def shell(self, commands: Sequence[str]) -> list[str]:
        """See `Site.shell`."""
        operation = ShellOperation(commands=_script(commands), log_prefix=None)
        async with operation:
            process = await operation.atrigger()
            try:
                await process.await_for_completion()
            except RuntimeError as error:
                raise _failed(await process.afetch_result()) from error
            lines: list[str] = await process.afetch_result()
            return lines


class RemoteSite(Site):
    """A cluster that is reached by SSH, as the user of a profile."""

    def __init__(
        self, transport: SSHTransport, python: str, pixi_cache_dir: str | None = None
    ) -> None:
        super().__init__(transport, python)
        self._ssh = transport
        self.pixi_cache_dir = pixi_cache_dir

    async def shell(self, commands: Sequence[str]) -> list[str]:
        """See `Site.shell`. They are ended too when the connection is lost."""
        log, lines = get_run_logger(), list[str]()

        def hear(line: str) -> None:
            log.info("%s", line)
            lines.append(line)

        script = "\n".join(_script(commands))
        listening = (self.python, "-I", "-S", "-c", program(while_connected), script)
        if await self._ssh.follow(listening, hear) != 0:
            raise _failed(lines)
        return lines


@asynccontextmanager
async def open_site(session: AsyncSession, group: TaskGroupV2) -> AsyncIterator[Site]:
    """Where the environment of a task group is, reached as its owner.

    Raises:
        ProfileMissingError: the owner has no way to there any more.
    """
    resource = await session.get_one(Resource, group.resource_id)
    if resource.type != "slurm_ssh":
        yield LocalSite()
        return
    owner = await session.get_one(UserOAuth, group.user_id)
    profile = await session.get(Profile, owner.profile_id) if owner.profile_id else None
    if profile is None or profile.resource_id != resource.id:
        raise ProfileMissingError(
            f"{owner.email}, whose task group this is, has no profile for resource "
            f"{resource.name!r}: an administrator can give one."
        )
    transport = ssh_transport(resource, profile)
    try:
        python = str(resource.jobs_slurm_python_worker)
        yield RemoteSite(transport, python, profile.pixi_cache_dir)
    finally:
        await transport.close()


def _script(commands: Sequence[str]) -> list[str]:
    """Each command is told before it is run, as shells do it."""
    return ["set -e", "exec 2>&1", "set -x", *commands]


def _failed(output: Sequence[str]) -> CommandError:
    told = "\n".join(output[-_LOG_LINES_TOLD:])
    return CommandError(f"Its environment could not be made:\n{told}")
