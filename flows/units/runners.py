"""The runners that worked on a job's batches: where and when, what they had, what units used.

They are read from the results files of a job when it ends; `unit_runner.py` describes the format.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flows.reports.text import printable
from flows.units.job_folder import JobFolder
from flows.units.left_files import open_left
from flows.units.results import Imports, results_files

_LONGEST_LINE = 256 * 1024  # bytes, as a reader of results accepts them
# Of one file, whatever units have made of it.
_MOST_BYTES, _MOST_RUNNERS = 512 << 20, 1000
_Seconds = Annotated[float, Field(ge=0, le=32_503_680_000.0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_LENIENT = ConfigDict(extra="ignore", frozen=True)


class Reserved(BaseModel):
    """What SLURM reserved for a runner, on all nodes; `mem_mb` in MiB, `since` since the epoch."""

    model_config = _LENIENT

    job: Annotated[str, Field(max_length=100), AfterValidator(printable)]
    cpus: _Count | None = None
    mem_mb: _Count | None = None
    gpus: _Count | None = None
    since: _Seconds | None = None


class _Begin(BaseModel):
    model_config = _LENIENT

    host: Annotated[str, Field(max_length=255)]
    started_at: _Seconds
    at_once: _Count | None = None
    slurm: Reserved | None = None


class _Used(BaseModel):
    """What a result says of what its unit used."""

    model_config = _LENIENT

    index: int
    started_at: _Seconds
    ended_at: _Seconds
    max_rss_kb: Annotated[int, Field(ge=0, lt=2**40)]
    cpu_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


_SECONDS: TypeAdapter[float] = TypeAdapter(_Seconds)


@dataclass
class Runner:
    """One runner and what the units used whose results it wrote.

    `batch` is the folder of its results within the job's, `number` counts the runners that worked
    there one after the other, `at_once` is how many units it could run at once, if it tells.
    `reserved` is None where nothing was, as on this machine.
    `gb_seconds` is the sum of each unit's peak memory (GiB) times its seconds.
    """

    batch: str
    number: int
    host: str
    started_at: datetime
    ended_at: datetime
    at_once: int | None = None
    reserved: Reserved | None = None
    num_units: int = 0
    cpu_seconds: float = 0.0
    gb_seconds: float = 0.0
    imports: Imports | None = field(default=None, repr=False)

    def ended_not_before(self, seconds: float) -> None:
        self.ended_at = max(self.ended_at, _time(seconds))


def runners_of(folder: JobFolder) -> list[Runner]:
    """All runners of a job, as far as its files tell. What is no line of a runner is left out."""
    return [
        runner
        for batch in folder.batches()
        for path in results_files(batch)
        for runner in _read(path, _name(path.parent.relative_to(folder.path)))
    ]


def _name(folder: Path) -> str:
    return printable(os.fsencode(folder).decode(errors="replace"))


def _read(path: Path, batch: str) -> list[Runner]:
    runners: list[Runner] = []
    with suppress(OSError):
        for line in _lines(path):
            with suppress(ValueError, TypeError, LookupError, RecursionError):  # who wrote it, ever
                _take(json.loads(line), batch, runners)
    return runners


def _lines(path: Path) -> Iterator[bytes]:
    with open_left(path, below=path.parent) as file:
        while file.tell() < _MOST_BYTES and (line := file.readline(_LONGEST_LINE)):
            if len(line) == _LONGEST_LINE:
                return  # this is no file of results any more
            yield line


def _take(line: dict[str, Any], batch: str, runners: list[Runner]) -> None:
    """Add what a line says to the runner that wrote it, which is the latest.

    Raises:
        ValueError, TypeError, LookupError: it is no line of a runner.
    """
    if "format" in line:
        if len(runners) == _MOST_RUNNERS:
            raise ValueError("too many runners")
        begin = _Begin.model_validate(line)
        since = begin.slurm.since if begin.slurm is not None else None
        started = _time(min(begin.started_at, since or begin.started_at))
        end = _time(begin.started_at)
        host, number = printable(begin.host), len(runners)
        runners.append(Runner(batch, number, host, started, end, begin.at_once, begin.slurm))
    elif "index" in line:
        used, runner = _Used.model_validate(line), runners[-1]
        runner.num_units += 1
        runner.cpu_seconds += used.cpu_seconds
        seconds = max(used.ended_at - used.started_at, 0.0)
        runner.gb_seconds += used.max_rss_kb / (1 << 20) * seconds
        runner.ended_not_before(used.ended_at)
    elif "killed" in line:
        runners[-1].ended_not_before(_SECONDS.validate_python(line["at"]))
    else:
        runners[-1].ended_not_before(_SECONDS.validate_python(line["ended_at"]))
        with suppress(ValidationError):
            runners[-1].imports = Imports.model_validate(line["warm"])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
