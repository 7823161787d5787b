from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fractal_models.images import (
    AttributeFilters,
    FilterError,
    TypeFilters,
    merge_type_filters,
    task_type_filters,
)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"well": ["A", "B"]},
        {"n": [1, 2.5]},
        {"n": [0, 1]},
        {"flag": [True, False]},
        {"well": ["A", "A"]},
    ],
)
def test_valid_attribute_filters_stay_as_they_are(filters: dict[str, list[Any]]) -> None:
    read = TypeAdapter(AttributeFilters).validate_python(filters)
    assert repr(read) == repr(filters)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"well": []}, "is empty"),
        ({"well": "A"}, "valid list"),
        ({"well": ["A", 1]}, "number and string"),
        ({"n": [1, True]}, "boolean and number"),
        ({"well": [None]}, "not null"),
        ({"": ["A"]}, "unusable key"),
        ({"well": ["A"], "well ": ["B"]}, "'well' twice"),
    ],
)
def test_invalid_attribute_filters_are_refused(filters: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(AttributeFilters).validate_python(filters)


@pytest.mark.parametrize("filters", [{"t": 2}, {"t": None}, {"": True}, {"t": True, " t": False}])
def test_invalid_type_filters_are_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TypeFilters).validate_python(filters)


@pytest.mark.parametrize(
    ("job", "task", "workflowtask", "in_force"),
    [
        ({}, {}, {}, {}),
        ({"a": True}, {}, {}, {"a": True}),
        ({}, {"a": True}, {"b": False}, {"a": True, "b": False}),
        ({}, {"a": True}, {"a": True}, {"a": True}),
        ({"a": False, "c": True}, {"a": True}, {}, {"a": True, "c": True}),
        ({"b": False}, {}, {"b": True}, {"b": True}),
    ],
)
def test_a_tasks_type_filters_override_the_jobs(
    job: dict[str, bool],
    task: dict[str, bool],
    workflowtask: dict[str, bool],
    in_force: dict[str, bool],
) -> None:
    assert task_type_filters(job, task, workflowtask) == in_force


def test_contradicting_type_filters_are_named() -> None:
    task = {"is_3D": True, "same": True, "b": False}
    with pytest.raises(FilterError, match=r"'b' is False .* True .*; 'is_3D' is True") as caught:
        merge_type_filters(task, {"is_3D": False, "same": True, "b": True})
    assert "same" not in str(caught.value)
