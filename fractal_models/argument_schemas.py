"""Compares arguments with the JSON schema that a task comes with.

Schemas and arguments come from users, so what is read of a schema is limited to what takes no more
time than the two are long: no schema is fetched from elsewhere, a regular expression is matched in
linear time, and a schema that refers to itself without end is given up. What cannot be read of a
schema is not compared.
"""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Annotated, Any

from jsonschema import Draft202012Validator, ValidationError, validators
from pydantic import StringConstraints, TypeAdapter
from pydantic import ValidationError as NoMatch
from pydantic_core import SchemaError
from referencing import Registry

from fractal_models.images import identity
from fractal_models.schemas.workflow import RESERVED_ARGUMENTS

_MOST_STEPS = 50_000  # some tenths of a second
_MOST_TOLD = 20
_LONGEST_TOLD = 80

_Keyword = Callable[[Any, Any, Any, Any], Any]
_steps: ContextVar[Iterator[int]] = ContextVar("_steps")


class _TooLongError(Exception):
    """Comparing arguments with a schema takes too many steps."""


def _required(validator: Any, names: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict) and isinstance(names, list):
        for name in names:
            if isinstance(name, str) and name not in instance:
                yield ValidationError("is required and not set", path=[name])


def _additional(
    validator: Any, allowed: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict) or "patternProperties" in schema:
        return
    known = schema.get("properties")
    for name in [name for name in instance if not isinstance(known, dict) or name not in known]:
        if allowed is False:
            yield ValidationError("is not known to the task", path=[name])
        else:
            yield from validator.descend(instance[name], allowed, path=name)


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    matching = _matching(pattern) if isinstance(pattern, str) else None
    if matching is not None and isinstance(instance, str):
        try:
            matching.validate_python(instance)
        except NoMatch:
            yield ValidationError(f"must match {pattern}")


@lru_cache(maxsize=256)
def _matching(pattern: str) -> TypeAdapter[str] | None:
    """What a text must match; None for an expression that cannot be matched in linear time."""
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        return None


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    is_list = wanted is True and isinstance(instance, list)
    if is_list and len(set(map(identity, instance))) < len(instance):
        yield ValidationError("must not have an item twice")


def _limited(keyword: _Keyword) -> _Keyword:
    """Check a keyword, if it can be read, within the steps that are left."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> list[ValidationError]:
        found: list[ValidationError] = []
        for _ in range(len(value) if isinstance(value, list) else 1):
            if next(_steps.get(), None) is None:
                raise _TooLongError
        try:
            for error in keyword(validator, value, instance, schema) or ():
                found.append(error)
        except (_TooLongError, RecursionError):
            raise
        except Exception:  # whatever a schema that is none leads to
            return found
        return found

    return check


_AS_THEY_ARE = (
    *("$ref", "allOf", "anyOf", "oneOf", "not", "if", "type", "enum", "const", "properties"),
    *("items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "minProperties"),
    *("maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
_KEYWORDS = {name: Draft202012Validator.VALIDATORS[name] for name in _AS_THEY_ARE} | {
    "required": _required,
    "additionalProperties": _additional,
    "pattern": _pattern,
    "uniqueItems": _unique,
}
_Validator = validators.create(
    meta_schema={},
    validators={name: _limited(keyword) for name, keyword in _KEYWORDS.items()},
    type_checker=Draft202012Validator.TYPE_CHECKER,
)
_NOWHERE_ELSE: Registry[Any] = Registry()

_TOLD = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} fields",
    "maxProperties": "must have at most {} fields",
    "const": "must be {!r}",
}


def schema_problems(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Where arguments do not fit a schema, as phrases like 'channel.level must be at least 0'."""
    _steps.set(iter(range(_MOST_STEPS)))
    try:
        errors = _Validator(schema, registry=_NOWHERE_ELSE).iter_errors(dict(given))
        problems = dict.fromkeys(
            _phrase(error) for error in errors if _names_argument_of_users(error)
        )
    except (_TooLongError, RecursionError, AttributeError):
        return []
    return list(problems)[:_MOST_TOLD]


def _names_argument_of_users(error: ValidationError) -> bool:
    """Whether a problem is not about what a job gives to each unit."""
    return not error.path or error.path[0] not in RESERVED_ARGUMENTS


def _phrase(error: ValidationError) -> str:
    path, told = _closest(error)
    return f"{'.'.join(map(str, path))} {told}".strip()


def _closest(error: ValidationError) -> tuple[list[Any], str]:
    """Where the problem is, and what it is: of alternatives, that of the one that fits best."""
    path = list(error.absolute_path)
    if not error.context:
        return path, _told(error)
    if all(not each.relative_path and each.validator == "type" for each in error.context):
        return path, f"must be of type {_listed(each.validator_value for each in error.context)}"
    nearest = max(error.context, key=lambda each: len(each.relative_path))
    return _closest(nearest)


def _told(error: ValidationError) -> str:
    keyword, value = error.validator, error.validator_value
    if keyword == "type":
        return f"must be of type {_listed(value if isinstance(value, list) else [value])}"
    if keyword == "enum":
        return _short(f"must be one of {', '.join(map(repr, value))}")
    if keyword in _TOLD:
        return _short(_TOLD[keyword].format(value))
    return _short(error.message) if keyword in _OWN else "does not fit its schema"


_OWN = {"required", "additionalProperties", "pattern", "uniqueItems"}


def _listed(names: Any) -> str:
    return " or ".join(dict.fromkeys(map(str, names)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]} ..."
