"""No plan depends on statistics: statements cost what they return, whatever PostgreSQL knows.

There are datasets of which it knows, and two large ones that came later, of which it may know
nothing: no autovacuum has run. What is asked of the one and of the other, four times as large, is
compared in the rows and pages that PostgreSQL had in hand.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.tables import JobV2
from tests.api.explained import TELLING, Costs, explained
from tests.api.history_rows import write_done_units
from tests.people import Person

OTHERS, IMAGES_OF_OTHERS = 20, 500
SMALL, LARGE = 1500, 6000
PAGE = 50

# What an answer may cost however long lists are: the user, the project, rights, and a page.
_ALWAYS = 3000
# What each image, unit or job may cost, of a dataset that must be read, or of those returned.
_EACH = 40


@dataclass(frozen=True)
class Question:
    """A request; `reads` says that it must read all images, units or jobs there are."""

    url: str
    body: Any = None
    reads: bool = False

    def __str__(self) -> str:
        return re.sub(r"[^\w=&?]+", "-", f"{self.url} {self.body or ''}")[-90:]


_D = "/api/v2/project/{project_id}/dataset/{dataset_id}"
_P = "/api/v2/project/{project_id}"
_OF_TASK = "?dataset_id={dataset_id}&workflowtask_id={workflow_task_id}"
_WELL = {"attribute_filters": {"well": ["A0", "B1"]}}
_LAST = {"type_filters": {"is_last": True}}
_TWO = {**_WELL, "type_filters": {"is_3D": True}}
_STATUS = {"attribute_filters": {STATUS_ATTRIBUTE: ["done"]}}
_UNSET = {"attribute_filters": {STATUS_ATTRIBUTE: ["unset"]}}
QUESTIONS = [
    *(
        Question(f"{url}page_size={PAGE}&page={page}", body, reads)
        for url in (f"{_D}/images/query/?", f"{_P}/status/images/{_OF_TASK}&include_warnings=true&")
        for page, body, reads in [
            (1, {}, False),
            ("{middle}", {}, False),
            ("{last}", {}, False),
            (1, _WELL, False),
            ("{last}", _WELL, False),
            (1, _LAST, False),
            (1, {"type_filters": {"is_3D": False}}, False),
            (1, _TWO, True),
        ]
    ),
    Question(f"{_D}/images/query/?page_size={PAGE}", {"zarr_url": "{url}"}),
    Question(f"{_P}/status/images/{_OF_TASK}&page_size={PAGE}", _STATUS, True),
    Question(f"{_P}/status/images/{_OF_TASK}&page_size={PAGE}", _UNSET, True),
    Question(f"{_D}/images/query/", {}, True),
    Question(f"{_P}/status/images/{_OF_TASK}", {}, True),
    Question(f"{_D}/images/verify-unique-types/?workflowtask_id={{workflow_task_id}}", {}, True),
    Question(
        f"{_D}/images/non-processed/?workflow_id={{workflow_id}}"
        "&workflowtask_id={second_workflow_task_id}",
        {},
        True,
    ),
    Question(
        f"{_P}/status/image-log/",
        {
            "workflowtask_id": "{workflow_task_id}",
            "dataset_id": "{dataset_id}",
            "zarr_url": "{url}",
        },
    ),
    Question(
        f"{_P}/status/run/{{history_run_id}}/units/{_OF_TASK}&page_size={PAGE}&page=1", reads=True
    ),
]


@dataclass
class Site:
    """Who asks, the ids of each of the two large datasets and of what belongs to it."""

    person: Person
    engine: AsyncEngine
    costs: Costs
    ids: dict[int, dict[str, Any]]

    async def cost(self, question: Question, size: int) -> int:
        """What an answer costs that is about the dataset of this size."""
        ids = self.ids[size] | {"middle": size // PAGE // 2, "last": size // PAGE}
        url = question.url.format(**ids)
        method = "GET" if question.body is None else "POST"
        self.costs.plans.clear()
        await self.person.ok(method, url, json=_filled(question.body, ids))
        assert self.costs.plans, "PostgreSQL tells nothing of its plans."
        return self.costs.total


def _filled(body: Any, ids: dict[str, Any]) -> Any:
    if isinstance(body, dict):
        return {key: _filled(value, ids) for key, value in body.items()}
    return ids[body[1:-1]] if isinstance(body, str) and body.startswith("{") else body


@pytest.fixture(scope="module")
async def site(app: FastAPI, new_person: Any, sessions: Any) -> AsyncIterator[Site]:
    owner = await new_person(is_superuser=True, project_dirs=["/data"])
    engine = app.state.services.sessions.kw["bind"]
    async with sessions() as session:
        await _let_be(session)
        for number in range(OTHERS):
            await _make(owner, session, number, IMAGES_OF_OTHERS)
        await _all_tables(session, "ANALYZE {}")
        ids = {size: await _make(owner, session, size, size) for size in (SMALL, LARGE)}
        for name, value in TELLING.items():
            await session.execute(
                text(f"ALTER DATABASE {engine.url.database} SET {name} = '{value}'")
            )
        await session.commit()
    with explained(engine) as costs:
        yield Site(owner, engine, costs, ids)


# What PostgreSQL has statistics of, in this order, and how it plans what it has prepared.
_KNOWN = ("other data", "all data", "nothing")
_PLANNED = ("force_custom_plan", "force_generic_plan")


@pytest.fixture(scope="module", params=product(_KNOWN, _PLANNED), ids=", ".join)
async def planned(request: pytest.FixtureRequest, site: Site, sessions: Any) -> None:
    """From now on, all plans are made like this."""
    known, mode = request.param
    async with sessions() as session:
        if known == "all data":
            await _all_tables(session, "ANALYZE {}")
        if known == "nothing":
            await _all_tables(session, "SELECT pg_clear_relation_stats('public', '{}')")
            await session.execute(text("DELETE FROM pg_statistic"))
        name = site.engine.url.database
        await session.execute(text(f"ALTER DATABASE {name} SET plan_cache_mode = {mode}"))
        await session.commit()
    await site.engine.dispose()


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize("question", QUESTIONS, ids=str)
async def test_an_answer_costs_what_it_returns_or_must_read(site: Site, question: Question) -> None:
    for size in (SMALL, LARGE):
        cost = await site.cost(question, size)
        bound = _ALWAYS + (_EACH * size if question.reads else 0)
        assert cost <= bound, f"{cost} for {size} images\n{site.costs.dearest}"


# These answer without PostgreSQL, or not without what is not here: files, Prefect, SLURM. A report
# is no JSON, and reads all units of a job.
_ELSEWHERE = re.compile(
    "alive|schedule|download|report|files|squeue|authorize|callback|stop|-log/|template_id"
    "|activity_id|csv"
)


@pytest.mark.usefixtures("planned")
async def test_every_list_and_every_object_costs_what_is_returned(
    site: Site, ours: dict[str, Any]
) -> None:
    for path, methods in ours["paths"].items():
        if "get" not in methods or _ELSEWHERE.search(path):
            continue
        needed = [each for each in methods["get"].get("parameters", []) if each["required"]]
        asked = [each["name"] for each in needed if each["in"] == "query"]
        question = Question(
            f"{path}?{'&'.join(f'{name}={{{name}}}' for name in asked)}", None, True
        )
        for size in (SMALL, LARGE):
            cost = await site.cost(question, size)
            assert cost <= _ALWAYS + _EACH * size, f"{path}: {cost}\n{site.costs.dearest}"


async def _let_be(session: AsyncSession) -> None:
    """No autovacuum: on a site with many more datasets, it comes when much more has changed."""
    await _all_tables(session, "ALTER TABLE {} SET (autovacuum_enabled = off)")


async def _all_tables(session: AsyncSession, statement: str) -> None:
    names = await session.execute(
        text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    )
    for name in names.scalars():
        await session.execute(text(statement.format(name)))
    await session.commit()


async def _make(owner: Person, session: AsyncSession, number: int, images: int) -> dict[str, Any]:
    """A project with a dataset of so many images, on which a job has run."""
    project = await owner.ok("POST", "/api/v2/project/", json={"name": f"project {number}"})
    base = f"/api/v2/project/{project['id']}"
    task = {"name": f"Task {number}", "version": "1", "command_parallel": "true"}
    task = await owner.ok("POST", "/api/v2/task/", json=task)
    workflow = await owner.ok("POST", f"{base}/workflow/", json={"name": "workflow"})
    of_workflow = f"{base}/workflow/{workflow['id']}/"
    await owner.ok("POST", f"{of_workflow}wftask/", json=[{"task_id": task["id"]}] * 2)
    first, second = (await owner.ok("GET", of_workflow))["task_list"]
    listed = [
        {
            "zarr_url": f"/data/{number}/plate.zarr/{n % 8}/{n % 12}/{n}",
            "attributes": {"well": f"{'ABCDEFGH'[n % 8]}{n % 12}", "plate": "plate"},
            "types": {"is_3D": n % 2 == 0} | ({"is_last": True} if n > images - PAGE else {}),
        }
        for n in range(images)
    ]
    body = {"name": "dataset", "zarr_dir": f"/data/{number}", "images": listed}
    dataset = await owner.ok("POST", f"{base}/dataset/import/", json=body)
    both = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    dumped = {"id": 1, "name": "dumped", "project_id": 1, "timestamp_created": ""}
    fields = {
        "user_email": owner.user.email,
        "project_id": project["id"],
        "project_dump": dumped,
        "dataset_dump": {**dumped, "zarr_dir": "/data"},
        "workflow_dump": {**dumped, "task_list": []},
        "fractal_server_version": "2",
        "first_task_index": 0,
        "last_task_index": 1,
        "status": "done",
        **both,
    }
    jobs = [JobV2(**fields) for _ in range(images // 20)]
    session.add_all(jobs)
    await session.flush()
    job = jobs[-1]
    given = {"dataset": dataset["id"], "job": job.id, "task": task["id"], "images": images}
    runs = []
    for workflow_task in (first["id"], second["id"]):
        given["workflow_task"] = workflow_task
        runs.append((await session.execute(_RUN, given)).scalar_one())
        await write_done_units(session, dataset["id"], workflow_task, runs[-1])
    await session.commit()
    return {
        **both,
        "project_id": project["id"],
        "workflow_task_id": first["id"],
        "workflowtask_id": first["id"],
        "second_workflow_task_id": second["id"],
        "task_id": task["id"],
        "task_group_id": task["taskgroupv2_id"],
        "user_id": owner.user.id,
        "group_id": 1,
        "profile_id": owner.user.profile_id,
        "resource_id": 1,
        "job_id": job.id,
        "history_run_id": runs[0],
        "url": listed[images // 2]["zarr_url"],
    }


_RUN = text(
    """
    INSERT INTO historyrun (dataset_id, workflowtask_id, job_id, task_id, workflowtask_dump,
        timestamp_started, status, num_available_images)
    VALUES (:dataset, :workflow_task, :job, :task, '{"alias": null}', now(), 'done', :images)
    RETURNING id
    """
)
