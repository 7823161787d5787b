"""The environment of a task group, where its tasks run: made, looked into, removed."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from flows.activities.commands import (
    contents_command,
    freeze_command,
    frozen_file,
    frozen_packages_of,
    make_commands,
    packages_of,
)
from flows.activities.site import Site
from fractal_models.tables import Resource, TaskGroupV2


class Contents(BaseModel):
    """What `contents.py` tells of an environment."""

    manifest: str | None
    text: str
    size_kb: int
    file_number: int


@dataclass(frozen=True)
class TaskEnvironment:
    """The environment of a group on a resource, and the site where it is made.

    Every method raises TransportError if the site cannot be reached, and CommandError if a command
    fails there.
    """

    group: TaskGroupV2
    resource: Resource
    site: Site

    async def make(self) -> list[str]:
        """Make it, with the group's package, as pip resolves it now; the lines of all output.

        Raises:
            PackageError: the resource does not have the group's Python version.
        """
        return await self._make(packages_of(self.group))

    async def make_again(self) -> list[str]:
        """Make it with exactly the versions that were in it, as `make`."""
        versions = f"{self.group.env_info}\n".encode()
        await self.site.write(frozen_file(self.group), versions)
        return await self._make(frozen_packages_of(self.group))

    async def freeze(self) -> str:
        """The installed versions, as pip reads them."""
        return await self.site.output(*freeze_command(self.group, self.site.uv))

    async def contents(self) -> Contents:
        """What is in it."""
        answer = await self.site.output(*contents_command(self.group))
        return Contents.model_validate_json(answer)

    async def remove(self) -> None:
        """Remove it. The wheel that it was made from stays beside it."""
        await self.site.remove(str(self.group.venv_path))

    async def _make(self, packages: Sequence[str]) -> list[str]:
        return await self.site.shell(
            make_commands(self.group, self.resource, packages, self.site.uv)
        )
