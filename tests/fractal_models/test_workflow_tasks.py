"""What of a task is taken over into a workflow, and what its schemas say of arguments."""

from typing import Any

import pytest

from fractal_models.tables import TaskV2, WorkflowTaskV2
from fractal_models.workflow_tasks import (
    UnfitError,
    argument_problems,
    new_workflow_task,
    replace_task,
)


def task(task_type: str = "parallel", **fields: Any) -> TaskV2:
    return TaskV2(id=1, name="Segment", version="1", type=task_type, taskgroupv2_id=1, **fields)


@pytest.mark.parametrize(
    ("of_the_task", "given", "expected"),
    [
        ({}, None, None),
        ({}, {}, None),
        ({"mem": 1}, None, {"mem": 1}),
        ({"mem": 1, "time": 9}, {"mem": 2, "qos": "x"}, {"mem": 2, "time": 9, "qos": "x"}),
    ],
)
def test_a_new_workflow_task_takes_over_the_meta_of_its_task(
    of_the_task: dict[str, Any], given: dict[str, Any] | None, expected: dict[str, Any] | None
) -> None:
    made = new_workflow_task(task(meta_parallel=of_the_task), meta_parallel=given, workflow_id=1)

    assert made.meta_parallel == expected
    assert made.meta_non_parallel is None


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"mem": 5, "time": "2:00"}),
        ({"mem": 1, "time": "1:00"}, {"mem": 5, "time": "2:00"}),
        ({"mem": 3, "time": "1:00"}, {"mem": 3, "time": "2:00"}),
        ({"mem": 1, "time": "1:00", "qos": "x"}, {"mem": 5, "time": "2:00", "qos": "x"}),
        ({"mem": 1}, {"mem": 5}),
    ],
    ids=["never set", "unchanged", "changed", "added", "taken out"],
)
def test_what_users_changed_of_a_meta_stays_in_the_next_version(
    own: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    old = task(meta_parallel={"mem": 1, "time": "1:00"})
    new = task(meta_parallel={"mem": 5, "time": "2:00"})
    workflow_task = WorkflowTaskV2(task=old, task_type="parallel", meta_parallel=own)

    replace_task(workflow_task, new)

    assert workflow_task.meta_parallel == expected
    assert workflow_task.task is new


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("parallel", "parallel", True),
        ("non_parallel", "converter_non_parallel", True),
        ("compound", "converter_compound", True),
        ("converter_compound", "compound", False),
        ("parallel", "compound", False),
        ("compound", "converter_non_parallel", False),
    ],
)
def test_a_task_is_replaced_by_one_that_takes_the_same_arguments(
    old: str, new: str, allowed: bool
) -> None:
    workflow_task = WorkflowTaskV2(task=task(old), task_type=old)

    if allowed:
        replace_task(workflow_task, task(new))
    else:
        with pytest.raises(UnfitError, match=f"{old} task cannot be replaced by a {new} one"):
            replace_task(workflow_task, task(new))

    assert workflow_task.task_type == (new if allowed else old)


def test_a_task_is_not_replaced_by_one_that_contradicts_the_filters() -> None:
    workflow_task = WorkflowTaskV2(task=task(), task_type="parallel", type_filters={"is_3D": False})
    with pytest.raises(UnfitError, match="contradict"):
        replace_task(workflow_task, task(input_types={"is_3D": True}))


SCHEMA = {
    "type": "object",
    "properties": {
        "zarr_url": {"type": "string"},
        "init_args": {"$ref": "#/$defs/Init"},
        "level": {"type": "integer"},
        "sigma": {"type": "number"},
        "channel": {"$ref": "#/$defs/Channel"},
        "overwrite": {"type": "boolean", "default": True},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["zarr_url", "init_args", "channel"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"channel": {}}, []),
        ({"channel": {}, "level": 2.0, "sigma": 1, "overwrite": False, "name": None}, []),
        (None, ["args_parallel: channel is required and not set"]),
        ({"channel": 1, "levl": 2}, ["args_parallel: levl is not known to the task"]),
        (
            {"channel": 1, "level": "2", "sigma": True, "overwrite": 1},
            [
                "args_parallel: level must be of type integer",
                "args_parallel: sigma must be of type number",
                "args_parallel: overwrite must be of type boolean",
            ],
        ),
        ({"channel": 1, "level": 2.5}, ["args_parallel: level must be of type integer"]),
    ],
)
def test_arguments_are_compared_with_the_schema_of_the_task(
    given: dict[str, Any] | None, problems: list[str]
) -> None:
    workflow_task = WorkflowTaskV2(task=task(args_schema_parallel=SCHEMA), args_parallel=given)

    assert argument_problems([workflow_task]) == [problems]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"required": "x", "properties": []},
        {"properties": {"level": 1}},
        {"properties": {"level": {"type": ["string", "null"]}}, "required": [None, []]},
        {"properties": {"level": {"type": "made up", "$ref": "http://example.org"}}},
    ],
)
def test_a_schema_may_be_anything(schema: Any) -> None:
    workflow_task = WorkflowTaskV2(
        task=task(args_schema_parallel=schema), args_parallel={"level": "high"}
    )
    assert argument_problems([workflow_task]) == [[]]
