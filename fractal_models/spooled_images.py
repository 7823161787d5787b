"""The images of a request, which may be more than fit into memory: most are in a temporary file."""

from collections.abc import Callable, Iterator
from tempfile import SpooledTemporaryFile
from typing import Any

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    core_schema,
)

from fractal_models.exact_json import JsonError, dumps
from fractal_models.images import SingleImage

_IN_MEMORY, _BATCH = 1 << 20, 2 << 20  # bytes
_MOST_PROBLEMS = 10_000
_LIST = TypeAdapter(list[SingleImage])


class SpooledImages:
    """Images that are checked as they come, and then read in batches.

    As the field of a schema it is a list of images, of which all problems are told.
    """

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self.clear()

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget all images."""
        self._file.seek(0)
        self._file.truncate()
        self._count = 0
        self._problems: list[InitErrorDetails] = []
        # The first and the last one in the alphabet, with a slash after each.
        self.ends: list[str] = []

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def add(self, images: list[Any]) -> None:
        """Append images. What is wrong with them is told by the schema that has them."""
        if len(self._problems) >= _MOST_PROBLEMS:
            return
        try:
            valid = _LIST.validate_python(images)
            text = dumps(_LIST.dump_python(valid))
        except ValidationError as error:
            self._problems += [self._placed(each) for each in error.errors(include_url=False)]
        except JsonError as error:
            unwritable = PydanticCustomError("value_error", "{told}", {"told": str(error)})
            self._problems.append(InitErrorDetails(type=unwritable, loc=(), input=None))
        else:
            self._keep(valid, text)
        self._count += len(images)

    def batches(self) -> Iterator[str]:
        """The images as JSON arrays of some megabytes."""
        self._file.seek(0)
        while lines := self._file.readlines(_BATCH):
            yield f"[{b','.join(lines).decode()}]"

    def _keep(self, images: list[SingleImage], text: bytes) -> None:
        if images and not self._problems:
            places = [*self.ends, *(f"{image.zarr_url}/" for image in images)]
            self.ends = [min(places), max(places)]
            self._file.write(text[1:-1] + b"\n")

    def _placed(self, problem: ErrorDetails) -> InitErrorDetails:
        """A problem of some images as one of the list, without the input, which can be long."""
        index, *path = problem["loc"]
        return InitErrorDetails(
            type=problem["type"],
            loc=(self._count + int(index), *path),
            input=None,
            ctx=problem.get("ctx", {}),
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = handler.generate_schema(list[SingleImage])
        return core_schema.no_info_wrap_validator_function(cls._valid, listed)

    @classmethod
    def _valid(cls, value: Any, read: Callable[[Any], list[SingleImage]]) -> "SpooledImages":
        if isinstance(value, cls):
            images = value
        else:
            images = cls()
            images.add(read(value))
        if images._problems:
            raise ValidationError.from_exception_data("images", images._problems)
        return images
