"""Schemas of users' parts in projects."""

from typing import Literal

from fractal_models.schemas.base import OpenInput, Output

Permissions = Literal["r", "rw", "rwx"]


class ProjectGuestCreate(OpenInput):
    """What a guest will be allowed to do: `r` read, `w` also change, `x` also run jobs."""

    permissions: Permissions


class ProjectGuestUpdate(ProjectGuestCreate):
    """What a guest is allowed to do from now on."""


class ProjectGuestRead(Output):
    """A guest of a project. A guest who is not verified has not accepted the invitation yet."""

    email: str
    is_verified: bool
    permissions: Permissions


class ProjectInvitationRead(Output):
    """An invitation that the user has not accepted yet."""

    project_id: int
    project_name: str
    owner_email: str
    guest_permissions: Permissions


class ProjectAccessRead(Output):
    """What the user may do in a project, and who owns the project."""

    is_owner: bool
    permissions: Permissions
    owner_email: str


class LinkUserProjectRead(Output):
    """A user's part in a project, for administrators."""

    user_id: int
    user_email: str
    project_id: int
    project_name: str
    is_verified: bool
    is_owner: bool
    permissions: Permissions
