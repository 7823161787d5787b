"""Usage as text: for spreadsheets exact, for people short."""

import pytest

from flows.reports.usage import usage_csv, usage_table
from fractal_models.schemas.usage import Usage


def a_row(user: str | None, cpu_hours: float) -> Usage:
    return Usage(
        user=user,
        num_jobs=3,
        num_units=1200,
        runner_hours=0.123456,
        cpu_hours_reserved=cpu_hours,
        cpu_hours_used=cpu_hours / 3,
        gb_hours_reserved=0.0,
        gb_hours_used=0.0,
        gpu_hours_reserved=0.0,
    )


@pytest.mark.parametrize(
    ("user", "cell"), [(None, ""), ("me", "me"), ("=SUM(A1)", "'=SUM(A1)"), ("a,b", '"a,b"')]
)
def test_csv_has_whole_numbers_and_no_formulas(user: str | None, cell: str) -> None:
    head, row = usage_csv([a_row(user, 1.5)], ["user"]).splitlines()
    assert head.startswith("user,num_jobs,num_units,runner_hours,cpu_hours_reserved,")
    assert row.startswith(f"{cell},3,1200,0.123456,1.5,0.5,")


def test_people_read_columns_with_few_digits() -> None:
    lines = usage_table([a_row("me@example.org", 12345.678), a_row(None, 0.01)], ["user"])
    head, first, second = lines.splitlines()
    assert head.startswith("user            num jobs  num units  runner hours  cpu hours reserved")
    assert first.split() == ["me@example.org", "3", "1200", "0.123", "12346", "4115", "0", "0", "0"]
    assert second.split()[0] == "-"


def test_nothing_is_told_as_nothing() -> None:
    assert usage_table([], ["user", "month"]) == "Nothing was reserved or used."
