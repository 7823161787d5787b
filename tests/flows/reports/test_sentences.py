import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.reports.sentences import phrase, sentence, words_of
from flows.units.results import DamagedResultsError


@pytest.mark.parametrize(
    ("words", "expected"),
    [("", ""), ("It failed", "It failed."), ("It failed. ", "It failed."), ("Why?", "Why?")],
)
def test_a_sentence_ends_with_one_full_stop(words: str, expected: str) -> None:
    assert sentence(words) == expected
    assert f"It ended: {phrase('it failed.')}." == "It ended: it failed."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "/a"), "No space left on device: '/a'."),
        (OSError(28, "No space left on device"), "No space left on device."),
        (DamagedResultsError("/a is damaged."), "/a is damaged."),
        (ValueError("The folder has no name"), "The folder has no name."),
        (KeyError("well"), "KeyError: 'well'."),
        (TimeoutError(), "TimeoutError."),
        (RuntimeError("one line\nand another"), "RuntimeError: one line."),
    ],
)
def test_an_error_is_told_in_a_sentence(error: Exception, expected: str) -> None:
    assert words_of(error) == expected


async def test_an_error_of_the_database_is_told_without_statement_and_parameters(
    session: AsyncSession,
) -> None:
    with pytest.raises(DBAPIError) as refused:
        await session.execute(
            text("SELECT CAST(:value AS int) / 0, CAST(:list AS text)"),
            {"value": 1, "list": "a long list"},
        )
    assert words_of(refused.value) == "The database did not do what was asked: division by zero."
    assert "a long list" not in str(refused.value)


def test_what_is_wrong_in_a_configuration_is_told_by_its_fields() -> None:
    class Config(BaseModel):
        size: int

    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"size": "large"})
    assert words_of(refused.value).startswith("size: Input should be a valid integer")
