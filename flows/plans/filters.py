"""What is wrong with the filters of a job, as sentences. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.plans.images import ExpectedImages, own_type_filters
from flows.units.plan import title_of
from fractal_models.images import STATUS_ATTRIBUTE, Scalar, identity

_MOST_TOLD = 5


def attribute_filter_problems(
    filters: Mapping[str, Sequence[Scalar]], values: Mapping[str, Sequence[Scalar]]
) -> Iterator[str]:
    """Attributes and values that are filtered by, of which no image has any (`values`)."""
    for key, wanted in filters.items():
        if key == STATUS_ATTRIBUTE:
            continue
        if (known := values.get(key)) is None:
            there = ", ".join(sorted(values)) or "none"
            yield (
                f"No image has the attribute {key!r}, which is filtered by: there is {there}. "
                "Change the attribute filters."
            )
            continue
        has = set(map(identity, known))
        if missing := [value for value in wanted if identity(value) not in has]:
            yield (
                f"No image has {key} {_told(missing, ' or ')}, which is filtered by: there is "
                f"{_told(known, ', ')}. Change the attribute filters."
            )


def overridden_filters(
    task: Mapping[str, Any],
    job_type_filters: Mapping[str, bool],
    before: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """Type filters of the job that a task overrides, and that no task before it has changed."""
    changed = {key for each in before for key in each["task"]["output_types"]}
    for key, value in own_type_filters(task).items():
        if key not in changed and job_type_filters.get(key, value) is not value:
            yield (
                f"The job's type filters want {key} to be {not value}, but this task only takes "
                f"images of which it is {value}, and that counts. Change the filters."
            )


def why_no_image(
    task: Mapping[str, Any],
    images: ExpectedImages,
    type_filters: Mapping[str, bool],
    before: Sequence[Mapping[str, Any]],
) -> str:
    """Why a task would be given no image; `type_filters` are all that apply to it."""
    own = own_type_filters(task)
    for other in reversed(before):
        made = other["task"]["output_types"]
        if clash := {key: value for key, value in own.items() if made.get(key, value) is not value}:
            return (
                f"It takes only images with {_types(clash)}, but task {title_of(other)}, before "
                "it, makes images with the opposite, and there are no others: change the order "
                "of the tasks or their type filters."
            )
    if not images.kinds:
        return "The dataset has no images: add some, or begin with a converter."
    if images.given(type_filters, task["id"], None).number:
        return (
            "No image has the status that is filtered by: it may be done with all of them. "
            "Change the filter."
        )
    if not images.given({}, task["id"], None).number:
        return "No image passes the attribute filters: change them."
    return (
        f"None of the {images.number} images passes its type filters ({_types(type_filters)}): "
        "change these, or the images' types, or first run a task that makes such images."
    )


def _types(type_filters: Mapping[str, bool]) -> str:
    return ", ".join(f"{key} {value}" for key, value in type_filters.items())


def _told(values: Sequence[Scalar], joint: str) -> str:
    more = f"{joint}more" if len(values) > _MOST_TOLD else ""
    return joint.join(map(repr, values[:_MOST_TOLD])) + more
