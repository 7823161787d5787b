"""Login, users and groups."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi_users.password import PasswordHelper
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import login_tokens
from fractal_models.settings import Settings
from fractal_models.tables import Profile, UserOAuth

PASSWORD = "a good password"


@pytest.fixture
async def registered(admin: Any) -> dict[str, Any]:
    """A user who was registered through the API."""
    email = f"registered{len(await admin.ok('GET', '/auth/users/'))}@example.org"
    request = {"email": email, "password": PASSWORD, "project_dirs": ["/data/registered"]}
    return await admin.ok("POST", "/auth/register/", json=request)


async def test_a_registered_user_logs_in_and_is_in_the_default_group(
    admin: Any, anonymous: Any, registered: dict[str, Any]
) -> None:
    form = {"username": registered["email"].upper(), "password": PASSWORD}
    answer = (await anonymous.post("/auth/token/login/", data=form)).json()
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    me = await anonymous.get("/auth/current-user/?group_ids_names=true", headers=headers)

    assert answer["token_type"] == "bearer"
    assert me.json()["email"] == registered["email"]
    assert [name for _, name in me.json()["group_ids_names"]] == ["All"]
    assert me.json()["project_dirs"] == ["/data/registered"]
    assert (await anonymous.post("/auth/token/logout/", headers=headers)).status_code == 204


async def test_a_wrong_password_is_refused(anonymous: Any, registered: dict[str, Any]) -> None:
    form = {"username": registered["email"], "password": "wrong"}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 400


async def test_an_inactive_user_can_neither_log_in_nor_use_a_token(
    anonymous: Any, new_person: Callable[..., Awaitable[Any]]
) -> None:
    hashed = PasswordHelper().hash(PASSWORD)
    person = await new_person(is_active=False, hashed_password=hashed)
    form = {"username": person.user.email, "password": PASSWORD}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 400
    assert (await person.get("/auth/current-user/")).status_code == 401


@pytest.mark.parametrize("changes", [{"jwt_lifetime_seconds": -5}, {"jwt_secret": "x" * 40}])
async def test_an_expired_or_forged_token_is_refused(
    changes: dict[str, Any], anonymous: Any, owner: Any, settings: Settings
) -> None:
    forged = Settings.model_construct(**{**settings.model_dump(), **changes})
    token = await login_tokens(forged).write_token(owner.user)

    answer = await anonymous.get(
        "/auth/current-user/", headers={"Authorization": f"Bearer {token}"}
    )

    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"password": "abc"}, 400, "4 characters"),
        ({"email": "not an email"}, 422, "email"),
        ({"project_dirs": []}, 422, "at least 1"),
        ({"project_dirs": ["data"]}, 422, "absolute"),
        ({"project_dirs": ["/data/../etc"]}, 422, ".."),
        ({"project_dirs": ["/data/a", "/data/a/"]}, 422, "twice"),
        ({"project_dirs": ["/data/$HOME"]}, 422, "shell"),
        ({"project_dirs": ["s3://a bucket/key"]}, 422, "no name of a bucket"),
        ({"profile_id": 999}, 404, "Profile 999"),
    ],
)
async def test_a_wrong_registration_is_refused(
    changes: dict[str, Any], status: int, told: str, admin: Any
) -> None:
    request = {"email": "new@example.org", "password": PASSWORD, "project_dirs": ["/data/x"]}

    answer = await admin.post("/auth/register/", json={**request, **changes})

    assert answer.status_code == status
    assert told in str(answer.json()["detail"])


async def test_a_registration_says_nothing_of_rights(admin: Any) -> None:
    request = {"email": "bold@example.org", "password": PASSWORD, "project_dirs": ["/data/x"]}
    rights = {"is_active": False, "is_superuser": True, "is_verified": True}

    made = await admin.ok("POST", "/auth/register/", json={**request, **rights, "unknown": 1})

    assert {field: made[field] for field in rights} == {
        "is_active": True,
        "is_superuser": False,
        "is_verified": False,
    }


async def test_an_email_is_registered_once(admin: Any, registered: dict[str, Any]) -> None:
    request = {**registered, "password": PASSWORD, "email": registered["email"].capitalize()}

    answer = await admin.post("/auth/register/", json=request)

    assert answer.status_code == 400
    assert "already" in answer.json()["detail"]


async def test_registration_is_for_superusers(owner: Any) -> None:
    request = {"email": "new@example.org", "password": PASSWORD, "project_dirs": ["/data/x"]}

    assert (await owner.post("/auth/register/", json=request)).status_code == 403


async def test_an_administrator_edits_a_user(
    admin: Any, anonymous: Any, registered: dict[str, Any], profile: Profile
) -> None:
    changes = {
        "password": "another one",
        "is_verified": True,
        "profile_id": profile.id,
        "slurm_accounts": ["lab"],
        "email": "renamed@example.org",
    }

    url = f"/auth/users/{registered['id']}/"
    edited = await admin.ok("PATCH", url, json=changes)
    form = {"username": "renamed@example.org", "password": "another one"}

    assert {key: edited.get(key) for key in changes if key != "password"} == {
        key: value for key, value in changes.items() if key != "password"
    }
    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 200
    assert edited["group_ids_names"] == (await admin.ok("GET", url))["group_ids_names"]
    listed = await admin.ok("GET", f"/auth/users/?profile_id={profile.id}")
    assert {**edited, "group_ids_names": None} in listed


async def test_a_new_email_is_to_be_verified(admin: Any, registered: dict[str, Any]) -> None:
    url = f"/auth/users/{registered['id']}/"
    await admin.ok("PATCH", url, json={"is_verified": True})

    edited = await admin.ok("PATCH", url, json={"email": "to-be-verified@example.org"})

    assert not edited["is_verified"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"password": "abc"}, 400),
        ({"password": "a\0bcdef"}, 400),
        ({"password": "a" * 1001}, 422),
        ({"is_guest": True, "is_superuser": True}, 422),
        ({"profile_id": 999}, 404),
        ({"email": None}, 422),
        ({"email": "x" * 10_000 + "@example.org"}, 422),
        ({"project_dirs": []}, 422),
        ({"slurm_accounts": ["a b"]}, 422),
    ],
)
async def test_a_wrong_edit_of_a_user_is_refused(
    changes: dict[str, Any], status: int, admin: Any, registered: dict[str, Any]
) -> None:
    answer = await admin.patch(f"/auth/users/{registered['id']}/", json=changes)

    assert answer.status_code == status


async def test_only_the_case_of_an_email_changes_too(
    admin: Any, registered: dict[str, Any]
) -> None:
    url = f"/auth/users/{registered['id']}/"
    capital = registered["email"].capitalize()

    assert (await admin.ok("PATCH", url, json={"email": capital}))["email"] == capital


async def test_an_email_of_somebody_else_is_refused(
    admin: Any, owner: Any, registered: dict[str, Any]
) -> None:
    url = f"/auth/users/{registered['id']}/"

    answer = await admin.patch(url, json={"email": owner.user.email.upper()})

    assert answer.status_code == 400
    assert "already" in answer.json()["detail"]


async def test_jobs_follow_the_email_of_their_user(
    admin: Any,
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
) -> None:
    job = (await submit(runnable, dataset)).json()
    url = f"/auth/users/{owner.user.id}/"

    await admin.ok("PATCH", url, json={"email": "owns@example.org", "is_verified": True})
    [renamed] = await owner.ok("GET", f"/api/v2/project/{dataset['project_id']}/job/")
    await admin.ok("PATCH", url, json={"email": owner.user.email, "is_verified": True})
    [again] = await owner.ok("GET", f"/api/v2/project/{dataset['project_id']}/job/")

    assert (job["user_email"], again["user_email"]) == (owner.user.email, owner.user.email)
    assert renamed["user_email"] == "owns@example.org"


async def test_project_folders_with_datasets_in_them_stay(
    admin: Any, owner: Any, dataset: dict[str, Any]
) -> None:
    url = f"/auth/users/{owner.user.id}/"
    [folder] = owner.user.project_dirs

    lost = await admin.patch(url, json={"project_dirs": ["/elsewhere", f"{folder}-2"]})
    await admin.ok("PATCH", url, json={"project_dirs": ["/elsewhere", folder]})
    await admin.ok("PATCH", url, json={"project_dirs": [folder]})

    assert lost.status_code == 422
    assert f"e.g. {folder}/" in lost.json()["detail"]
    assert dataset["zarr_dir"].startswith(folder)


async def test_a_password_is_taken_with_its_spaces(
    admin: Any, anonymous: Any, registered: dict[str, Any]
) -> None:
    spaced = "  with spaces "
    await admin.ok("PATCH", f"/auth/users/{registered['id']}/", json={"password": spaced})
    form = {"username": registered["email"], "password": spaced}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 200
    form["password"] = spaced.strip()
    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 400


async def test_a_password_of_bcrypt_is_accepted_and_kept(
    anonymous: Any,
    new_person: Callable[..., Awaitable[Any]],
    session: AsyncSession,
) -> None:
    """`fractal-server` writes such hashes, and knows no others."""
    hashed = BcryptHasher().hash(PASSWORD)
    person = await new_person(hashed_password=hashed)
    form = {"username": person.user.email, "password": PASSWORD}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 200
    user = await session.get_one(UserOAuth, person.user.id)
    assert user.hashed_password == hashed


async def test_a_password_that_bcrypt_cannot_take_is_wrong(
    anonymous: Any, new_person: Callable[..., Awaitable[Any]]
) -> None:
    person = await new_person(hashed_password=BcryptHasher().hash(PASSWORD))
    form = {"username": person.user.email, "password": 73 * "x"}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 400


async def test_a_user_without_a_password_is_refused(anonymous: Any, owner: Any) -> None:
    form = {"username": owner.user.email, "password": owner.user.hashed_password}

    assert (await anonymous.post("/auth/token/login/", data=form)).status_code == 400


@pytest.mark.parametrize("of_whom", ["someone", "nobody", "a new one", "a changed one"])
async def test_others_are_served_while_a_password_is_hashed(
    of_whom: str,
    admin: Any,
    anonymous: Any,
    registered: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(work: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any) -> Any:
            begun.set()
            assert may_end.wait(20), "Nobody was served meanwhile."
            return work(*arguments)

        return wait

    for name in ("hash", "verify_and_update"):
        monkeypatch.setattr(PasswordHelper, name, slow(getattr(PasswordHelper, name)))
    login = "/auth/token/login/"
    new = {"email": "new-one@example.org", "password": PASSWORD, "project_dirs": ["/data"]}
    request = {
        "someone": anonymous.post(
            login, data={"username": registered["email"], "password": PASSWORD}
        ),
        "nobody": anonymous.post(login, data={"username": "nobody", "password": PASSWORD}),
        "a new one": admin.post("/auth/register/", json=new),
        "a changed one": admin.patch(
            f"/auth/users/{registered['id']}/", json={"password": PASSWORD}
        ),
    }
    hashing = asyncio.create_task(request.pop(of_whom))
    for unused in request.values():
        unused.close()
    while not begun.is_set():
        await asyncio.sleep(0.01)

    assert (await admin.get("/auth/current-user/")).status_code == 200
    may_end.set()
    assert (await hashing).status_code in (200, 201, 400)


async def test_guests_may_not_change_themselves(
    new_person: Callable[..., Awaitable[Any]],
) -> None:
    guest = await new_person(is_guest=True)

    answer = await guest.patch("/auth/current-user/", json={"slurm_accounts": ["a"]})

    assert answer.status_code == 403
    assert "guest" in answer.json()["detail"]


async def test_users_change_their_slurm_accounts_and_nothing_else(owner: Any) -> None:
    edited = await owner.ok("PATCH", "/auth/current-user/", json={"slurm_accounts": ["a", "b"]})
    refused = await owner.patch("/auth/current-user/", json={"is_superuser": True})

    assert edited["slurm_accounts"] == ["a", "b"]
    assert refused.status_code == 422


async def test_profile_info_names_profile_and_resource(
    owner: Any, new_person: Callable[..., Awaitable[Any]]
) -> None:
    nobody = await new_person(profile_id=None)

    assert await owner.ok("GET", "/auth/current-user/profile-info/") == {
        "has_profile": True,
        "resource_name": "here",
        "profile_name": "here for all",
        "username": None,
    }
    info = await nobody.ok("GET", "/auth/current-user/profile-info/")
    assert not info["has_profile"]


async def test_viewers_may_show_own_folders_and_shared_datasets(
    owner: Any,
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
    project: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    guest = await new_person()
    await invite(guest, project, "r")
    url = "/auth/current-user/allowed-viewer-paths/"

    assert await guest.ok("GET", url) == [*guest.user.project_dirs, dataset["zarr_dir"]]
    assert await guest.ok("GET", f"{url}?include_shared_projects=false") == guest.user.project_dirs
    assert dataset["zarr_dir"] in await owner.ok("GET", url)


async def test_groups_are_made_filled_emptied_and_deleted(admin: Any, owner: Any) -> None:
    group = await admin.ok("POST", "/auth/group/", json={"name": "lab"})
    url = f"/auth/group/{group['id']}/"
    user_id = owner.user.id

    filled = await admin.ok("POST", f"{url}add-user/{user_id}/")
    again = await admin.post(f"{url}add-user/{user_id}/")
    listed = await admin.ok("GET", "/auth/group/?user_ids=true")
    emptied = await admin.ok("POST", f"{url}remove-user/{user_id}/")
    absent = await admin.post(f"{url}remove-user/{user_id}/")
    deleted = await admin.delete(url)

    assert filled["user_ids"] == [user_id]
    assert again.status_code == 422
    assert filled in listed
    assert emptied["user_ids"] == []
    assert absent.status_code == 422
    assert deleted.status_code == 204
    assert (await admin.get(url)).status_code == 404


async def test_a_group_name_is_taken_once(admin: Any) -> None:
    await admin.ok("POST", "/auth/group/", json={"name": "twice"})

    answer = await admin.post("/auth/group/", json={"name": "twice"})

    assert answer.status_code == 422
    assert "'twice'" in answer.json()["detail"]


async def test_everyone_stays_in_the_default_group(admin: Any, owner: Any) -> None:
    groups = {group["name"]: group["id"] for group in await admin.ok("GET", "/auth/group/")}
    extra = await admin.ok("POST", "/auth/group/", json={"name": "extra"})
    default, user_id = groups["All"], owner.user.id
    url = f"/auth/users/{user_id}/set-groups/"

    both = await admin.ok("POST", url, json={"group_ids": [extra["id"], default]})
    one = await admin.ok("POST", url, json={"group_ids": [default]})

    assert both["group_ids_names"] == [[default, "All"], [extra["id"], "extra"]]
    assert one["group_ids_names"] == [[default, "All"]]
    assert (await admin.post(url, json={"group_ids": [extra["id"]]})).status_code == 422
    assert (await admin.post(url, json={"group_ids": [default, 999]})).status_code == 404
    assert (await admin.post(url, json={"group_ids": [default, default]})).status_code == 422
    assert (await admin.post(url, json={"group_ids": []})).status_code == 422
    assert (await admin.delete(f"/auth/group/{default}/")).status_code == 422
    removal = f"/auth/group/{default}/remove-user/{user_id}/"
    assert (await admin.post(removal)).status_code == 422
