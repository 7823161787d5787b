"""Schemas of users and user groups."""

from typing import Annotated

from pydantic import EmailStr, Field, StringConstraints

from fractal_models.schemas.base import (
    Input,
    NonEmpty,
    OpenInput,
    Output,
    Timestamp,
    UniqueIds,
    UniqueProjectDirs,
    UniqueSlurmAccounts,
)

# Taken as it was typed, including spaces.
Password = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class OAuthAccountRead(Output):
    """An account at an OAuth provider."""

    id: int
    account_email: str
    oauth_name: str


class UserRead(Output):
    """A user. `group_ids_names` is set only on request, as `[[id, name], ...]`."""

    id: int
    email: EmailStr
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False
    is_guest: bool
    oauth_accounts: list[OAuthAccountRead]
    profile_id: int | None = None
    project_dirs: list[str]
    slurm_accounts: list[str]
    group_ids_names: list[tuple[int, str]] | None = None


class UserCreate(OpenInput):
    """A new user: always active, no superuser and not verified, whatever the request says."""

    email: EmailStr
    password: Password
    is_active: bool | None = True
    is_superuser: bool | None = False
    is_verified: bool | None = False
    is_guest: bool = False
    profile_id: int | None = None
    project_dirs: Annotated[UniqueProjectDirs, Field(min_length=1)]
    slurm_accounts: UniqueSlurmAccounts = []


class UserUpdate(Input):
    """The fields of a user that an administrator may change."""

    email: EmailStr = ""
    password: Password = ""
    is_active: bool = False
    is_superuser: bool = False
    is_verified: bool = False
    is_guest: bool = False
    profile_id: int | None = None
    project_dirs: Annotated[UniqueProjectDirs, Field(min_length=1)] = []
    slurm_accounts: UniqueSlurmAccounts = []


class UserUpdateStrict(Input):
    """The fields that users may change of themselves."""

    slurm_accounts: UniqueSlurmAccounts = []


class UserUpdateGroups(Input):
    """The groups to which a user shall belong."""

    group_ids: Annotated[UniqueIds, Field(min_length=1)]


class UserProfileInfo(Output):
    """The profile and resource with which a user runs jobs."""

    has_profile: bool
    resource_name: str | None = None
    profile_name: str | None = None
    username: str | None = None


class UserGroupCreate(Input):
    """A new user group."""

    name: NonEmpty


class UserGroupRead(Output):
    """A user group. `user_ids` is set only on request."""

    id: int
    name: str
    timestamp_created: Timestamp
    user_ids: list[int] | None = None


class BearerResponse(Output):
    """A login token, for the header `Authorization: Bearer <access_token>`."""

    access_token: str
    token_type: str


class OAuthLoginUrl(Output):
    """The URL at which a user logs in with an OAuth provider."""

    authorization_url: str
