"""Administration of projects."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.tables import Profile, Resource

NewPerson = Callable[..., Awaitable[Any]]


async def given(admin: Any, project: dict[str, Any], person: Any) -> Any:
    """The answer to giving a project to a person."""
    return await admin.patch(
        f"/admin/v2/project/{project['id']}/", params={"user_id": person.user.id}
    )


async def test_projects_are_found_by_owner_name_and_id(
    admin: Any, owner: Any, new_person: NewPerson, project: dict[str, Any]
) -> None:
    other = await new_person()
    theirs = await other.ok("POST", "/api/v2/project/", json={"name": "Drosophila_1"})
    expected = {**theirs, "user_email": other.user.email}

    for query in (
        {"user_email": other.user.email},
        {"project_id": theirs["id"]},
        {"name": "drosophila_"},
    ):
        page = await admin.ok("GET", "/admin/v2/project/", params=query)
        assert (page["items"], page["total_count"]) == ([expected], 1)
    first = await admin.ok("GET", "/admin/v2/project/", params={"page_size": 1})
    assert len(first["items"]) == 1
    assert first["total_count"] >= 2


async def test_a_project_given_to_a_guest_is_theirs_and_no_longer_the_owners(
    admin: Any,
    owner: Any,
    new_person: NewPerson,
    project: dict[str, Any],
    dataset: dict[str, Any],
    invite: Callable[..., Awaitable[None]],
) -> None:
    heir = await new_person(project_dirs=["/other", owner.user.project_dirs[0]])
    await invite(heir, project, "r")
    url = f"/api/v2/project/{project['id']}/"

    assert (await given(admin, project, heir)).status_code == 200

    access = await heir.ok("GET", f"{url}access/")
    assert access == {"is_owner": True, "permissions": "rwx", "owner_email": heir.user.email}
    assert await heir.ok("GET", "/api/v2/project/") == [project]
    assert (await owner.get(url)).status_code == 404
    again = await given(admin, project, heir)
    assert again.status_code == 422
    assert "already" in again.json()["detail"]


async def test_a_project_is_not_given_to_who_could_not_use_it(
    admin: Any,
    owner: Any,
    new_person: NewPerson,
    sessions: async_sessionmaker[AsyncSession],
    resource: Resource,
    project: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    elsewhere = Resource(
        **resource.model_dump(exclude={"id", "name", "work_pool"}), name="elsewhere"
    )
    async with sessions() as session:
        session.add(elsewhere)
        await session.flush()
        profile = Profile(resource_id=saved_id(elsewhere), resource_type="local", name="elsewhere")
        session.add(profile)
        await session.commit()
    folders = {"project_dirs": owner.user.project_dirs}
    namesake = await new_person(**folders)
    await namesake.ok("POST", "/api/v2/project/", json={"name": project["name"]})
    people = {
        "guest": await new_person(is_guest=True, **folders),
        "no profile": await new_person(profile_id=None, **folders),
        "profile on the resource": await new_person(profile_id=profile.id, **folders),
        f"project '{project['name']}' already": namesake,
        dataset["zarr_dir"]: await new_person(),
    }

    for told, person in people.items():
        answer = await given(admin, project, person)
        assert answer.status_code == 422
        assert told in answer.json()["detail"]
    assert (await owner.ok("GET", f"/api/v2/project/{project['id']}/access/"))["is_owner"]


async def test_a_project_or_user_that_is_not_there_is_told(
    admin: Any, owner: Any, project: dict[str, Any]
) -> None:
    query = {"user_id": 10**6}

    assert (
        await admin.patch(f"/admin/v2/project/{project['id']}/", params=query)
    ).status_code == 404
    assert (await given(admin, {"id": 10**6}, owner)).status_code == 404


async def test_links_are_found_by_user_project_and_kind(
    admin: Any,
    owner: Any,
    new_person: NewPerson,
    project: dict[str, Any],
    invite: Callable[..., Awaitable[None]],
) -> None:
    guest = await new_person()
    await invite(guest, project, "rw", is_verified=False)
    of_project = {"project_id": project["id"], "project_name": project["name"]}
    of_guest = {
        **of_project,
        "user_id": guest.user.id,
        "user_email": guest.user.email,
        "is_owner": False,
        "is_verified": False,
        "permissions": "rw",
    }
    of_owner = {
        **of_project,
        "user_id": owner.user.id,
        "user_email": owner.user.email,
        "is_owner": True,
        "is_verified": True,
        "permissions": "rwx",
    }

    async def found(**query: Any) -> Any:
        page = await admin.ok("GET", "/admin/v2/linkuserproject/", params=query)
        assert page["total_count"] == len(page["items"])
        return page["items"]

    both = sorted([of_guest, of_owner], key=lambda link: link["user_email"])
    assert await found(project_id=project["id"]) == both
    assert await found(project_name=project["name"].upper()) == both
    assert await found(user_id=guest.user.id) == [of_guest]
    assert await found(project_id=project["id"], is_owner=True) == [of_owner]
    assert await found(project_id=project["id"], is_verified=False) == [of_guest]


@pytest.mark.parametrize("path", ["project", "linkuserproject"])
async def test_a_page_without_a_size_is_the_only_one(admin: Any, path: str) -> None:
    assert (await admin.get(f"/admin/v2/{path}/?page=2")).status_code == 422
    assert (await admin.get(f"/admin/v2/{path}/?page_size=0")).status_code == 422
    assert (await admin.get(f"/admin/v2/{path}/?project_id={10**12}")).status_code == 422
