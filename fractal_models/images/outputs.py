"""The output that a task writes to its `--out-json` file."""

from dataclasses import field, fields
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from fractal_models.exact_json import dumps
from fractal_models.images.schema import (
    ImageAttributesUpdate,
    ImageError,
    ImageTypes,
    ZarrUrl,
)

# Slotted dataclasses, because they are a third faster than models for the outputs of 100,000 units.
_STRICT = ConfigDict(extra="forbid")


def _finite(arguments: dict[str, Any]) -> dict[str, Any]:
    dumps(arguments)  # refuses values that could not be stored exactly
    return arguments


class InvalidTaskOutput(ImageError):
    """A task's output is not JSON of the expected shape; the message says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ImageListUpdate:
    """An image that a task made or changed; `origin` is the image from which it was made.

    Fields that are missing or null do not change; an attribute set to null is removed.
    """

    zarr_url: ZarrUrl
    origin: ZarrUrl | None = None
    attributes: ImageAttributesUpdate | None = None
    types: ImageTypes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TaskOutput:
    """Output of the last (or only) phase of a task."""

    image_list_updates: list[ImageListUpdate] = field(default_factory=list)
    image_list_removals: list[ZarrUrl] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ParallelizationItem:
    """One unit of a compound task's second phase."""

    zarr_url: ZarrUrl
    init_args: Annotated[dict[str, Any], AfterValidator(_finite)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class InitOutput:
    """Output of the first phase of a compound task."""

    parallelization_list: list[ParallelizationItem] = field(default_factory=list)


def parse_task_output(text: str | bytes | None) -> TaskOutput:
    """Read the output of a task's last phase; None (no file) and `null` are an empty output.

    Raises:
        InvalidTaskOutput: not JSON, or not of the shape of `TaskOutput`.
    """
    return _parse(_TASK_OUTPUT, text, _TASK_FIELDS) or TaskOutput()


def parse_init_output(text: str | bytes | None) -> InitOutput:
    """Read the output of a compound task's init phase; None (no file) and `null` are an empty one.

    Raises:
        InvalidTaskOutput: not JSON, or not of the shape of `InitOutput`.
    """
    return _parse(_INIT_OUTPUT, text, _INIT_FIELDS) or InitOutput()


def _names(schema: type) -> str:
    return ", ".join(each.name for each in fields(schema))


_TASK_OUTPUT: TypeAdapter[TaskOutput | None] = TypeAdapter(TaskOutput | None)
_INIT_OUTPUT: TypeAdapter[InitOutput | None] = TypeAdapter(InitOutput | None)
_TASK_FIELDS = (_names(TaskOutput), _names(ImageListUpdate))
_INIT_FIELDS = (_names(InitOutput), _names(ParallelizationItem))
_MAX_TOLD = 5

Output = TypeVar("Output", TaskOutput, InitOutput)
Fields = tuple[str, str]  # what is allowed in the output, and in one item of its lists


def _parse(
    adapter: TypeAdapter[Output | None], text: str | bytes | None, allowed: Fields
) -> Output | None:
    if text is None:
        return None
    if not text.strip():
        raise InvalidTaskOutput("The task's output file is empty; it must hold JSON, if it exists.")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [_tell(problem, allowed) for problem in problems[:_MAX_TOLD]]
    if len(problems) > _MAX_TOLD:
        told.append(f"and {len(problems) - _MAX_TOLD} more")
    raise InvalidTaskOutput("The task's output is invalid: " + "; ".join(told) + ".")


def _tell(problem: ErrorDetails, allowed: Fields) -> str:
    """One problem as `image_list_updates[3].attributes.well: must be ...`."""
    loc = problem["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unexpected_keyword_argument":
        message = f"unknown field; allowed here are {allowed[len(loc) > 1]}"
    return f"{path.removeprefix('.')}: {message}" if path else message
