"""Schemas of projects."""

from fractal_models.schemas.base import Input, Name, NonEmpty, Output, Timestamp


class ProjectCreate(Input):
    """A new project."""

    name: Name
    description: NonEmpty | None = None


class ProjectUpdate(Input):
    """The fields of a project that can be changed."""

    name: Name = ""
    description: NonEmpty | None = None


class ProjectRead(Output):
    """A project."""

    id: int
    name: str
    description: str | None
    timestamp_created: Timestamp
    is_starred: bool


class ProjectReadSuperuser(ProjectRead):
    """A project and its owner, for administrators."""

    user_email: str


class ProjectDump(Output):
    """A project at the time when a job was submitted."""

    id: int
    name: str
    timestamp_created: str
