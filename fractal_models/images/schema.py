"""What an image is: a Zarr URL with attributes (scalars) and types (booleans)."""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Image = dict[str, Any]
"""An image as stored: the dump of a `SingleImage`, with all of its four fields."""


class ImageError(ValueError):
    """Something about images, filters or task output breaks the rules; the message says how."""


class InvalidZarrUrl(ImageError):
    """Not an absolute path or a URL with a scheme."""


# Longer ones do not fit into PostgreSQL's indices.
MAX_URL_BYTES = 2000

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def normalize_url(url: str) -> str:
    """The one spelling of a Zarr URL, so that equal images have equal URLs.

    Surrounding spaces and trailing slashes go; in absolute paths also empty and `.` segments. (In
    an object store `a//b` and `a/b` are two keys, so URLs with a scheme keep theirs.)

    Raises:
        InvalidZarrUrl: neither an absolute path nor a URL with a scheme, a `..` segment, a NUL
            character, nothing left to name an image, or more than MAX_URL_BYTES bytes.
    """
    clean = url.strip().rstrip("/")
    if not _SCHEME.match(clean) and ("//" in clean or "/." in clean):
        clean = clean[:1] + "/".join(part for part in clean.split("/") if part not in ("", "."))
    if len(clean) < 2 or not (clean.startswith("/") or _SCHEME.match(clean)):
        raise InvalidZarrUrl(
            f"{url!r} names no image: give an absolute path (/data/plate.zarr/B/03/0) "
            "or a URL with a scheme (s3://bucket/plate.zarr/B/03/0)"
        )
    if "/.." in clean and ".." in clean.split("/"):
        raise InvalidZarrUrl(f"{url!r} contains a '..' segment: write the path it leads to")
    if "\0" in clean:
        raise InvalidZarrUrl(f"{url!r} contains a NUL character: remove it")
    if len(clean) > MAX_URL_BYTES // 4 and len(clean.encode(errors="replace")) > MAX_URL_BYTES:
        raise InvalidZarrUrl(
            f"{clean[:40]!r}... is of more than {MAX_URL_BYTES} bytes: use a shorter path"
        )
    return clean


_JSON_NAMES = {type(None): "null", dict: "an object", list: "an array"}


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, int | float | str):
        kind = _JSON_NAMES.get(type(value), type(value).__name__)
        raise ImageError(f"must be a number, a string or a boolean, not {kind}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ImageError("must be a finite number")
    if isinstance(value, str) and "\0" in value:  # PostgreSQL cannot store it in JSONB
        raise ImageError("must not contain a NUL character")
    return value


def check_keys(value: Any) -> Any:
    """Strip the keys of a mapping; they must be there and differ after that."""
    if not isinstance(value, dict):
        return value  # the type that follows says what is wrong
    stripped = {}
    for key, item in value.items():
        name = key.strip() if isinstance(key, str) else key
        if name == "" or (isinstance(name, str) and "\0" in name):
            raise ImageError(f"has the unusable key {key!r}: name it by visible characters")
        if name in stripped:
            raise ImageError(f"has the key {name!r} twice (spaces around a key do not count)")
        stripped[name] = item
    return stripped


Scalar = Annotated[int | float | str | bool, BeforeValidator(_check_scalar)]
"""An attribute's value. Pydantic's smart union keeps each of the four types as it came."""

ZarrUrl = Annotated[str, Field(min_length=1), AfterValidator(normalize_url)]
ImageAttributes = Annotated[dict[str, Scalar], BeforeValidator(check_keys)]
ImageAttributesUpdate = Annotated[dict[str, Scalar | None], BeforeValidator(check_keys)]
ImageTypes = Annotated[dict[str, bool], BeforeValidator(check_keys)]


class SingleImage(BaseModel):
    """An image of a dataset. `origin` is the URL of the image it was made from."""

    model_config = ConfigDict(extra="forbid")

    zarr_url: ZarrUrl
    origin: ZarrUrl | None = None
    attributes: ImageAttributes = Field(default_factory=dict)
    types: ImageTypes = Field(default_factory=dict)


class SingleImageUpdate(BaseModel):
    """New attributes or types of an image, in place of those it has.

    What is absent or null stays as it is; an attribute with the value null is left out.
    """

    model_config = ConfigDict(extra="forbid")

    zarr_url: ZarrUrl
    attributes: ImageAttributesUpdate | None = None
    types: ImageTypes | None = None
