"""What becomes of the image list is planned as tasks make it, as far as that can be known."""

from typing import Any

import pytest

from flows.plans.images import ExpectedImages, changed_before
from fractal_models.image_kinds import ImageKind

RAW = {"raw": True}


def task(order: int = 0, task_type: str = "parallel", **types: dict[str, bool]) -> dict[str, Any]:
    """A workflow task, as a job keeps it, with `takes` and `makes` as its types."""
    return {
        "id": 100 + order,
        "order": order,
        "task_type": task_type,
        "type_filters": {},
        "task": {"input_types": types.get("takes", {}), "output_types": types.get("makes", {})},
    }


def run(images: ExpectedImages, each: dict[str, Any]) -> None:
    images.run(each, images.given(each["task"]["input_types"], each["id"], None))


def number(images: ExpectedImages, **types: bool) -> int:
    return images.given(types, 0, None).number


def test_a_task_changes_the_images_that_it_is_given() -> None:
    images = ExpectedImages([ImageKind(3, RAW), ImageKind(2, {})])

    run(images, task(takes=RAW, makes={"labelled": True}))

    assert (images.number, number(images, labelled=True), number(images, labelled=False)) == (
        5,
        3,
        2,
    )


def test_a_task_whose_output_is_no_input_makes_new_images() -> None:
    images = ExpectedImages([ImageKind(3, RAW), ImageKind(2, {})])

    run(images, task(takes=RAW, makes={"raw": False}))

    assert (images.number, number(images, raw=True), number(images, raw=False)) == (8, 3, 5)


def test_what_was_made_before_is_not_counted_again() -> None:
    done = ImageKind(3, RAW, statuses={100: "done"})
    images = ExpectedImages([done, ImageKind(3, {"raw": False})])

    run(images, task(takes=RAW, makes={"raw": False}))

    assert images.number == 6


@pytest.mark.parametrize(
    ("task_type", "takes"),
    [
        ("converter_non_parallel", {}),
        ("converter_compound", {}),
        ("compound", {"flat": False}),
        ("non_parallel", {"flat": False}),
    ],
)
def test_how_many_images_others_make_is_not_known(task_type: str, takes: dict[str, bool]) -> None:
    images = ExpectedImages([ImageKind(1, {})])

    run(images, task(4, task_type, takes=takes, makes={"flat": True}))

    given = images.given({"flat": True, "raw": True}, 0, None)
    assert (given.number, [new.made_by for new in given.new]) == (0, [4])
    assert not images.given({"flat": False}, 0, None).new


def test_what_is_made_of_unknown_images_is_unknown() -> None:
    images = ExpectedImages([])
    run(images, task(0, "converter_compound", makes=RAW))
    run(images, task(1, takes=RAW, makes={"labelled": True}))

    [*_, new] = images.given({"labelled": True, "raw": True}, 0, None).new

    assert (new.made_by, new.types) == (0, {"raw": True, "labelled": True})


def test_images_are_given_by_their_status() -> None:
    images = ExpectedImages([ImageKind(1, {}, statuses={7: "done"}), ImageKind(2, {})])

    assert images.given({}, 7, ["done"]).number == 1
    assert images.given({}, 7, ["unset", "failed"]).number == 2
    assert images.given({}, 8, ["unset"]).number == 3


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (task(), 4),
        (task(makes={"labelled": True}), 3),
        (task(takes=RAW, makes={"raw": False}), 0),
        (task(0, "converter_compound"), 0),
        (task(1), 0),
    ],
    ids=["no types", "those that have its types", "it makes new ones", "a converter", "never run"],
)
def test_images_that_a_task_changed_before_are_counted(each: dict[str, Any], expected: int) -> None:
    done = {100: "done"}
    kinds = [
        ImageKind(3, {"labelled": True}, statuses=done),
        ImageKind(1, {}, statuses=done),
        ImageKind(9, {"labelled": True}, statuses={100: "failed"}),
    ]
    assert changed_before(each, ExpectedImages(kinds).given({}, each["id"], None)) == expected
