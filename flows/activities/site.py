"""The machines where task environments are made: this one, or a cluster that is reached by SSH."""

import abc
import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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

# For removing or reading the many files of an environment on a cluster's file system.
_SECONDS = 600.0
_LOG_LINES_TOLD = 20
_NETWORK = (
    *("UV_", "PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)

_IS_FOLDER = 'if [ -d "$1" ]; then echo yes; fi'
_EXISTING = 'for path; do if [ -f "$path" ]; then printf "%s\\n" "$path"; fi; done'
# Removes a folder, and its parent if nothing else is in it.
_REMOVE = 'rm -rf -- "$1" && { rmdir -- "$(dirname -- "$1")" 2> /dev/null || true; }'
# A file appears only when it is complete.
_WRITE = """
set -e
umask 022
mkdir -p -- "$(dirname -- "$1")"
cat > "$1.partial"
mv -- "$1.partial" "$1"
"""


class Site(abc.ABC):
    """A machine, used as the OS user who makes environments there.

    `python` is an interpreter there, version 3.8 or newer. `uv` is the path of uv, if uv is known
    to be there. `pip_cache_dir` and `pixi_cache_dir` are the folders of caches, if they are not
    those of the resource. `is_own` says that the OS user is that of this process.

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
    async def shell(self, commands: Sequence[str], *, lock: str | None = None) -> list[str]:
        """Run shell commands until one fails. Their output goes to Prefect's log, and is returned.

        With the path of a lock there, they first wait until nobody else runs some with that lock.

        If this is cancelled, the commands are ended. The error for a failed command has the end of
        the output.
        """

    def _listening(self, script: str, lock: str | None) -> list[str]:
        """The command that runs a script as `shell` does."""
        program_text = program(while_connected)
        return [self.python, "-I", "-S", "-c", program_text, script, *([lock] if lock else [])]

    async def output(self, *command: str, seconds: float = _SECONDS) -> str:
        """What a command prints. The command may take at most `seconds`."""
        answer = await run_command(self._transport, self.python, *command, seconds=seconds)
        return answer.decode(errors="replace").strip()

    async def write(self, path: str, content: bytes) -> None:
        """Write a file that everybody may read; its folder is made if it does not exist."""
        ended = await self._transport.run(
            ("sh", "-c", _WRITE, "write", path), content, seconds=_SECONDS
        )
        ended.check()

    async def existing(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that are files."""
        return set((await self.output("sh", "-c", _EXISTING, "existing", *paths)).splitlines())

    async def is_folder(self, path: str) -> bool:
        """Whether this path is a folder."""
        return bool(await self.output("sh", "-c", _IS_FOLDER, "folder", path))

    async def remove(self, folder: str) -> None:
        """Remove a folder, if it exists, and its parent, if nothing else is in it."""
        await self.output("sh", "-c", _REMOVE, "remove", folder)


class LocalSite(Site):
    """This machine, used as the user of this process or, by sudo, as another one.

    Commands end when this process stops listening, also if that is since it was killed.
    """

    def __init__(self, transport: LocalTransport, python: str, **options: Any) -> None:
        super().__init__(transport, python, **options)
        self._prefix = transport.prefix()

    async def shell(self, commands: Sequence[str], *, lock: str | None = None) -> list[str]:
        """See `Site.shell`."""
        hidden = dict.fromkeys(variables_of_ours(), "")
        # Shells and uv write lines in pieces, of which Prefect would make lines.
        in_lines = ["set -o pipefail", "{", *self._script(commands), "} | sed -u ''"]
        script = shlex.join(["exec", "bash", "-c", "\n".join(in_lines)])
        operation = ShellOperation(
            commands=[f"exec {shlex.join([*self._prefix, *self._listening(script, lock)])}"],
            log_prefix=None,
            env=hidden,
            working_dir=Path("/"),
        )
        async with operation:
            process = await operation.atrigger()
            try:
                await process.await_for_completion()
            except RuntimeError as error:
                raise _failed(await process.afetch_result()) from error
            lines: list[str] = await process.afetch_result()
            return lines

    def _script(self, commands: Sequence[str]) -> list[str]:
        return _script(commands)


class AccountSite(LocalSite):
    """This machine, used as another OS user."""

    def __init__(self, username: str, python: str, tasks_folder: Path, uv: str | None) -> None:
        super().__init__(
            LocalTransport(username, python),
            python,
            uv=uv,
            pip_cache_dir=str(tasks_folder / ".cache" / "pip"),
            pixi_cache_dir=str(tasks_folder / ".cache" / "pixi"),
        )

    def _script(self, commands: Sequence[str]) -> list[str]:
        return [*_network_settings(), *_script(commands)]


class RemoteSite(Site):
    """A cluster that is reached by SSH, as the user of a profile."""

    def __init__(
        self, transport: SSHTransport, python: str, pixi_cache_dir: str | None = None
    ) -> None:
        super().__init__(transport, python, pixi_cache_dir=pixi_cache_dir)
        self._ssh = transport

    async def shell(self, commands: Sequence[str], *, lock: str | None = None) -> list[str]:
        """See `Site.shell`. The commands are also ended when the connection is lost."""
        log, lines = get_run_logger(), list[str]()

        def hear(line: str) -> None:
            log.info("%s", line)
            lines.append(line)

        script = "\n".join(_script(commands))
        if await self._ssh.follow(self._listening(script, lock), hear) != 0:
            raise _failed(lines)
        return lines


def own_site() -> Site:
    """This machine, used as the user of this process."""
    return LocalSite(LocalTransport(), sys.executable, is_own=True, uv=find_uv())


async def account_site(username: str, python: str, tasks_folder: Path) -> Site:
    """This machine, used as another OS user, who gets a folder for environments.

    Raises:
        ProfileError: there is no such OS user, or the folder cannot be given to the user.
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
    """Open the site where the environment of a task group is, as the OS user of the group's owner.

    That is the user named in the owner's profile, if there is one. So nothing that is installed
    runs as the user of this process.

    Raises:
        ProfileError: the owner cannot use the resource, or cannot any more.
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
    """The profile with which a group's owner uses its resource; None if none is needed."""
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
    """Shell commands that set the variables for reaching the package index, for another OS user.

    Variables that may contain a password are left out: everybody who can list processes would see
    it.
    """
    return [
        f"export {name}={shlex.quote(value)}"
        for name, value in os.environ.items()
        if name.upper().startswith(_NETWORK) and "@" not in value
    ]


def _script(commands: Sequence[str]) -> list[str]:
    """The commands with shell options to print each one before it runs, and to stop at an error."""
    return ["set -e", "exec 2>&1", "set -x", *commands]


def _failed(output: Sequence[str]) -> CommandError:
    told = "\n".join(output[-_LOG_LINES_TOLD:])
    return CommandError(f"Its environment could not be made:\n{told}")
