"""The results of a batch: `results.jsonl`, one line per finished unit.

`unit_runner.py` writes it, and its docstring describes the format.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from flows.programs import unit_runner
from flows.reports.text import printable
from flows.units.batch import DamagedFileError, lost_file, units_of_batch
from flows.units.left_files import open_left

RESULTS_FILE = "results.jsonl"

_READ_AT_ONCE = 256 * 1024  # some thousand results, parsed in a few milliseconds; no line is longer
_YEAR_3000 = 32_503_680_000.0  # in seconds since the epoch


class DamagedResultsError(DamagedFileError):
    """A `results.jsonl` has a line that a unit runner of this version does not write."""


@dataclass(frozen=True)
class UnitResult:
    """How a unit ended.

    Either `exit_code` or `signal` is set. `error` says what these two do not: that the unit was
    stopped, or why it could not be started. `max_rss_kb` is in KiB, `cpu_seconds` is user plus
    system time; both include the descendants for which the unit waited.
    """

    index: int
    exit_code: int | None
    signal: int | None
    error: str | None
    started_at: datetime
    ended_at: datetime
    max_rss_kb: int
    cpu_seconds: float
    host: str
    has_output: bool
    has_warnings: bool

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and self.error is None


class Imports(BaseModel):
    """What the imports of the units of a batch took, which were made once, for so many units.

    Or why each unit, or each of the last ones, made them for itself.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    seconds: Annotated[float, Field(ge=0, le=1e9)]
    units: Annotated[int, Field(ge=0, lt=2**31)]
    why_cold: Annotated[str, Field(max_length=1000), AfterValidator(printable)] | None


class _ResultLine(BaseModel):
    """A line of results about a unit. Units can write such lines too, so every value is checked."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    index: NonNegativeInt
    exit_code: Annotated[int, Field(ge=0, le=255)] | None
    signal: Annotated[int, Field(ge=1, le=255)] | None
    error: Annotated[str, Field(max_length=10_000)] | None
    started_at: Annotated[float, Field(ge=0, le=_YEAR_3000)]
    ended_at: Annotated[float, Field(ge=0, le=_YEAR_3000)]
    max_rss_kb: Annotated[int, Field(ge=0, lt=2**62)]
    cpu_seconds: Annotated[float, Field(ge=0, le=1e12)]
    host: Annotated[str, Field(max_length=255)]
    has_output: bool
    has_warnings: bool

    def result(self) -> UnitResult:
        """The result, with texts that can be stored and shown anywhere."""
        return UnitResult(
            index=self.index,
            exit_code=self.exit_code,
            signal=self.signal,
            error=None if self.error is None else printable(self.error),
            started_at=datetime.fromtimestamp(self.started_at, UTC),
            ended_at=datetime.fromtimestamp(self.ended_at, UTC),
            max_rss_kb=self.max_rss_kb,
            cpu_seconds=self.cpu_seconds,
            host=printable(self.host),
            has_output=self.has_output,
            has_warnings=self.has_warnings,
        )


class ResultsReader:
    """Reads a `results.jsonl` while it grows, each complete line once.

    With `indexes`, a result of a unit whose index is not among them is an error. `ended` is true
    when the latest runner on the batch has come to its end, `stopped` when it was told to stop.
    `time_was_up` when it ended early because it was told that its time was up. `runs_on` is the
    host of the latest runner; it is None once a line says that the runner and its units have ended.
    `imports` is what this line says of the imports, if it does.
    """

    def __init__(self, path: Path, indexes: Iterable[int] | None = None) -> None:
        self.path = path
        self._indexes = None if indexes is None else frozenset(indexes)
        self.ended = False
        self.stopped = False
        self.time_was_up = False
        self.runs_on: str | None = None
        self.imports: Imports | None = None
        self._offset = 0
        self._line_number = 0

    def read(self) -> list[UnitResult]:
        """The results in the next complete lines, at most 256 KiB of them; empty if nothing is new.

        A last line without newline is left for later: either it is still being written, or a crash
        cut it. Raises DamagedResultsError, naming file and line, if another line is not a result,
        and if the file was removed or cut.
        """
        try:
            with open_left(self.path, below=self.path.parent) as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    raise DamagedResultsError(lost_file(self.path))
                file.seek(self._offset)
                chunk = file.read(_READ_AT_ONCE)
        except FileNotFoundError:
            if self._offset:
                raise DamagedResultsError(lost_file(self.path)) from None
            return []
        whole = chunk[: chunk.rfind(b"\n") + 1]
        if not whole and len(chunk) == _READ_AT_ONCE:
            whole = chunk  # a line that is too long to be a result
        results = [result for line in whole.splitlines() if (result := self._parse(line))]
        self._offset += len(whole)
        return results

    def _parse(self, line: bytes) -> UnitResult | None:
        self._line_number += 1
        try:
            content = json.loads(line)
            if "format" in content:
                self._begin(content["format"])
                self.runs_on = _host_of(content)
                return None
            if "killed" in content:
                self.runs_on = None
                self.time_was_up = bool(content.get("time_was_up"))
                return None
            if "end" in content:
                self.runs_on = None
                self.ended, self.stopped = True, bool(content["stopped"])
                if "warm" in content:
                    self.imports = Imports.model_validate(content["warm"])
                return None
            result = _ResultLine.model_validate(content).result()
            if self._indexes is not None and result.index not in self._indexes:
                raise ValueError(f"unit {result.index} is not in the batch")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise self._damaged(line, why) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(line, repr(error)) from error
        return result

    def _damaged(self, line: bytes, why: str) -> DamagedResultsError:
        return DamagedResultsError(
            f"{self.path}, line {self._line_number} is not a result of the unit runner "
            f"({why}): {line[:200]!r}. Submit the job again: this one cannot go on."
        )

    def _begin(self, found: object) -> None:
        self.ended = self.stopped = self.time_was_up = False
        try:
            unit_runner.check_format(str(self.path), found)
        except ValueError as error:
            raise DamagedResultsError(str(error)) from error


def results_of(folder: Path) -> Iterator[list[UnitResult]]:
    """All results of a batch, also of the parts into which it was split.

    Raises:
        DamagedBatchError: its `batch.json` cannot be read.
        DamagedResultsError: a line of a results file is not a result.
    """
    indexes = units_of_batch(folder)
    for path in results_files(folder):
        reader = ResultsReader(path, indexes)
        while results := reader.read():
            yield results


def results_files(folder: Path) -> list[Path]:
    """Where the results of a batch are, and of the parts into which it was split."""
    return [folder / RESULTS_FILE, *sorted(folder.glob(f"*/{RESULTS_FILE}"))]


def _host_of(head: Mapping[str, object]) -> str | None:
    """The host in a runner's first line."""
    host = head.get("host")
    return printable(host[:255]) if isinstance(host, str) else None
