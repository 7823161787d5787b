"""The environment of a task group on the machine where its tasks run: make, inspect, remove."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from flows.activities import pixi_commands
from flows.activities.commands import (
    cache_options,
    contents_command,
    freeze_command,
    frozen_file,
    frozen_packages_of,
    make_commands,
    making_lock,
    packages_of,
    program,
    venv_python,
)
from flows.activities.package_tasks import PackageError
from flows.activities.site import Site
from flows.programs import unpack
from fractal_models.settings import get_settings
from fractal_models.tables import Resource, TaskGroupV2


class Contents(BaseModel):
    """What `contents.py` says about an environment."""

    manifest: str | None
    text: str
    size_kb: int
    file_number: int


@dataclass(frozen=True)
class TaskEnvironment(abc.ABC):
    """The environment of a task group on a resource, and the site where it is.

    Every method raises TransportError if the site cannot be reached, CommandError if a command
    fails there, and PackageError if the resource or the group lacks something that is needed.
    """

    group: TaskGroupV2
    resource: Resource
    site: Site

    @property
    @abc.abstractmethod
    def python(self) -> str:
        """The environment's interpreter, which runs the tasks."""

    @abc.abstractmethod
    async def make(self, *, use_lock_file: bool) -> list[str]:
        """Make the environment anew. Returns the lines of all output.

        With `use_lock_file`, its versions come from the lock file of the project, if its kind has
        lock files; otherwise the versions are chosen now.
        """

    @abc.abstractmethod
    async def make_again(self) -> list[str]:
        """Make the environment with exactly its earlier versions. Returns the output's lines."""

    @abc.abstractmethod
    async def freeze(self) -> str:
        """The installed versions, from which the environment can be made again."""

    async def contents(self) -> Contents:
        """What the environment contains."""
        answer = await self.site.output(*contents_command(self.python, self.group.pkg_name))
        return Contents.model_validate_json(answer)

    async def remove(self) -> None:
        """Remove the environment. The archive from which it was made stays beside it."""
        await self.site.remove(str(self.group.venv_path))


class PipEnvironment(TaskEnvironment):
    """An environment that uv makes, or venv and pip."""

    @property
    def python(self) -> str:
        """See `TaskEnvironment`."""
        return venv_python(self.group)

    async def make(self, *, use_lock_file: bool) -> list[str]:
        """See `TaskEnvironment`. Packages have no lock file."""
        return await self._make(packages_of(self.group))

    async def make_again(self) -> list[str]:
        """See `TaskEnvironment`."""
        versions = f"{self.group.env_info}\n".encode()
        await self.site.write(frozen_file(self.group), versions)
        return await self._make(frozen_packages_of(self.group))

    async def freeze(self) -> str:
        """See `TaskEnvironment`. The versions are in the format that pip reads."""
        return await self.site.output(*freeze_command(self.group, self.site.uv))

    async def _make(self, packages: Sequence[str]) -> list[str]:
        cache = cache_options(self.resource, self.site.pip_cache_dir)
        commands = make_commands(self.group, self.resource, packages, self.site.uv, cache)
        return await self.site.shell(commands, lock=making_lock(self.group))


class PixiEnvironment(TaskEnvironment):
    """An environment that pixi makes, in the folder of the project in its archive."""

    @property
    def python(self) -> str:
        """See `TaskEnvironment`."""
        return pixi_commands.wrapper(self.group)

    async def make(self, *, use_lock_file: bool) -> list[str]:
        """See `TaskEnvironment`."""
        return await self._make(await self._unpacked(), frozen=use_lock_file)

    async def make_again(self) -> list[str]:
        """See `TaskEnvironment`."""
        files = await self._unpacked()
        versions = f"{self.group.env_info}\n".encode()
        lock_file = pixi_commands.lock_file(self.group)
        await self.site.write(lock_file, versions)
        return await self._make({*files, lock_file}, frozen=True)

    async def freeze(self) -> str:
        """See `TaskEnvironment`. The versions are the lock file."""
        return await self.site.output("cat", pixi_commands.lock_file(self.group))

    async def _unpacked(self) -> set[str]:
        """Unpack the archive anew. Returns those files for pixi that the archive contains."""
        max_bytes = get_settings().max_unpacked_mb << 20
        arguments = [str(self.group.archive_path), str(self.group.venv_path), str(max_bytes)]
        await self.site.output(self.site.python, "-I", "-c", program(unpack), *arguments)
        return await self.site.existing(
            [*pixi_commands.manifests(self.group), pixi_commands.lock_file(self.group)]
        )

    async def _make(self, files: set[str], *, frozen: bool) -> list[str]:
        manifest = next((m for m in pixi_commands.manifests(self.group) if m in files), None)
        if manifest is None:
            raise PackageError(
                f"The archive of {self.group.pkg_name} has neither pixi.toml nor pyproject.toml "
                "in its folder: it is not a project of pixi."
            )
        if frozen and pixi_commands.lock_file(self.group) not in files:
            raise PackageError(
                f"The archive of {self.group.pkg_name} has no pixi.lock in its folder: add it, or "
                "collect it with use_pixi_lockfile=false."
            )
        await self.site.write(self.python, pixi_commands.wrapper_text(self.group).encode())
        commands = pixi_commands.make_pixi_commands(
            self.group, self.resource, manifest, self.site.pixi_cache_dir, frozen=frozen
        )
        return await self.site.shell(commands, lock=making_lock(self.group))


def environment_of(group: TaskGroupV2, resource: Resource, site: Site) -> TaskEnvironment:
    """The environment of a task group, of the kind that fits the group's origin."""
    kind = PixiEnvironment if group.origin == "pixi" else PipEnvironment
    return kind(group, resource, site)
