"""What was reserved and used, as a table for programs or for people."""

import csv
import io
from collections.abc import Sequence

from fractal_models.schemas.usage import Usage, UsageBy

_AMOUNTS = [name for name, field in Usage.model_fields.items() if field.is_required()]


def usage_csv(rows: Sequence[Usage], by: Sequence[UsageBy]) -> str:
    """A line of CSV with the names, then one for each row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [*by, *_AMOUNTS]
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    return file.getvalue()


def usage_table(rows: Sequence[Usage], by: Sequence[UsageBy]) -> str:
    """Columns for people, with amounts to three digits; a sentence if there are no rows."""
    if not rows:
        return "Nothing was reserved or used."
    names = [*by, *_AMOUNTS]
    lines = [[name.replace("_", " ") for name in names]]
    lines += [[_read(getattr(row, name)) for name in names] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    texts = len(by)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> object:
    """A value for a spreadsheet, which would take a text that begins like a formula for one."""
    if isinstance(value, str) and value[:1] in "=+-@\t\r":
        return f"'{value}"
    return "" if value is None else value


def _read(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)
