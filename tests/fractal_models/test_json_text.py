"""JSON that is parsed as it arrives is what it is in one go, and so is what is told of errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fractal_models.json_text
from fractal_models.json_text import JsonText, TooLongError

LONGEST = 1000
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.one_of(
    SCALARS,
    st.lists(VALUES, max_size=4),
    st.dictionaries(st.sampled_from(["a", "long", "ß"]), VALUES | st.lists(VALUES, max_size=9)),
)


async def arriving(text: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def read(text: JsonText) -> Any:
    """A value; of an object, the array with the name `long` is read in pieces."""
    if await text.peek() != "{":
        value = await text.value()
    else:
        value = {}
        async for name in text.members():
            if name == "long" and await text.peek() == "[":
                value[name] = [each async for some in text.elements() for each in some]
            else:
                value[name] = await text.value()
    await text.end()
    return value


def outcome(parse: Callable[[], Any]) -> tuple[str, ...]:
    """The value, or what is told of the text, and of which place."""
    try:
        return "value", repr(parse())
    except json.JSONDecodeError as error:
        return "no JSON", error.msg, str(error.pos)
    except (ValueError, RecursionError) as error:
        return (type(error).__name__,)


def in_pieces(text: bytes, size: int) -> tuple[str, ...]:
    return outcome(lambda: asyncio.run(read(JsonText(arriving(text, size), 1 << 20))))


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fractal_models.json_text, "_CHUNK", 8)
        patch.setattr(fractal_models.json_text, "_ELEMENTS", 2)
        yield


@given(DOCUMENTS, st.data())
def test_a_text_and_its_beginnings_are_what_they_are_in_one_go(value: Any, data: Any) -> None:
    indent = data.draw(st.sampled_from([None, 1]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    text = json.dumps(value, indent=indent, ensure_ascii=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(text)))
    size = data.draw(st.integers(1, 20))
    for part in (text, text[:cut], text[:cut] + "!" + text[cut:]):
        encoded = part.encode(encoding, "surrogatepass")
        expected = outcome(lambda encoded=encoded: json.loads(encoded))
        assert in_pieces(encoded, size) == expected, part


@pytest.mark.parametrize(
    "text",
    [
        b'{"long": [10000000000000000000000001, 1.0, 1e25, 1e-7, -0.0, 1e999, NaN, -Infinity]}',
        b'{"long": [1], "a": 2, "long": [3, 4]}',
        b'{"long": ["\\ud800", "\\u00e4", "\xc3\xa4"]}',
        b'{"long": [1] "a"}',
        b'{"long" [1]}',
        b'{"long": [1, , 2]}',
        b'{"a": 1}}',
        b"{} {}",
        b"   ",
        b"\xff\xff",
        b'{"long": ["\xff"]}',
        b'{"long": [' + b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_so_is_what_nobody_sends_by_mistake(text: bytes) -> None:
    assert in_pieces(text, 3) == outcome(lambda: json.loads(text))


@pytest.mark.parametrize("begin", [b'"', b'{"a": "', b'{"long": [{"a": 1}, {"a": "', b'{"'])
async def test_a_value_that_does_not_end_is_not_read_for_ever(begin: bytes) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield begin
        while True:
            taken += 100
            yield b"x" * 100

    with pytest.raises(TooLongError):
        await read(JsonText(endless(), LONGEST))
    assert taken < 2 * LONGEST


@pytest.mark.parametrize("wrong", [b"1x", b'{"a" 1}', b'"\x01"', b'{"a": tru}', b'{"a": 1.}'])
async def test_what_is_wrong_is_told_although_much_follows(wrong: bytes) -> None:
    text = b'{"long": [1, ' + wrong + b"," + b'"0123456789",' * LONGEST
    assert outcome(lambda: json.loads(text)) == await no_json(text)


async def no_json(text: bytes) -> tuple[str, str, str]:
    with pytest.raises(json.JSONDecodeError) as caught:
        await read(JsonText(arriving(text, 100), LONGEST))
    return "no JSON", caught.value.msg, str(caught.value.pos)


async def test_of_a_long_array_only_one_piece_is_kept() -> None:
    text = JsonText(arriving(b"[" + b",".join([b'"0123456789"'] * 10_000) + b"]", 64), LONGEST)
    assert await text.peek() == "["
    async for some in text.elements():
        assert len(some) <= 2
        assert len(text._text) < 2 * LONGEST
