from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fractal_models.images import (
    AttributeFilters,
    FilterError,
    Image,
    TypeFilters,
    filter_images,
    merge_type_filters,
    task_type_filters,
)


def image(url: str, attributes: dict[str, Any] | None = None, **types: bool) -> Image:
    return {"zarr_url": url, "origin": None, "attributes": attributes or {}, "types": types}


IMAGES = [
    image("/a", {"well": "A01", "n": 1}, is_3D=True),
    image("/b", {"well": "A02", "n": True}, is_3D=False),
    image("/c", {"well": "A01", "n": 1.0, "plate": "p"}),
    image("/d", {"n": "1"}, is_3D=True, corrected=True),
]


@pytest.mark.parametrize(
    ("types", "attributes", "urls"),
    [
        ({}, {}, "/a /b /c /d"),
        ({"is_3D": True}, {}, "/a /d"),
        ({"is_3D": False}, {}, "/b /c"),
        ({"unheard_of": False}, {}, "/a /b /c /d"),
        ({"unheard_of": True}, {}, ""),
        ({"is_3D": True, "corrected": False}, {}, "/a"),
        ({}, {"well": ["A01"]}, "/a /c"),
        ({}, {"well": ["A01", "A02"]}, "/a /b /c"),
        ({}, {"well": ["a01"]}, ""),
        ({}, {"unheard_of": ["x"]}, ""),
        ({}, {"n": [1]}, "/a /c"),
        ({}, {"n": [1.0]}, "/a /c"),
        ({}, {"n": [True]}, "/b"),
        ({}, {"n": [False]}, ""),
        ({}, {"n": ["1"]}, "/d"),
        ({}, {"well": ["A01"], "plate": ["p", "q"]}, "/c"),
        ({"is_3D": True}, {"well": ["A01"]}, "/a"),
    ],
)
def test_filters_keep_the_images_that_pass_them_all(
    types: dict[str, bool], attributes: dict[str, list[Any]], urls: str
) -> None:
    kept = filter_images(IMAGES, types, attributes)
    assert [each["zarr_url"] for each in kept] == urls.split()


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


names = st.sampled_from("abc")
values = st.one_of(st.integers(0, 2), st.booleans(), st.sampled_from(["0", "1"]))
image_lists = st.lists(
    st.builds(
        lambda attributes, types: image("/x", attributes, **types),
        st.dictionaries(names, values),
        st.dictionaries(names, st.booleans()),
    )
)


@given(image_lists, names)
def test_a_type_and_its_opposite_partition_the_images(images: list[Image], name: str) -> None:
    with_type = filter_images(images, {name: True}, {})
    without = filter_images(images, {name: False}, {})
    assert sorted(map(id, with_type + without)) == sorted(map(id, images))


@given(image_lists, names)
def test_the_values_of_an_attribute_partition_the_images_that_have_it(
    images: list[Image], name: str
) -> None:
    every_value = [0, 1, 2, False, True, "0", "1"]
    parts = [each for value in every_value for each in filter_images(images, {}, {name: [value]})]
    having = [each for each in images if name in each["attributes"]]
    assert sorted(map(id, parts)) == sorted(map(id, having))


@given(image_lists, st.dictionaries(names, st.booleans()), names, st.lists(values, min_size=1))
def test_filtering_by_all_is_filtering_by_one_after_the_other(
    images: list[Image], types: dict[str, bool], name: str, wanted: list[Any]
) -> None:
    at_once = filter_images(images, types, {name: wanted})
    assert at_once == filter_images(filter_images(images, types, {}), {}, {name: wanted})
