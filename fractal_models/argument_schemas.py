"""Compares arguments with the JSON schema that a task comes with.

Schemas and arguments come from users, so what is read of a schema is limited: no schema is fetched
from elsewhere, a regular expression that could take exponential time is not matched, and whatever
the schema calls its dialect, nothing but the keywords below is read. Each keyword takes steps, as
many as the values that it looks at; when all steps are taken, the comparison is given up. What
cannot be read of a schema is not compared.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from jsonschema import Draft202012Validator, ValidationError, validators
from pydantic import StringConstraints, TypeAdapter
from pydantic import ValidationError as NoMatch
from pydantic_core import SchemaError
from referencing import Registry

from fractal_models.images import identity
from fractal_models.schemas.workflow import RESERVED_ARGUMENTS

NOT_SET = "is required and not set"

_MOST_STEPS = 50_000  # some tenths of a second
_STEPS_PER_SECOND = 100_000
_VALUES_PER_STEP = 10  # which are only compared or written; a hundred characters are such a value
_LONGEST_MATCHED = 1000
_MOST_TOLD = 20
_LONGEST_TOLD = 80

_Keyword = Callable[[Any, Any, Any, Any], Any]


class _TooLongError(Exception):
    """Comparing arguments with a schema takes too many steps."""


@dataclass
class Steps:
    """How many steps may still be taken to compare arguments, of one workflow, say."""

    left: int = _MOST_STEPS

    def take(self, number: int) -> None:
        """Take steps, or raise _TooLongError."""
        self.left -= number
        if self.left < 0:
            raise _TooLongError


_steps: ContextVar[Steps] = ContextVar("_steps")


def _required(validator: Any, names: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict) and isinstance(names, list):
        for name in names:
            if isinstance(name, str) and name not in instance:
                yield ValidationError(NOT_SET, path=[name])


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
    if not isinstance(pattern, str) or not isinstance(instance, str):
        return
    if max(len(pattern), len(instance)) > _LONGEST_MATCHED:
        return
    began = time.thread_time()  # it grows with the text times what the expression repeats
    matching = _matching(pattern)
    try:
        if matching is not None:
            matching.validate_python(instance)
    except NoMatch:
        yield ValidationError(f"must match {pattern}")
    finally:
        _steps.get().take(round((time.thread_time() - began) * _STEPS_PER_SECOND))


@lru_cache(maxsize=256)
def _matching(pattern: str) -> TypeAdapter[str] | None:
    """What a text must match; None for an expression that only backtracking can match."""
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        return None


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    is_list = wanted is True and isinstance(instance, list)
    if is_list and len(set(map(identity, instance))) < len(instance):
        yield ValidationError("must not have an item twice")


def _evolve(validator: Any, **changes: Any) -> Any:
    """This validator, for a part of the schema, whatever dialect that says it is in.

    The one of jsonschema goes on with that dialect's validator, which is not limited.
    """
    kind = type(validator)
    fields = [field for field in kind.__attrs_attrs__ if field.init]
    return kind(**{field.alias: getattr(validator, field.name) for field in fields} | changes)


def _number_of_steps(name: str, value: Any, instance: Any) -> int:
    """How long it takes to check a keyword, without the keywords in it.

    That it fails is told with all of the instance, and of some keywords with all of their value.
    """
    of_instance = _size(instance) // _VALUES_PER_STEP
    if name in _VISITING and isinstance(instance, dict | list):
        of_instance += len(instance)
    number = len(value) if isinstance(value, dict | list) else 1
    told = _size(value) // _VALUES_PER_STEP if name in _TOLD_WHOLE else 0
    return 1 + number + told + of_instance * (number if name == "enum" else 1)


def _size(value: Any) -> int:
    """How many values there are in one, at any depth; few more than can be afforded are counted."""
    size, left = 0, [value]
    while left and size <= _MOST_STEPS * _VALUES_PER_STEP:
        each = left.pop()
        size += 1
        if isinstance(each, str):
            size += len(each) // 100
        elif isinstance(each, dict):
            left += each.values()
            size += sum(map(len, each)) // 100
        elif isinstance(each, list):
            left += each
    return size


def _limited(name: str, keyword: _Keyword) -> _Keyword:
    """Check a keyword, if it can be read, within the steps that are left."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> list[ValidationError]:
        found: list[ValidationError] = []
        _steps.get().take(_number_of_steps(name, value, instance))
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
_VISITING = {"items", "prefixItems", "additionalProperties", "uniqueItems"}
_TOLD_WHOLE = {"$ref", "enum", "const", "not", "oneOf", "pattern"}
_Validator = validators.create(
    meta_schema={},
    validators={name: _limited(name, keyword) for name, keyword in _KEYWORDS.items()},
    type_checker=Draft202012Validator.TYPE_CHECKER,
)
_Validator.evolve = _evolve
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


def schema_problems(
    schema: Mapping[str, Any], given: Mapping[str, Any], steps: Steps | None = None
) -> list[str]:
    """Where arguments do not fit a schema, as phrases like 'channel.level must be at least 0'.

    There are none if that takes more than these steps, which are taken from `steps`.
    """
    _steps.set(Steps() if steps is None else steps)
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
