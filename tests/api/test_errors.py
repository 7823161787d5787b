"""Answers when something is wrong around or in a request."""

from typing import Any

import httpx

from api.app import create_app
from api.auth import login_tokens
from fractal_models.settings import Settings


async def test_without_the_database_the_answer_says_so(settings: Settings, owner: Any) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/nothing"})
    token = await login_tokens(away).write_token(owner.user)
    app = create_app(away)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://fractal"
        ) as client,
    ):
        answer = await client.get(
            "/auth/current-user/", headers={"Authorization": f"Bearer {token}"}
        )
        alive = await client.get("/api/alive/")

    assert answer.status_code == 503
    assert "database" in answer.json()["detail"]
    assert alive.status_code == 200


async def test_an_invalid_request_is_told_in_the_form_that_clients_read(owner: Any) -> None:
    answer = await owner.post("/api/v2/project/", json={"name": "a/b"})

    [problem] = answer.json()["detail"]
    assert answer.status_code == 422
    assert set(problem) == {"type", "loc", "msg"}
    assert problem["loc"] == ["body", "name"]


async def test_of_many_problems_the_first_are_told_and_how_many_more_there_are(owner: Any) -> None:
    body = {"name": "a project", **dict.fromkeys(map(str, range(1_234)), 1)}
    answer = await owner.post("/api/v2/project/", json=body)

    problems = answer.json()["detail"]
    assert answer.status_code == 422
    assert len(problems) == 101
    assert problems[-1] == {"type": "more", "loc": [], "msg": "1,134 more problems."}


async def test_where_one_of_a_few_texts_is_asked_for_the_answer_shows_what_was_sent(
    owner: Any, admin: Any, project: dict[str, Any]
) -> None:
    url = f"/api/v2/project/{project['id']}/guest/?email={admin.user.email}"
    by_json = await owner.post(url, json={"permissions": "all"})
    form = {"package": "x", "python_version": "2.7"}
    by_form = await owner.post("/api/v2/task/collect/pip/", data=form)

    assert [answer.status_code for answer in (by_json, by_form)] == [422, 422]
    assert by_json.json()["detail"][0]["input"] == "all"
    assert by_form.json()["detail"][0]["input"] == "2.7"


async def test_what_is_not_in_a_project_is_told_as_clients_look_for_it(
    owner: Any, project: dict[str, Any]
) -> None:
    base = f"/api/v2/project/{project['id']}"
    paths = {
        "/api/v2/project/999/": "Project",
        f"{base}/dataset/999/": "Dataset",
        f"{base}/workflow/999/": "Workflow",
        f"{base}/job/999/": "Job",
    }

    for path, what in paths.items():
        answer = await owner.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, f"{what} not found")
    other = await owner.get("/api/v2/task/999/")
    assert other.json()["detail"] == "Task 999 not found."


async def test_a_refused_request_does_not_repeat_the_password(admin: Any) -> None:
    request = {"email": "x@example.org", "password": "very secret", "project_dirs": []}

    answer = await admin.post("/auth/register/", json=request)

    assert answer.status_code == 422
    assert "very secret" not in answer.text
