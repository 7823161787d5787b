"""Arguments are compared with schemas in depth, and in little time whatever the schema is."""

import time
from typing import Any

import pytest

from fractal_models.argument_schemas import Steps, schema_problems


def one(name: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, **more}


CHANNEL = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "index": {"type": "integer"}},
    "required": ["label"],
    "additionalProperties": False,
}
OPTIONAL = {"anyOf": [{"type": "number"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "given", "problem"),
    [
        (one("n", {"minimum": 0}), -1, "n must be at least 0"),
        (one("n", {"exclusiveMaximum": 1}), 1, "n must be less than 1"),
        (one("n", {"enum": ["a", "b"]}), "c", "n must be one of 'a', 'b'"),
        (one("n", {"const": "a"}), "c", "n must be 'a'"),
        (one("n", OPTIONAL), "c", "n must be of type number or null"),
        (one("n", {"type": ["integer", "null"]}), "c", "n must be of type integer or null"),
        (one("n", {"pattern": "^A[0-9]+$"}), "B1", "n must match ^A[0-9]+$"),
        (one("n", {"maxItems": 1}), [1, 2], "n must have at most 1 items"),
        (one("n", {"uniqueItems": True}), [1, 1.0], "n must not have an item twice"),
        (one("n", {"items": {"type": "string"}}), ["a", 1], "n.1 must be of type string"),
        (one("n", CHANNEL), {}, "n.label is required and not set"),
        (one("n", CHANNEL), {"label": "a", "idx": 1}, "n.idx is not known to the task"),
        (one("n", CHANNEL), {"label": "a", "index": "1"}, "n.index must be of type integer"),
        (
            one("n", {"$ref": "#/$defs/Channel"}, **{"$defs": {"Channel": CHANNEL}}),
            {"label": 1},
            "n.label must be of type string",
        ),
        (
            one("n", {"anyOf": [CHANNEL, {"type": "null"}]}),
            {"label": 1},
            "n.label must be of type string",
        ),
        (one("n", {"items": {"minimum": 0}, "type": "made up"}), [-1], "n.0 must be at least 0"),
    ],
)
def test_a_problem_is_told_with_its_place(schema: Any, given: Any, problem: str) -> None:
    assert schema_problems(schema, {"n": given}) == [problem]


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (one("n", OPTIONAL), None),
        (one("n", {"pattern": "[0-9]"}), "A01"),
        (one("n", {"type": "integer"}), 2.0),
        (one("n", {"$ref": "http://example.org/schema.json"}), 1),
        (one("n", {"pattern": "(?=a)"}), "b"),
        (one("zarr_url", {"type": "string"}, required=["zarr_url"]), 1),
    ],
    ids=["null", "somewhere in it", "whole", "elsewhere", "not linear", "given by the job"],
)
def test_what_fits_or_cannot_be_compared_is_no_problem(schema: Any, given: Any) -> None:
    assert schema_problems(schema, {"n": given}) == []


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
A900 = "a" * 900


def _doubling(depth: int) -> dict[str, Any]:
    parts = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(depth)}
    return one("n", {"$ref": "#/$defs/0"}, **{"$defs": {**parts, str(depth): {"minimum": 0}}})


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (one("n", {"$ref": "#/properties/n"}), 1),
        (_doubling(40), -1),
        (one("n", {"pattern": "^(a+)+$"}), "a" * 60 + "!"),
        (one("n", {"uniqueItems": True}), [{"a": n} for n in range(50_000)]),
        (one("n", {"items": {"enum": list(range(50_000))}}), list(range(50_000, 51_000))),
        (one("n", {"allOf": [{"pattern": "^(a|a)*$"}], "$schema": DRAFT_7}), "a" * 30 + "!"),
        (one("n", {"pattern": "(a{1,100}){1,100}b"}), "a" * 20_000),
        (one("n", {"allOf": [{"pattern": "(a{1,99}){1,99}" + "b" * n} for n in range(200)]}), A900),
        (one("n", {"allOf": [{"items": {}}] * 9_000}), [1] * 9_000),
        (one("n", {"allOf": [{"uniqueItems": True}] * 9_000}), list(range(9_000))),
        (one("n", {"enum": [[0] * 3_000 + [n] for n in range(1, 9_000)]}), [0] * 3_001),
        (one("n", {"allOf": [{"minItems": 10_000}] * 9_000}), [0] * 9_000),
        (one("n", {"allOf": [{"type": "number"}] * 9_000}), "a" * 1_000_000),
    ],
    ids=[
        *("refers to itself", "doubles", "expression", "long list", "long enumeration"),
        *("other dialect", "long text", "many expressions", "visited often", "compared often"),
        *("long choices", "told often", "long text told often"),
    ],
)
def test_no_schema_takes_long(schema: Any, given: Any) -> None:
    began = time.process_time()
    schema_problems(schema, {"n": given})
    assert time.process_time() - began < 2


def test_several_comparisons_share_their_steps() -> None:
    steps, schema = Steps(100), one("n", {"items": {"minimum": 0}})

    assert schema_problems(schema, {"n": [-1]}, steps) == ["n.0 must be at least 0"]
    assert schema_problems(schema, {"n": [-1] * 100}, steps) == []
    assert schema_problems(schema, {"n": [-1]}, steps) == []


def test_long_arguments_are_compared() -> None:
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 0}, "uniqueItems": True}
    assert schema_problems(one("n", numbers), {"n": [*range(5_000), -1]}) == [
        "n.5000 must be at least 0"
    ]
