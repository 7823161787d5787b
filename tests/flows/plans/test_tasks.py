"""What is planned for tasks follows from the images that there are, and from what is asked."""

from collections.abc import Sequence
from typing import Any

import pytest

from flows.plans.phases import Site
from flows.plans.tasks import Facts, images_of_first_task, plan_tasks
from fractal_models.image_kinds import ImageKind
from fractal_models.schemas.plan import Amount

TASK_ID = 7


def task(task_type: str = "parallel", **fields: Any) -> dict[str, Any]:
    """A workflow task, as a job keeps it."""
    commands = {"command_non_parallel": "true", "command_parallel": "true"}
    return {
        "id": TASK_ID,
        "task_id": 1,
        "order": 0,
        "task_type": task_type,
        "type_filters": {},
        "args_non_parallel": None,
        "args_parallel": None,
        "meta_non_parallel": None,
        "meta_parallel": None,
        "task": {"name": "Task", "input_types": {}, "output_types": {}, **commands},
        **fields,
    }


def facts(*kinds: ImageKind, of: dict[str, Any] | None = None, **fields: Any) -> Facts:
    empty: dict[str, Any] = {"values": {}, "type_filters": {}, "needs": {}, "earlier_runs": {}}
    asked = {"attribute_filters": {}, "site": Site(4), **fields}
    return Facts(tasks=[of or task()], zarr_dir="/zarr", kinds=kinds, **empty, **asked)


DONE = ImageKind(3, {}, statuses={TASK_ID: "done"}, examples=("/zarr/done",))
FAILED = ImageKind(3, {}, statuses={TASK_ID: "failed"}, examples=("/zarr/failed",))
UNSET = ImageKind(3, {}, examples=("/zarr/unset",))


@pytest.mark.parametrize(
    ("asked", "urls"),
    [
        ({}, ["/zarr/done", "/zarr/failed", "/zarr/unset"]),
        ({"only_not_done": True}, ["/zarr/failed", "/zarr/unset"]),
        (
            {"attribute_filters": {"__wftask_dataset_image_status__": ["failed"]}},
            ["/zarr/failed"],
        ),
    ],
)
def test_the_first_task_is_given_images_of_the_status_that_is_asked_for(
    asked: dict[str, Any], urls: Sequence[str]
) -> None:
    assert images_of_first_task(facts(DONE, FAILED, UNSET, **asked)) == urls


@pytest.mark.parametrize("task_type", ["parallel", "non_parallel", "compound"])
def test_a_task_without_images_has_no_units_and_takes_no_time(task_type: str) -> None:
    [plan], findings = plan_tasks(facts(DONE, of=task(task_type), only_not_done=True))

    assert findings == []
    assert {phase.units for phase in plan.phases} == {0}
    assert plan.wall_seconds == plan.cpu_seconds == Amount(low=0, median=0, high=0)


def test_only_an_argument_that_is_missing_makes_a_task_fail() -> None:
    problems = ["args_parallel: a is required and not set", "args_parallel: b must be at least 0"]
    _, findings = plan_tasks(facts(UNSET, of=task(argument_problems=problems)))

    assert [(each.level, each.told) for each in findings] == [
        ("error", "Task 0 Task: args_parallel: a is required and not set. Change the arguments."),
        ("warning", "Task 0 Task: args_parallel: b must be at least 0. Change the arguments."),
    ]
