"""What a new installation begins with, and what an old one keeps."""

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.initialise import (
    InitialisationError,
    Initialised,
    default_profile,
    default_resource,
    initialise,
)
from fractal_models.tables import LinkUserGroup, Profile, Resource, UserGroup, UserOAuth

FOLDER = Path("/somewhere")


@pytest.fixture
async def session(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> AsyncSession:
    """A session that is rolled back at the end: its commits only write."""
    monkeypatch.setattr(session, "commit", session.flush)
    return session


async def begin(session: AsyncSession, **given: Any) -> Initialised:
    defaults: dict[str, Any] = {
        "group_name": "All",
        "admin_email": "admin@example.org",
        "admin_password": None,
        "made_up_password": "made up",
        "project_dir": FOLDER / "projects",
        "resource": default_resource(FOLDER),
        "profile": None,
    }
    return await initialise(session, **defaults | given)


async def all_of(session: AsyncSession, table: type) -> list[Any]:
    return list((await session.exec(select(table))).unique().all())


async def test_a_new_installation_has_an_admin_who_can_work(session: AsyncSession) -> None:
    made = await begin(session)
    (admin,) = await all_of(session, UserOAuth)
    (group,) = await all_of(session, UserGroup)
    (link,) = await all_of(session, LinkUserGroup)
    (resource,) = await all_of(session, Resource)
    (profile,) = await all_of(session, Profile)
    assert (admin.is_superuser, admin.is_verified, admin.is_active) == (True, True, True)
    assert admin.profile_id == profile.id
    assert profile.resource_id == resource.id
    assert admin.project_dirs == ["/somewhere/projects"]
    assert (link.user_id, link.group_id, group.name) == (admin.id, group.id, "All")
    assert (made.admin_is_new, made.has_first_password) == (True, True)
    assert "made up" not in admin.hashed_password
    assert made.work_pool == resource.work_pool


async def test_a_password_that_was_given_is_not_one_that_was_made_up(
    session: AsyncSession,
) -> None:
    assert not (await begin(session, admin_password="given")).has_first_password


async def test_a_resource_that_was_renamed_is_not_made_again(session: AsyncSession) -> None:
    await begin(session)
    (resource,) = await all_of(session, Resource)
    resource.name = "workstation"
    await session.flush()
    again = await begin(session)
    assert again.work_pool == "local"
    assert [each.name for each in await all_of(session, Resource)] == ["workstation"]


async def test_beginning_again_changes_nothing(session: AsyncSession) -> None:
    await begin(session)
    (before,) = [user.model_dump() for user in await all_of(session, UserOAuth)]
    second = await begin(session, admin_password="made up")
    assert (second.admin_is_new, second.kept) == (False, [])
    assert [user.model_dump() for user in await all_of(session, UserOAuth)] == [before]
    for table in (UserGroup, LinkUserGroup, Resource, Profile):
        assert len(await all_of(session, table)) == 1


async def test_what_was_there_with_other_values_is_kept_and_told(session: AsyncSession) -> None:
    await begin(session, admin_password="first")
    again = await begin(
        session, admin_password="second", resource=default_resource(Path("/elsewhere"))
    )
    assert again.kept == ["the resource 'local'", "the password of admin@example.org"]
    (resource,) = await all_of(session, Resource)
    assert resource.jobs_local_dir == "/somewhere/jobs"


async def test_the_profile_that_is_there_says_as_whom_jobs_run(session: AsyncSession) -> None:
    first = await begin(session, profile=default_profile("local", "jobs"))
    again = await begin(session, profile=default_profile("local", "others"))
    assert (first.jobs_user, again.jobs_user) == ("jobs", "jobs")
    assert again.kept == ["the profile 'local'"]


async def test_without_a_resource_there_is_an_admin_only(session: AsyncSession) -> None:
    await begin(session, resource=None)
    assert await all_of(session, Resource) == []
    assert [user.profile_id for user in await all_of(session, UserOAuth)] == [None]


@pytest.mark.parametrize(
    ("resource", "profile", "told"),
    [
        ({"type": "cloud"}, {}, "The resource is invalid.*cloud"),
        ({"type": "slurm_ssh"}, {}, "The resource is invalid.*host"),
        ({"jobs_local_dir": "relative"}, {}, "jobs_local_dir"),
        ({"jobs_runner_config": {"parallel_tasks_per_job": 0}}, {}, "parallel_tasks_per_job"),
        ({"colour": "blue"}, {}, "colour"),
        ({"name": ""}, {}, "name"),
        ({}, {"ssh_key_path": "/key"}, "The profile is invalid.*ssh_key_path"),
        ({}, {"resource_type": "slurm_sudo", "username": "me"}, "'slurm_sudo'.*is 'local'"),
    ],
)
async def test_an_invalid_resource_or_profile_is_refused(
    session: AsyncSession, resource: dict[str, Any], profile: dict[str, Any], told: str
) -> None:
    with pytest.raises(InitialisationError, match=told):
        await begin(
            session,
            resource=default_resource(FOLDER) | resource,
            profile=default_profile("local") | profile,
        )
    assert await all_of(session, UserOAuth) == []
