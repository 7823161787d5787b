"""`fractal-prefect job plan` tells what is wrong with a job, and runs nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fractal_models.settings import Settings
from tests.deployments.conftest import Ended, Run

Plan = Callable[..., Ended]


@pytest.fixture
def plan(
    fractal_prefect: Run,
    settings: Settings,
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
) -> Plan:
    """Runs `fractal-prefect job plan` for a workflow on a dataset without images."""

    def run(*options: object, user: str = owner.user.email) -> Ended:
        named = (dataset["project_id"], runnable["name"], dataset["id"])
        database = {"FRACTAL_DATABASE_URL": settings.database_url}
        return fractal_prefect("job", "plan", *named, "--user", user, *options, **database)

    return run


def test_errors_are_told_and_make_the_command_fail(plan: Plan) -> None:
    ended = plan()

    assert ended.code == 1
    assert "1 error, 0 warnings" in ended.out
    assert "The dataset has no images" in " ".join(ended.out.split())


def test_where_all_is_done_there_is_nothing_to_do(plan: Plan) -> None:
    assert "There is nothing to do" in " ".join(plan("--not-done").out.split())


def test_a_plan_is_told_as_the_api_tells_it(plan: Plan) -> None:
    told = json.loads(plan("--json").out)

    assert [finding["level"] for finding in told["findings"]] == ["error"]
    assert [task["images"] for task in told["tasks"]] == [0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--attribute-filters", "{"], "--attribute-filters is no JSON"),
        (["--type-filters", '{"a": 1.5}'], "type_filters.a"),
        (["--first-task", "2", "--last-task", "1"], "after last_task_index"),
    ],
)
def test_a_request_that_is_none_is_an_error(options: list[str], told: str, plan: Plan) -> None:
    assert plan(*options).is_error(told)


def test_who_does_not_exist_plans_nothing(plan: Plan) -> None:
    assert plan(user="nobody@example.org").is_error("nobody@example.org")
