"""Projects and datasets."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest


async def test_a_project_is_made_changed_and_deleted(owner: Any) -> None:
    made = await owner.ok("POST", "/api/v2/project/", json={"name": "life of a project"})
    url = f"/api/v2/project/{made['id']}/"

    changed = await owner.ok("PATCH", url, json={"name": "new name", "description": "text"})
    await owner.ok("POST", f"{url}star/")
    starred = await owner.ok("GET", url)
    await owner.ok("POST", f"{url}unstar/")

    assert (changed["name"], changed["description"]) == ("new name", "text")
    assert starred == {**changed, "is_starred": True}
    assert changed in await owner.ok("GET", "/api/v2/project/")
    assert (await owner.delete(url)).status_code == 204
    assert (await owner.get(url)).status_code == 404


async def test_a_project_needs_a_profile(new_person: Callable[..., Awaitable[Any]]) -> None:
    person = await new_person(profile_id=None)

    answer = await person.post("/api/v2/project/", json={"name": "nowhere"})

    assert answer.status_code == 403
    assert "profile" in answer.json()["detail"]


async def test_a_user_has_one_project_of_a_name(
    owner: Any, project: dict[str, Any], new_person: Callable[..., Awaitable[Any]]
) -> None:
    other = await new_person()

    assert (await owner.post("/api/v2/project/", json={"name": project["name"]})).status_code == 422
    await other.ok("POST", "/api/v2/project/", json={"name": project["name"]})


async def test_a_project_goes_with_what_is_in_it_but_its_jobs_stay_for_administrators(
    owner: Any,
    admin: Any,
    project: dict[str, Any],
    dataset: dict[str, Any],
    runnable: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
) -> None:
    job = (await submit(runnable, dataset)).json()
    url = f"/api/v2/project/{project['id']}/"

    refused = await owner.delete(url)
    await owner.ok("GET", f"{url}job/{job['id']}/stop/")
    deleted = await owner.delete(url)
    listed = {each["id"] for each in await owner.ok("GET", "/api/v2/job/")}
    [kept] = (await admin.ok("GET", f"/admin/v2/job/?id={job['id']}"))["items"]

    assert refused.status_code == 422
    assert f"Job {job['id']}" in refused.json()["detail"]
    assert deleted.status_code == 204
    assert job["id"] not in listed
    assert kept["project_id"] is None
    assert kept["project_dump"]["name"] == project["name"]


async def test_a_dataset_has_a_folder_of_its_own(owner: Any) -> None:
    project = await owner.ok("POST", "/api/v2/project/", json={"name": "Plate 7 - Area"})
    url = f"/api/v2/project/{project['id']}/dataset/"

    made = await owner.ok("POST", url, json={"name": "First try."})
    mine = owner.user.project_dirs[0]
    wanted = {"name": "b", "project_dir": f"{mine}/", "zarr_subfolder": " ./some//where/ "}
    chosen = await owner.ok("POST", url, json=wanted)

    folder = f"{mine}/fractal/{project['id']}_plate_7___area"
    assert made["zarr_dir"] == f"{folder}/{made['id']}_first_try_"
    assert made["project"] == project
    assert chosen["zarr_dir"] == f"{mine}/some/where"
    assert await owner.ok("GET", url) == [made, chosen]


async def test_a_dataset_can_be_in_an_object_store(new_person: Any) -> None:
    person = await new_person(project_dirs=["s3://bucket/key"])
    project = await person.ok("POST", "/api/v2/project/", json={"name": "remote"})
    url = f"/api/v2/project/{project['id']}/dataset/"

    wanted = {"name": "a", "project_dir": "s3://bucket/key", "zarr_subfolder": "a/b"}
    made = await person.ok("POST", url, json=wanted)
    by_default = await person.ok("POST", url, json={"name": "b"})
    folder = made["zarr_dir"]
    image = {"zarr_url": f"{folder}/plate.zarr"}
    await person.ok("POST", f"{url}{made['id']}/images/", json=image)
    copy = {"name": "c", "zarr_dir": folder, "images": [image]}
    imported = await person.ok("POST", f"{url}import/", json=copy)
    shown = await person.ok("GET", "/auth/current-user/allowed-viewer-paths/")

    assert folder == imported["zarr_dir"] == "s3://bucket/key/a/b"
    assert by_default["zarr_dir"].startswith("s3://bucket/key/fractal/")
    assert shown == ["s3://bucket/key", folder, by_default["zarr_dir"]]


async def test_a_dataset_is_in_a_folder_of_its_maker(owner: Any, project: dict[str, Any]) -> None:
    url = f"/api/v2/project/{project['id']}/dataset/"

    answer = await owner.post(url, json={"name": "a", "project_dir": "/etc"})

    assert answer.status_code == 403
    assert "project_dir" in answer.json()["detail"]
    assert await owner.ok("GET", url) == []


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"name": "a", "project_dir": "data"}, "project_dir"),
        ({"name": "a", "zarr_subfolder": "some/where"}, "needs project_dir"),
        ({"name": "a", "zarr_subfolder": "../other"}, "zarr_subfolder"),
        ({"name": "a", "zarr_subfolder": "/etc"}, "zarr_subfolder"),
        ({"name": "a", "zarr_subfolder": "a\tb"}, "zarr_subfolder"),
        ({"name": "a", "zarr_subfolder": "a<b"}, "zarr_subfolder"),
        ({"name": "a/b"}, "pattern"),
        ({"name": ""}, "at least 1"),
        ({"name": "  "}, "at least 1"),
        ({"name": "a", "zarr_dir": "/data"}, "Extra inputs"),
    ],
)
async def test_a_wrong_dataset_is_refused(
    request_: dict[str, Any], told: str, owner: Any, project: dict[str, Any]
) -> None:
    answer = await owner.post(f"/api/v2/project/{project['id']}/dataset/", json=request_)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])
    assert await owner.ok("GET", f"/api/v2/project/{project['id']}/dataset/") == []


async def test_an_exported_dataset_can_be_imported(owner: Any, project: dict[str, Any]) -> None:
    url = f"/api/v2/project/{project['id']}/dataset/"
    folder = f"{owner.user.project_dirs[0]}/mine"
    document = {
        "name": "imported",
        "zarr_dir": folder,
        "images": [
            {
                "zarr_url": f"{folder}/{index}",
                "origin": None,
                "attributes": {"well": f"A{index}", "z": 1.5, "n": index, "ok": True},
                "types": {"is_3D": True},
            }
            for index in range(3)
        ],
    }

    made = await owner.ok("POST", f"{url}import/", json=document)

    assert made["zarr_dir"] == folder
    assert await owner.ok("GET", f"{url}{made['id']}/export/") == document


@pytest.mark.parametrize(
    "filters",
    [
        {"filters": {"attributes": {"well": "A1"}, "types": {"is_3D": True}}},
        {"attribute_filters": {"well": ["A1"]}, "type_filters": {"is_3D": True}},
    ],
)
async def test_a_dataset_of_an_older_installation_can_be_imported(
    filters: dict[str, Any], owner: Any, project: dict[str, Any]
) -> None:
    url = f"/api/v2/project/{project['id']}/dataset/"
    folder = owner.user.project_dirs[0]
    document = {"name": "old", "zarr_dir": folder, "images": [{"zarr_url": f"{folder}/0"}]}

    made = await owner.ok("POST", f"{url}import/", json={**document, **filters})

    [image] = (await owner.ok("GET", f"{url}{made['id']}/export/"))["images"]
    assert image["zarr_url"] == f"{folder}/0"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"zarr_dir": "/etc"}, "none of your folders"),
        ({"zarr_dir": "https://host/a"}, "absolute path"),
        ({"images": [{"zarr_url": "/plate/a"}, {"zarr_url": "/plate/a/"}]}, "more than once"),
        ({"images": [{"zarr_url": "relative"}]}, "absolute path"),
        ({"images": [{"zarr_url": "/elsewhere/a"}]}, "does not lie in"),
        ({"images": [{"zarr_url": "/plates/a"}]}, "does not lie in"),
        ({"images": [{"zarr_url": "s3://plate/a"}]}, "does not lie in"),
        ({"images": [{"zarr_url": "/plate/a", "attributes": {"x": None}}]}, "null"),
        ({"images": [{"zarr_url": "/plate/a", "types": {"x": 2}}]}, "boolean"),
    ],
)
async def test_a_wrong_import_is_refused(
    changes: dict[str, Any], told: str, new_person: Any
) -> None:
    person = await new_person(project_dirs=["/plate"])
    project = await person.ok("POST", "/api/v2/project/", json={"name": "plate"})
    request = {"name": "a", "zarr_dir": "/plate", "images": [], **changes}

    answer = await person.post(f"/api/v2/project/{project['id']}/dataset/import/", json=request)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


async def test_a_dataset_is_renamed_starred_and_deleted(
    owner: Any, dataset: dict[str, Any]
) -> None:
    url = f"/api/v2/project/{dataset['project_id']}/dataset/{dataset['id']}/"

    await owner.ok("PATCH", url, json={"name": "renamed"})
    await owner.ok("POST", f"{url}star/")

    assert await owner.ok("GET", url) == {**dataset, "name": "renamed", "is_starred": True}
    await owner.ok("POST", f"{url}unstar/")
    assert not (await owner.ok("GET", url))["is_starred"]
    assert (await owner.delete(url)).status_code == 204
    assert (await owner.get(url)).status_code == 404


async def test_datasets_of_all_projects_are_listed_with_their_images_counted(
    new_person: Callable[..., Awaitable[Any]], invite: Callable[..., Awaitable[None]]
) -> None:
    person, other = await new_person(), await new_person()
    made = {}
    for who, name in ((person, "mine"), (other, "joined"), (other, "invited to")):
        project = await who.ok("POST", "/api/v2/project/", json={"name": name})
        folder = who.user.project_dirs[0]
        images = [{"zarr_url": f"{folder}/{index}"} for index in range(len(made))]
        document = {"name": f"Of_{name}", "zarr_dir": folder, "images": images}
        url = f"/api/v2/project/{project['id']}/dataset/"
        dataset = await who.ok("POST", f"{url}import/", json=document)
        count = {"owner_email": who.user.email, "image_count": len(made)}
        made[name] = {**dataset, **count}
    await invite(person, made["joined"]["project"], "r")
    await invite(person, made["invited to"]["project"], "r", is_verified=False)

    async def found(**query: Any) -> Any:
        page = await person.ok("GET", "/api/v2/dataset/", params=query)
        return page["items"], page["total_count"]

    assert await found() == ([made["joined"], made["mine"]], 2)
    assert await found(only_owned=True) == ([made["mine"]], 1)
    assert await found(project_name="JOIN") == ([made["joined"]], 1)
    assert await found(dataset_name="of_m") == ([made["mine"]], 1)
    assert await found(page=2, page_size=1) == ([made["mine"]], 2)
    await person.ok(
        "POST", f"/api/v2/project/{made['mine']['project_id']}/dataset/{made['mine']['id']}/star/"
    )
    [first, _], _ = await found()
    assert first["id"] == made["mine"]["id"]


async def test_what_has_a_star_is_listed_first(new_person: Callable[..., Awaitable[Any]]) -> None:
    person = await new_person()
    lists = {"/api/v2/project/": ["newest", "b", "a"]}
    for name in ("a", "b", "newest"):
        project = await person.ok("POST", "/api/v2/project/", json={"name": name})
    for kind in ("dataset", "workflow"):
        url = f"/api/v2/project/{project['id']}/{kind}/"
        for name in ("c", "a", "b"):
            await person.ok("POST", url, json={"name": name})
        lists[url] = ["a", "b", "c"]

    for url, names in lists.items():
        listed = await person.ok("GET", url)
        assert [each["name"] for each in listed] == names
        await person.ok("POST", f"{url}{listed[-1]['id']}/star/")
        listed = await person.ok("GET", url)
        assert [each["name"] for each in listed] == [names[-1], *names[:-1]]


async def test_what_the_database_cannot_hold_is_refused(
    owner: Any, project: dict[str, Any]
) -> None:
    url = f"/api/v2/project/{project['id']}/"

    nul = await owner.patch(url, json={"description": "nul \0 character"})
    huge = await owner.get(f"/api/v2/project/{10**12}/")

    assert (nul.status_code, huge.status_code) == (422, 422)
    assert "NUL character" in str(nul.json()["detail"])
