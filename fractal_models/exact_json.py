"""JSON with exact numbers: the encoder and decoder for everything that is stored.

Integers of any size stay integers, and floating-point numbers have a decimal point, even in
PostgreSQL's JSONB, which writes 1e25 as an integer. NaN and infinities, which JSON does not have,
are refused.
"""

import math
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError, from_json, to_json

from fractal_models.errors import FractalError

# Python writes 1e16 and more with an exponent.
_TO_LOOK_AT = (b"e+", b"NaN", b"Infinity")
_SAFE = 2**63 - 1


class JsonError(FractalError, ValueError):
    """A value cannot be written as JSON, or a text is not JSON; the message says where and why."""


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JsonError: the text is not JSON, or has NaN or an infinity.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise JsonError(f"No JSON: {error}") from error


def dumps(value: Any) -> bytes:
    """A value as JSON; dates, UUIDs and paths become strings.

    Raises:
        JsonError: the value has a number that is not finite, half of a surrogate pair, or something
            that JSON does not have.
    """
    try:
        text = to_json(value, inf_nan_mode="constants")
        if any(mark in text for mark in _TO_LOOK_AT):  # perhaps in a string only
            text = orjson.dumps(_spelled_out(value, ""), option=orjson.OPT_NON_STR_KEYS)
    except (PydanticSerializationError, orjson.JSONEncodeError) as error:
        raise JsonError(f"This cannot be written as JSON: {error}") from error
    return text


def _spelled_out(value: Any, path: str) -> Any:
    """The value with large numbers written in the form that JSON needs; `path` is its place."""
    if isinstance(value, dict):
        return {key: _spelled_out(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            where = f" in {path.removeprefix('.')}" if path else ""
            raise JsonError(f"{value} is no number that JSON has{where}: give a finite one")
        return orjson.Fragment(f"{value:.1f}") if "e+" in repr(value) else value
    if isinstance(value, int) and abs(value) > _SAFE:
        return orjson.Fragment(str(value))
    return value
