"""Filters: which images a task sees. (`fractal_models.image_search` looks for these.)"""

from collections.abc import Mapping
from typing import Annotated, TypeGuard

from pydantic import AfterValidator, BeforeValidator

from fractal_models.images.schema import ImageError, ImageTypes, Scalar, check_keys

# The attribute by which clients see and filter the status of an image's latest unit of a workflow
# task: `submitted`, `done`, `failed`, or `unset`. It is not stored in any image.
STATUS_ATTRIBUTE = "__wftask_dataset_image_status__"


class FilterError(ImageError):
    """Filters that are not valid, or that contradict each other."""


TypeFilters = ImageTypes
"""Type names with the wanted value; `False` also means images without the type."""


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _check_values(values: list[Scalar]) -> list[Scalar]:
    if not values:
        raise FilterError("is empty: give the values to keep, or leave the attribute out")
    kinds = sorted({_kind(value) for value in values})
    if len(kinds) > 1:
        raise FilterError(f"mixes {' and '.join(kinds)} values: give values of one kind")
    return values


def is_beyond_64_bits(value: Scalar) -> TypeGuard[int]:
    """Whether a value is an integer of more than 64 bits, which some programs cannot hold."""
    return isinstance(value, int) and not -(2**63) <= value < 2**63


AttributeFilters = Annotated[
    dict[str, Annotated[list[Scalar], AfterValidator(_check_values)]], BeforeValidator(check_keys)
]
"""Attribute names with the values to keep: at least one value, all of one kind."""


def passes_types(types: Mapping[str, bool], type_filters: Mapping[str, bool]) -> bool:
    """Whether an image with these types passes type filters, as `ImageSearch` finds it."""
    return all(types.get(key, False) is wanted for key, wanted in type_filters.items())


def merge_type_filters(
    task_input_types: Mapping[str, bool], workflowtask_type_filters: Mapping[str, bool]
) -> dict[str, bool]:
    """A task's `input_types` together with the `type_filters` of its workflow task.

    Raises:
        FilterError: the two want different values of a type.
    """
    shared = task_input_types.keys() & workflowtask_type_filters.keys()
    clashes = sorted(
        key for key in shared if task_input_types[key] != workflowtask_type_filters[key]
    )
    if clashes:
        told = "; ".join(
            f"{key!r} is {task_input_types[key]} in the task's input types and "
            f"{workflowtask_type_filters[key]} in the workflow task's type filters"
            for key in clashes
        )
        raise FilterError(f"Type filters contradict each other: {told}. Change the type filters.")
    return {**task_input_types, **workflowtask_type_filters}


def task_type_filters(
    job_type_filters: Mapping[str, bool],
    task_input_types: Mapping[str, bool],
    workflowtask_type_filters: Mapping[str, bool],
) -> dict[str, bool]:
    """The type filters that apply to one workflow task: the job's, overridden by the task's.

    Raises:
        FilterError: as `merge_type_filters`.
    """
    return {
        **job_type_filters,
        **merge_type_filters(task_input_types, workflowtask_type_filters),
    }
