"""What an image is: a Zarr URL with attributes (scalars) and types (booleans)."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from fractal_models.errors import FractalError
from fractal_models.urls import normalize_url

Image = dict[str, Any]
"""An image as it is stored: the dump of a `SingleImage`, with all four fields."""


class ImageError(FractalError, ValueError):
    """Images, filters or a task's output break the rules; the message says how."""


def _of_image(url: str) -> str:
    clean = normalize_url(url)
    if clean in ("/", "s3://"):
        raise ImageError(f"{url!r} names no image: give the path or URL of one")
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
    """Strip the keys of a mapping. After that, no key may be empty or occur twice."""
    if not isinstance(value, dict):
        return value  # the type check that follows reports this
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
"""The value of an attribute. Pydantic's smart union does not convert between the four types."""

ZarrUrl = Annotated[str, Field(min_length=1), AfterValidator(_of_image)]
ImageAttributes = Annotated[dict[str, Scalar], BeforeValidator(check_keys)]
ImageAttributesUpdate = Annotated[dict[str, Scalar | None], BeforeValidator(check_keys)]
ImageTypes = Annotated[dict[str, bool], BeforeValidator(check_keys)]


class SingleImage(BaseModel):
    """An image of a dataset. `origin` is the URL of the image from which it was made."""

    zarr_url: ZarrUrl
    origin: ZarrUrl | None = None
    attributes: ImageAttributes = Field(default_factory=dict)
    types: ImageTypes = Field(default_factory=dict)


class SingleImageUpdate(BaseModel):
    """New attributes or types that replace those of an image; missing ones stay."""

    zarr_url: ZarrUrl
    attributes: ImageAttributes = Field(default_factory=dict)
    types: ImageTypes | None = None
