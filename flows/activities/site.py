"""Where task environments are made: on this machine, or on a cluster that is reached by SSH."""

import abc
import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from prefect.logging import get_run_logger
from prefect_shell import ShellOperation
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.commands import find_uv, interpreter_of, program
from flows.launchers.choice import ssh_transport
from flows.process.accounts import Account
from flows.process.framing import run_command
from flows.process.transport import (
    CommandError,
    LocalTransport,
    SSHTransport,
    Transport,
    variables_of_ours,
)
from flows.programs import while_connected
from fractal_models.errors import ProfileError
from fractal_models.tables import Profile, Resource, TaskGroupV2, UserOAuth

# Removing or reading the many files of an environment on a file system of a cluster.
_SECONDS = 600.0
_LOG_LINES_TOLD = 20
_NETWORK = (
    *("UV_", "PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)

_IS_FOLDER = 'if [ -d "$1" ]; then echo yes; fi'
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
    known to be there; `pip_cache_dir` and `pixi_cache_dir` the folders of caches, if they are not
    those of the resource. `is_own` says that the user is no other than that of this process.

    Every method raises TransportError if the machine cannot be reached, and CommandError if a
    command fails.
    """

    def __init__(
        self,
        transport: Transport,
        python: str,
        *,
        is_own: bool = False,
        uv: str | None = None,
        pip_cache_dir: str | None = None,
        pixi_cache_dir: str | None = None,
    ) -> None:
        self._transport = transport
        self.python = python
        self.is_own = is_own
        self.uv = uv
        self.pip_cache_dir = pip_cache_dir
        self.pixi_cache_dir = pixi_cache_dir

    @abc.abstractmethod
    async def shell(self, commands: Sequence[str]) -> list[str]:
        """Run shell commands until one fails, their output in the Prefect log; its lines.

        When this is cancelled, they are ended. The error of one that fails has the end of it.
        """

    async def output(self, *command: str, seconds: float = _SECONDS) -> str:
        """What a command prints that takes no longer than so many seconds."""
        answer = await run_command(self._transport, self.python, *command, seconds=seconds)
        return answer.decode(errors="replace").strip()

    async def write(self, path: str, content: bytes) -> None:
        """Write a file that all may read, in a folder that is made if need be."""
        ended = await self._transport.run(
            ("sh", "-c", _WRITE, "write", path), content, seconds=_SECONDS
        )
        ended.check()

    async def existing(self, paths: Sequence[str]) -> set[str]:
        """Those of some paths that are files."""
        return set((await self.output("sh", "-c", _EXISTING, "existing", *paths)).splitlines())

    async def is_folder(self, path: str) -> bool:
        """Whether there is a folder of this path."""
        return bool(await self.output("sh", "-c", _IS_FOLDER, "folder", path))

    async def remove(self, folder: str) -> None:
        """Remove a folder, if it is there, and its parent, if nothing else is in that."""
        await self.output("sh", "-c", _REMOVE, "remove", folder)


class LocalSite(Site):
    """This machine, as the user of this process or, by sudo, as another one."""

    async def shell(self, commands: Sequence[str]) -> list[str]:
        """See `Site.shell`."""
        hidden = dict.fromkeys(variables_of_ours(), "")
        operation = ShellOperation(
            commands=self._commands(commands), log_prefix=None, env=hidden, working_dir=Path("/")
        )
        async with operation:
            process = await operation.atrigger()
            try:
                await process.await_for_completion()
            except RuntimeError as error:
                raise _failed(await process.afetch_result()) from error
            lines: list[str] = await process.afetch_result()
            return lines

    def _commands(self, commands: Sequence[str]) -> list[str]:
        return _script(commands)


class AccountSite(LocalSite):
    """This machine, as another OS user, whose commands end with who listens to them."""

    def __init__(self, username: str, python: str, tasks_folder: Path, uv: str | None) -> None:
        transport = LocalTransport(username, python)
        super().__init__(
            transport,
            python,
            uv=uv,
            pip_cache_dir=str(tasks_folder / ".cache" / "pip"),
            pixi_cache_dir=str(tasks_folder / ".cache" / "pixi"),
        )
        self._prefix = transport.prefix()

    def _commands(self, commands: Sequence[str]) -> list[str]:
        script = "\n".join([*_network_settings(), *_script(commands)])
        listening = (self.python, "-I", "-S", "-c", program(while_connected), script)
        return [f"exec {shlex.join([*self._prefix, *listening])}"]


class RemoteSite(Site):
    """A cluster that is reached by SSH, as the user of a profile."""

    def __init__(
        self, transport: SSHTransport, python: str, pixi_cache_dir: str | None = None
    ) -> None:
        super().__init__(transport, python, pixi_cache_dir=pixi_cache_dir)
        self._ssh = transport

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


def own_site() -> Site:
    """This machine, as the user of this process."""
    return LocalSite(LocalTransport(), sys.executable, is_own=True, uv=find_uv())


async def account_site(username: str, python: str, tasks_folder: Path) -> Site:
    """This machine, as another OS user, to whom a folder for environments is given.

    Raises:
        ProfileError: there is no such OS user, or the folder cannot be given to it.
    """
    account = Account.named(username)
    await asyncio.to_thread(account.give, tasks_folder)
    uv = find_uv()
    site = AccountSite(username, python, tasks_folder, uv)
    if uv is not None and not await site.existing([uv]):
        site.uv = None
    return site


@asynccontextmanager
async def open_site(session: AsyncSession, group: TaskGroupV2) -> AsyncIterator[Site]:
    """Where the environment of a task group is, reached as its owner.

    That is the user whom the owner's profile names, if it names one, so that what is installed runs
    nothing as the user of this process.

    Raises:
        ProfileError: the owner has no way to there, or not any more.
    """
    resource = await session.get_one(Resource, group.resource_id)
    profile = await _profile_of_owner(session, group, resource)
    if profile is None or profile.username is None:
        yield own_site()
        return
    if resource.type != "slurm_ssh":
        python = resource.jobs_slurm_python_worker or interpreter_of(resource, None)
        tasks_folder = Path(resource.tasks_local_dir, str(group.user_id))
        yield await account_site(profile.username, python, tasks_folder)
        return
    transport = ssh_transport(resource, profile)
    try:
        python = str(resource.jobs_slurm_python_worker)
        yield RemoteSite(transport, python, profile.pixi_cache_dir)
    finally:
        await transport.close()


async def _profile_of_owner(
    session: AsyncSession, group: TaskGroupV2, resource: Resource
) -> Profile | None:
    """The profile by which the owner of a group reaches its resource; None if none is needed."""
    owner = await session.get_one(UserOAuth, group.user_id)
    profile = await session.get(Profile, owner.profile_id) if owner.profile_id else None
    if profile is not None and profile.resource_id == resource.id:
        return profile
    named = select(Profile.id).where(
        Profile.resource_id == resource.id, col(Profile.username).is_not(None)
    )
    if resource.type == "local" and (await session.exec(named)).first() is None:
        return None
    raise ProfileError(
        f"{owner.email}, whose task group this is, has no profile for resource "
        f"{resource.name!r}: an administrator can give one."
    )


def _network_settings() -> list[str]:
    """Commands that tell another OS user how the package index is reached from here.

    What may hold a password is left out: who lists processes would see it.
    """
    return [
        f"export {name}={shlex.quote(value)}"
        for name, value in os.environ.items()
        if name.upper().startswith(_NETWORK) and "@" not in value
    ]


def _script(commands: Sequence[str]) -> list[str]:
    """Each command is told before it is run, as shells do it."""
    return ["set -e", "exec 2>&1", "set -x", *commands]


def _failed(output: Sequence[str]) -> CommandError:
    told = "\n".join(output[-_LOG_LINES_TOLD:])
    return CommandError(f"Its environment could not be made:\n{told}")
