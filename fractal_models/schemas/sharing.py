"""Schemas of what users have to do with projects."""

from typing import Literal

from fractal_models.schemas.base import OpenInput, Output

Permissions = Literal["r", "rw", "rwx"]


class ProjectGuestCreate(OpenInput):
    """What a guest will be allowed: to read, to change too, and to run jobs too."""

    permissions: Permissions


class ProjectGuestUpdate(ProjectGuestCreate):
    """What a guest is allowed from now on."""


class ProjectGuestRead(Output):
    """A guest of a project; one who is not verified has yet to accept the invitation."""

    email: str
    is_verified: bool
    permissions: Permissions


class ProjectInvitationRead(Output):
    """An invitation that the user has yet to accept."""

    project_id: int
    project_name: str
    owner_email: str
    guest_permissions: Permissions


class ProjectAccessRead(Output):
    """What the user may do in a project, and whose it is."""

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
