"""What all schemas share: strict input, output from rows, common field types, pages."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from fractal_models.exact_json import dumps

# The version of the REST contract that is served, which clients compare with their own.
CONTRACT_VERSION = "2.25.4"


class Input(BaseModel):
    """A request body. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def given(self) -> dict[str, Any]:
        """The fields that the client sent, for partial updates."""
        return self.model_dump(exclude_unset=True)


class Output(BaseModel):
    """A response body, filled from a table row."""

    model_config = ConfigDict(from_attributes=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the text has a NUL character, which neither files nor databases take")
    return text


def _absolute(path: str) -> str:
    parts = PurePosixPath(path)
    if not parts.is_absolute() and "://" not in path:
        raise ValueError(f"{path!r} is not an absolute path: start it with '/'")
    if ".." in parts.parts:
        raise ValueError(f"{path!r} must not contain '..'")
    return path.rstrip("/") or "/"


def unique(values: list[Any]) -> list[Any]:
    """The values, if there are no two equal ones.

    Raises:
        ValueError: there are.
    """
    if len(values) != len(set(values)):
        raise ValueError("the list has an element twice")
    return values


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    dumps(value)  # which refuses numbers that would be lost
    return value


NonEmpty = Annotated[
    str, StringConstraints(min_length=1, strip_whitespace=True), AfterValidator(_without_nul)
]
Name = Annotated[str, StringConstraints(min_length=1, pattern=r"^([a-zA-Z0-9_. -]+)$")]
AbsolutePath = Annotated[NonEmpty, AfterValidator(_absolute)]
SlurmAccount = Annotated[str, StringConstraints(min_length=1, pattern=r"^[a-zA-Z0-9_\-\.]+$")]
UniqueIds = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(unique)]
UniqueStrings = Annotated[list[NonEmpty], AfterValidator(unique)]
UniquePaths = Annotated[list[AbsolutePath], AfterValidator(unique)]
UniqueSlurmAccounts = Annotated[list[SlurmAccount], AfterValidator(unique)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]
Timestamp = Annotated[AwareDatetime, PlainSerializer(datetime.isoformat, return_type=str)]


def problems_of(error: ValidationError, *within: str) -> str:
    """All that is wrong, as one text: each field by its path, which begins with `within`."""
    problems = []
    for problem in error.errors():
        path = ".".join([*within, *map(str, problem["loc"])])
        told = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{path}: {told}" if path else told)
    return "; ".join(problems)


Item = TypeVar("Item")


class Page(Output, Generic[Item]):
    """One page of a list: `current_page` counts from 1."""

    current_page: int = Field(ge=1)
    page_size: int = Field(ge=0)
    total_count: int = Field(ge=0)
    items: list[Item]
