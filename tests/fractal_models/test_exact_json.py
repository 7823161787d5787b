"""Numbers in JSON are kept as they came, also by PostgreSQL."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import StatementError
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.exact_json import JsonError, dumps, loads
from tests import night

# PostgreSQL takes no NUL character in a text, and knows no negative zero.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    FLOATS,
    TEXTS,
    st.sampled_from(["1e+16", "NaN", "Infinity", 10**25, 1e16, 1e25, 1.0, 2**63, -(2**63), 2**64]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
_ECHO = text("SELECT :value AS value").bindparams(bindparam("value", type_=JSONB))
_ECHO = _ECHO.columns(value=JSONB)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    written = dumps(value)
    assert repr(loads(written)) == repr(value)
    assert repr(json.loads(written)) == repr(value)  # as tasks and clients read it
    assert repr(loads(written.decode())) == repr(value)


@hypothesis_settings(
    deadline=None,
    max_examples=night.examples(200, 2000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(VALUES)
async def test_what_is_stored_is_read_again(session: AsyncSession, value: Any) -> None:
    stored = (await session.execute(_ECHO, {"value": {"a": value}})).scalar_one()
    assert _sorted(stored["a"]) == _sorted(value)


def _sorted(value: Any) -> str:
    """As JSONB has it: keys in an order of its own."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_what_is_no_number_is_refused_and_not_stored_as_null(
    session: AsyncSession, value: float
) -> None:
    with pytest.raises(JsonError, match=r"is no number that JSON has in a\[1\]\.b: give a finite"):
        dumps({"a": [1, {"b": value}]})
    with pytest.raises(StatementError, match="is no number that JSON has"):
        await session.execute(_ECHO, {"value": value})


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "", "{", '"\\ud800"'])
def test_a_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(JsonError, match="No JSON: "):
        loads(text)


def test_a_number_beyond_all_others_is_not_stored() -> None:
    with pytest.raises(JsonError, match="inf is no number"):
        dumps(loads('{"a": 1e999}'))


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, object(), {"a": [object(), 1e16]}])
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(JsonError, match="This cannot be written as JSON: "):
        dumps(value)


@pytest.mark.parametrize("large", [0, 1e16])
def test_some_other_things_are_written_as_texts(large: float) -> None:
    """Whether or not there are numbers that have to be spelled out."""
    value = [datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), {1: (2,)}, large]
    read = loads(dumps(value))
    assert datetime.fromisoformat(read[0]) == value[0]
    assert read[1:3] == ["00000000-0000-0000-0000-000000000001", {"1": [2]}]
