"""A batch of units, its results, and the protocol of the launchers.

A batch is a folder: `batch.json` goes in, `results.jsonl` comes out, one line per finished unit,
both written and read by `flows/unit_runner.py` (whose docstring is the description of the two
formats) on the other side.
"""

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from flows import unit_runner
from flows.last_words import printable
from flows.left_files import open_left, read_left
from fractal_models.errors import FractalError
from fractal_models.private_files import open_private

BATCH_FILE = "batch.json"
RESULTS_FILE = "results.jsonl"

_READ_AT_ONCE = 256 * 1024  # some thousand results, parsed in a few milliseconds; no line is longer
_YEAR_3000 = 32_503_680_000.0  # in seconds since the epoch
_LARGEST_BATCH = 1 << 30  # bytes; 100,000 units need some hundred MiB at most


@dataclass(frozen=True)
class BatchUnit:
    """One execution of the command; its index and its name, which begins its files, are unique."""

    index: int
    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Units of one command that are executed together, in `folder`, `max_parallel` at once.

    A unit's arguments are `common_args` overridden by its own. Its files are
    `<name>.args.json`, `<name>.out.json` and `<name>.log` in `units_dir`. `env` is added to the
    environment of the runner; without `cwd` units run in a folder `work` in `folder`. A unit that
    is stopped gets SIGTERM, and SIGKILL `grace_seconds` later. When units that have run run again,
    as the next `attempt`, their logs are kept as `<name>.attempt-<n>.log`. `meta` is what their
    task says of the resources that they need; a launcher on a cluster decides by it how many run
    at once.
    """

    folder: Path
    units_dir: Path
    command: tuple[str, ...]
    common_args: Mapping[str, Any]
    units: Sequence[BatchUnit]
    max_parallel: int
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    grace_seconds: float = 5.0
    attempt: int = 1
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError(f"The batch {self.folder} has no command.")
        if self.max_parallel < 1:
            raise ValueError(
                f"The batch {self.folder} would run {self.max_parallel} units at once; "
                "max_parallel must be at least 1."
            )
        if self.attempt < 1:
            raise ValueError(f"The batch {self.folder} is attempt {self.attempt}; the first is 1.")
        for what, values in (
            ("index", [unit.index for unit in self.units]),
            ("name", [unit.name for unit in self.units]),
        ):
            value, count = next(iter(Counter(values).most_common(1)), (None, 0))
            if count > 1:
                raise ValueError(
                    f"The batch {self.folder} has {count} units with the {what} {value!r}."
                )


class DamagedFileError(FractalError):
    """A file of a batch is not what it should be, so the batch cannot be gone on with."""


class DamagedBatchError(DamagedFileError):
    """A `batch.json` cannot be read, or is that of another batch."""


class DamagedResultsError(DamagedFileError):
    """A `results.jsonl` has a line that is not what a unit runner of this version writes."""


class ForeignBatchError(FractalError):
    """A batch was begun on another host, where its units may still run."""


def write_batch(batch: Batch) -> None:
    """Make the batch's folders and its `batch.json`, which is whole as soon as it is there.

    A batch that was begun keeps its `batch.json`, brought up to date. Raises DamagedBatchError if
    that is not of the same batch, OSError, which names the file, if it cannot be written.
    """
    path = batch.folder / BATCH_FILE
    content = _content(batch)
    begun = _read_content(path)
    if begun is not None:
        _check_same(path, begun, content)
    require_not_lost(batch, path)
    batch.folder.mkdir(parents=True, exist_ok=True)
    batch.units_dir.mkdir(parents=True, exist_ok=True)
    if begun != content:
        write_whole(path, json.dumps(content).encode())


def require_not_lost(batch: Batch, path: Path) -> None:
    """Raise DamagedBatchError if units have run, but a file that was there before is not there.

    What ended of them is not known, and units that have ended must not run again.
    """
    if path.exists():
        return
    of_units = f".attempt-{batch.attempt - 1}.log" if batch.attempt > 1 else ".args.json"
    with contextlib.suppress(FileNotFoundError):
        left = {path.name for path in batch.units_dir.iterdir()}
        if any(f"{unit.name}{of_units}" in left for unit in batch.units):
            raise DamagedBatchError(_lost(path))


def _lost(path: Path) -> str:
    return (
        f"{path} was removed or cut while units ran: what became of the units is not known, and "
        "they are not run again. Submit the job again."
    )


def batch_file(batch: Batch) -> bytes:
    """What a `batch.json` says of a batch."""
    return json.dumps(_content(batch)).encode()


@dataclass(frozen=True)
class BegunBatch:
    """What a `batch.json` tells: the names of units by their indexes, and which attempt it is."""

    names: Mapping[int, str]
    attempt: int


def begun_batch(folder: Path) -> BegunBatch | None:
    """The batch in a folder; None if there is none yet.

    Raises:
        DamagedBatchError: its `batch.json` cannot be read.
    """
    content = _read_content(folder / BATCH_FILE)
    if content is None:
        return None
    names = {unit["index"]: unit["name"] for unit in content["units"]}
    return BegunBatch(names, content.get("attempt", 1))


def units_of_batch(folder: Path) -> set[int] | None:
    """The indexes of the units of the batch in a folder; None if there is none yet.

    Raises:
        DamagedBatchError: its `batch.json` cannot be read.
    """
    begun = begun_batch(folder)
    return None if begun is None else set(begun.names)


def _content(batch: Batch) -> dict[str, Any]:
    content = {
        "format": unit_runner.FORMAT,
        "command": batch.command,
        "max_parallel": batch.max_parallel,
        "args": batch.common_args,
        "units": [{"index": u.index, "name": u.name, "args": u.args} for u in batch.units],
        "units_dir": str(batch.units_dir.absolute()),
        "cwd": None if batch.cwd is None else str(batch.cwd.absolute()),
        "env": batch.env,
        "grace_seconds": batch.grace_seconds,
        "attempt": batch.attempt,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(content))
    return as_read


def _read_content(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_left(path, _LARGEST_BATCH, below=path.parent))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedBatchError(
            f"{path} is damaged: {error}. Submit the job again: this one cannot go on."
        ) from error
    if not isinstance(content, dict):
        raise DamagedBatchError(
            f"{path} is damaged: it holds no object. Submit the job again: this one cannot go on."
        )
    try:
        unit_runner.check_format(str(path), content.get("format"))
    except ValueError as error:
        raise DamagedBatchError(str(error)) from error
    return content


def _check_same(path: Path, begun: dict[str, Any], content: dict[str, Any]) -> None:
    optional = {"cwd", "env", "grace_seconds", "attempt"} - set(begun)
    differing = [
        key
        for key in content.keys() - {"format", "max_parallel"} - optional
        if key not in begun or begun[key] != content[key]
    ]
    if differing:
        raise DamagedBatchError(
            f"{path} does not match the job (in: {', '.join(sorted(differing))}): the dataset or "
            "arguments have changed since it was written. Submit the job again."
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a private file which is whole as soon as it is there. An OSError names the file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        with naming(partial):
            partial.unlink(missing_ok=True)
            with open_private(partial, "xb") as file:
                file.write(content)
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as one of writing, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


@dataclass(frozen=True)
class UnitResult:
    """How a unit ended.

    Either `exit_code` or `signal` is set. `error` says what these two do not: that the unit was
    stopped, or why it could not be started. `max_rss_kb` is in KiB, `cpu_seconds` is user and
    system time; both are of the unit with the descendants it waited for.
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


class _ResultLine(BaseModel):
    """A line of results about a unit. Units can write it too, so nothing in it is believed."""

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
        """It, with texts that can be stored and shown anywhere."""
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
    """Reads a `results.jsonl` while it grows, each whole line once.

    With `indexes`, a result of a unit that is not among these is none.
    `ended` says that the latest runner on the batch came to its end, `stopped` that it was told to.
    `runs_on` is the host of the latest runner, unless that has said that it and its units ended.
    """

    def __init__(self, path: Path, indexes: Iterable[int] | None = None) -> None:
        self.path = path
        self._indexes = None if indexes is None else frozenset(indexes)
        self.ended = False
        self.stopped = False
        self.runs_on: str | None = None
        self._offset = 0
        self._line_number = 0

    def read(self) -> list[UnitResult]:
        """The results in the next whole lines, at most 256 KiB of them; none if nothing is new.

        A last line without newline is left for later: it is still being written, or was cut by a
        crash. Raises DamagedResultsError, naming file and line, on another line that is no result,
        and if the file was removed or cut.
        """
        try:
            with open_left(self.path, below=self.path.parent) as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    raise DamagedResultsError(_lost(self.path))
                file.seek(self._offset)
                chunk = file.read(_READ_AT_ONCE)
        except FileNotFoundError:
            if self._offset:
                raise DamagedResultsError(_lost(self.path)) from None
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
                return None
            if "end" in content:
                self.runs_on = None
                self.ended, self.stopped = True, bool(content["stopped"])
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
        self.ended = self.stopped = False
        try:
            unit_runner.check_format(str(self.path), found)
        except ValueError as error:
            raise DamagedResultsError(str(error)) from error


def results_of(folder: Path) -> Iterator[list[UnitResult]]:
    """All results of a batch, or of the parts into which it was split.

    Raises:
        DamagedBatchError: its `batch.json` cannot be read.
        DamagedResultsError: a file of results has a line that is none.
    """
    indexes = units_of_batch(folder)
    for path in (folder / RESULTS_FILE, *sorted(folder.glob(f"*/{RESULTS_FILE}"))):
        reader = ResultsReader(path, indexes)
        while results := reader.read():
            yield results


def _host_of(head: Mapping[str, object]) -> str | None:
    """The host that a runner names when it begins."""
    host = head.get("host")
    return printable(host[:255]) if isinstance(host, str) else None


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ended.

    `missing` are the indexes of the units that have no result, in the order of the batch: they were
    not started because the batch was `stopped`, or they were lost with their runner, whose last
    words are in `stderr`; if it left none, that says how it ended. Those that have one of the
    `reasons` are not to be launched again.
    """

    missing: tuple[int, ...]
    stopped: bool
    stderr: str
    reasons: Mapping[int, str] = field(default_factory=dict)


OnResults = Callable[[list[UnitResult]], Awaitable[None]]


class Launcher(Protocol):
    """Runs batches somewhere. What it starts lives on when the process of the launcher dies."""

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """Run a batch to its end and hand over its results as they come.

        A batch that was begun before (by a process that is gone) is gone on with: it is followed
        if its runner lives, else the units without a result are run; all its results, those of
        before included, are handed over, so `on_results` must bear to see a result again. One that
        was stopped is not gone on with.

        If the awaiting task is cancelled, the batch is stopped and its last results are handed
        over before CancelledError goes on. Any other exception, also one of `on_results`, leaves
        the batch running.
        """
        ...

    def how(self, batch: Batch) -> str:
        """How and where it would run a batch, as a phrase.

        Raises:
            ValueError: it cannot; `run` would raise the same.
        """
        ...

    def memory_of(self, batch: Batch) -> int | None:
        """How much memory (MiB) it asks for each unit of a batch; None if it asks nobody.

        Raises:
            ValueError: as `how`.
        """
        ...

    async def stop(self, folder: Path) -> None:
        """Stop the batch in `folder`, if it is running, and return when it has ended.

        Whoever awaits its `run`, here or in another process, gets its end.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. What was launched goes on."""
        ...
