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

# Taken as it was typed: with its spaces.
Password = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class OAuthAccountRead(Output):
    """An account at an OAuth provider."""

    id: int
    account_email: str
    oauth_name: str


class UserRead(Output):
    """A user; `group_ids_names` only where it was asked for, as `[[id, name], ...]`."""

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
    """A new user, who is active, no superuser and not verified, whatever is said of that."""

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
    """What an administrator may change of a user."""

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
    """What users may change of themselves."""

    slurm_accounts: UniqueSlurmAccounts = []


class UserUpdateGroups(Input):
    """The groups that a user is to be in."""

    group_ids: Annotated[UniqueIds, Field(min_length=1)]


class UserProfileInfo(Output):
    """Through which profile and resource a user runs jobs."""

    has_profile: bool
    resource_name: str | None = None
    profile_name: str | None = None
    username: str | None = None


class UserGroupCreate(Input):
    """A new user group."""

    name: NonEmpty


class UserGroupRead(Output):
    """A user group; `user_ids` only where it was asked for."""

    id: int
    name: str
    timestamp_created: Timestamp
    user_ids: list[int] | None = None


class BearerResponse(Output):
    """A login token, for the header `Authorization: Bearer <access_token>`."""

    access_token: str
    token_type: str


class OAuthLoginUrl(Output):
    """Where a user logs in at an OAuth provider."""

    authorization_url: str
