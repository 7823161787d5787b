"""Creates the contents of a new installation: default group, admin, resource and profile."""

import platform
import sys
from pathlib import Path
from typing import Any

from fastapi_users.password import PasswordHelper
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.prepared import Initialised
from flows.engine.pool_names import new_pool_name
from fractal_models.database import saved_id
from fractal_models.errors import FractalError
from fractal_models.schemas.resource import ValidProfile, ValidResource
from fractal_models.tables import LinkUserGroup, Profile, Resource, UserGroup, UserOAuth

DEFAULT_RESOURCE = "local"


class InitialisationError(FractalError):
    """The given admin, resource or profile cannot be used; the message says why."""


def default_resource(data_dir: Path) -> dict[str, Any]:
    """A local resource with its folders below `data_dir`, and this Python for tasks."""
    version = ".".join(platform.python_version_tuple()[:2])
    base = Path(sys.base_prefix, "bin", f"python{version}")
    return {
        "type": "local",
        "name": DEFAULT_RESOURCE,
        "jobs_local_dir": str(data_dir / "jobs"),
        "jobs_runner_config": {},
        "tasks_local_dir": str(data_dir / "tasks"),
        "tasks_python_config": {
            "default_version": version,
            "versions": {version: str(base) if base.exists() else sys.executable},
            "pip_cache_dir": str(data_dir / "package-cache"),
        },
        "tasks_pixi_config": {},
    }


def default_profile(resource_type: str, username: str | None = None) -> dict[str, Any]:
    """The profile for the default resource; `username` is the OS user as whom jobs run."""
    return {"name": DEFAULT_RESOURCE, "resource_type": resource_type, "username": username}


async def initialise(
    session: AsyncSession,
    *,
    group_name: str,
    admin_email: str,
    admin_password: str | None,
    made_up_password: str,
    project_dir: Path,
    resource: dict[str, Any] | None,
    profile: dict[str, Any] | None,
) -> Initialised:
    """Create what does not exist yet, without a commit. What exists stays as it is.

    The admin's password is `admin_password`, or else `made_up_password`. Without a resource, a new
    admin gets no profile.

    Raises:
        InitialisationError: the resource or the profile is invalid.
    """
    kept: list[str] = []
    group = await _group(session, group_name)
    row: Resource | None = None
    used: Profile | None = None
    if resource is not None:
        row = await _resource(session, resource, kept)
        used = await _profile(session, row, profile or default_profile(row.type), kept)
    found = await session.exec(select(UserOAuth).where(UserOAuth.email == admin_email))
    admin = found.unique().first()
    is_new = admin is None
    if admin is None:
        admin = UserOAuth(
            email=admin_email,
            hashed_password=PasswordHelper().hash(admin_password or made_up_password),
            is_superuser=True,
            is_verified=True,
            profile_id=used.id if used else None,
            project_dirs=[str(project_dir)],
        )
        session.add(admin)
        await session.flush()
        session.add(LinkUserGroup(group_id=saved_id(group), user_id=saved_id(admin)))
    elif admin_password is not None and not _is_password_of(admin, admin_password):
        kept.append(f"the password of {admin_email}")
    await session.flush()
    return Initialised(
        admin_email,
        admin_is_new=is_new,
        has_first_password=_is_password_of(admin, made_up_password),
        work_pool=row.work_pool if row else None,
        kept=kept,
        jobs_user=used.username if used else None,
    )


def _is_password_of(user: UserOAuth, password: str) -> bool:
    return PasswordHelper().verify_and_update(password, user.hashed_password)[0]


async def _group(session: AsyncSession, name: str) -> UserGroup:
    group = (await session.exec(select(UserGroup).where(UserGroup.name == name))).first()
    if group is None:
        group = UserGroup(name=name)
        session.add(group)
        await session.flush()
    return group


async def _resource(session: AsyncSession, given: dict[str, Any], kept: list[str]) -> Resource:
    valid: Any = _validated(ValidResource, given, "resource")
    found = await _resource_named(session, valid.name)
    if found is None:
        pool = await new_pool_name(session, valid.name)
        found = Resource(**valid.model_dump(), work_pool=pool)
        session.add(found)
        await session.flush()
    elif _differs(found, valid):
        kept.append(f"the resource {found.name!r}")
    return found


async def _resource_named(session: AsyncSession, name: str) -> Resource | None:
    """The resource that has this name, or had it when it was created."""
    named = or_(Resource.name == name, Resource.work_pool == name)
    by_name_first = col(Resource.name) == name
    found = await session.exec(select(Resource).where(named).order_by(by_name_first.desc()))
    return found.first()


async def _profile(
    session: AsyncSession, resource: Resource, given: dict[str, Any], kept: list[str]
) -> Profile:
    valid: Any = _validated(ValidProfile, given, "profile")
    if valid.resource_type != resource.type:
        raise InitialisationError(
            f"The profile is for resources of type {valid.resource_type!r}, but the resource "
            f"{resource.name!r} is {resource.type!r}."
        )
    found = (await session.exec(select(Profile).where(Profile.name == valid.name))).first()
    if found is None:
        found = Profile(resource_id=saved_id(resource), **valid.model_dump())
        session.add(found)
        await session.flush()
    elif found.resource_id != resource.id or _differs(found, valid):
        kept.append(f"the profile {found.name!r}")
    return found


def _differs(row: Resource | Profile, valid: BaseModel) -> bool:
    return any(getattr(row, name) != value for name, value in valid.model_dump().items())


def _validated(schema: Any, given: dict[str, Any], what: str) -> Any:
    try:
        # Authors of a file want to know about misspelt keys; the REST API ignores unknown ones.
        return TypeAdapter(schema).validate_python(given, extra="forbid")
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise InitialisationError(f"The {what} is invalid: {problems}") from None
