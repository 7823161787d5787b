"""Base classes and common field types of all schemas: strict input, output from rows, pages."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from fractal_models.exact_json import dumps
from fractal_models.images import check_keys
from fractal_models.urls import absolute_path, normalize_url, project_dir, relative_path

# The version of the REST contract; clients compare it with their own.
CONTRACT_VERSION = "2.25.4"


class OpenInput(BaseModel):
    """A request body in which unknown fields are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    def given(self) -> dict[str, Any]:
        """The fields that the client sent, for partial updates."""
        return self.model_dump(exclude_unset=True)


class Input(OpenInput):
    """A request body. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """A response body, filled from a table row."""

    model_config = ConfigDict(from_attributes=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the text has a NUL character, which neither files nor databases take")
    return text


# Characters with a special meaning for shells.
_SHELL_CHARACTERS = frozenset("`#$&*()\\|[]{};<>?!")


def without_shell_characters(text: str) -> str:
    """Return the text if it has no characters with a special meaning for shells.

    Raises:
        ValueError: the text has such a character.
    """
    if found := sorted(_SHELL_CHARACTERS & set(text)):
        raise ValueError(f"the text has {' '.join(found)}, which a shell would act upon")
    return text


def _http_url(text: str) -> str:
    HttpUrl(text)
    return text


def unique(values: list[Any]) -> list[Any]:
    """Return the values if no two of them are equal.

    Raises:
        ValueError: two values are equal.
    """
    if len(values) != len(set(values)):
        raise ValueError("the list has an element twice")
    return values


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    dumps(value)  # refuses numbers that could not be stored exactly
    return value


NonEmpty = Annotated[
    str, StringConstraints(min_length=1, strip_whitespace=True), AfterValidator(_without_nul)
]
Name = Annotated[
    str,
    StringConstraints(min_length=1, strip_whitespace=True, pattern=r"^([a-zA-Z0-9_. -]+)$"),
]
Command = Annotated[NonEmpty, AfterValidator(without_shell_characters)]
# The link is kept as it was written.
HttpLink = Annotated[NonEmpty, AfterValidator(_http_url)]
AbsolutePath = Annotated[NonEmpty, AfterValidator(absolute_path)]
# Below a folder.
RelativePath = Annotated[
    NonEmpty,
    AfterValidator(relative_path),
    StringConstraints(pattern=r"^([a-zA-Z0-9_. /-]+)$"),
]
# An absolute path, or a URL of S3.
Folder = Annotated[NonEmpty, AfterValidator(normalize_url)]
ProjectDir = Annotated[NonEmpty, AfterValidator(project_dir)]
SlurmAccount = Annotated[str, StringConstraints(min_length=1, pattern=r"^[a-zA-Z0-9_\-\.]+$")]
UniqueIds = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(unique)]
UniqueStrings = Annotated[list[NonEmpty], AfterValidator(unique)]
UniqueProjectDirs = Annotated[
    list[Annotated[ProjectDir, AfterValidator(without_shell_characters)]], AfterValidator(unique)
]
UniqueSlurmAccounts = Annotated[list[SlurmAccount], AfterValidator(unique)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]
# As clients send it: blanks around keys are removed.
JsonFields = Annotated[JsonObject, BeforeValidator(check_keys)]
Timestamp = Annotated[AwareDatetime, PlainSerializer(datetime.isoformat, return_type=str)]


def problems_of(error: ValidationError, *within: str) -> str:
    """All problems as one text. Each names the path of its field, which begins with `within`."""
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
