"""A batch of units: a folder with a `batch.json`, which `unit_runner.py` reads.

The docstring of `unit_runner.py` describes the file formats.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.programs import unit_runner
from flows.units.files import write_whole
from flows.units.left_files import read_left
from fractal_models.errors import FractalError

BATCH_FILE = "batch.json"
_LARGEST_BATCH = 1 << 30  # bytes; 100,000 units need some hundred MiB at most


@dataclass(frozen=True)
class BatchUnit:
    """One execution of the command. Its index and its name are unique in the batch.

    The names of its files begin with its name.
    """

    index: int
    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Units of one command that are executed together, in `folder`, `max_parallel` at once.

    A unit's arguments are `common_args`, overridden by its own. Its files are `<name>.args.json`,
    `<name>.out.json` and `<name>.log` in `units_dir`. `env` is added to the environment of the
    runner. Without `cwd`, units run in the subfolder `work` of `folder`. To stop a unit, the runner
    sends SIGTERM, and SIGKILL `grace_seconds` later. When units run again, as the next `attempt`,
    the logs of the earlier attempt are kept as `<name>.attempt-<n>.log`. If it is `warm`, imports
    are made once for all units, where that is safe. `meta` is what the task says about the
    resources that its units need; a launcher on a cluster computes from it how many units run at
    once. If it `grows`, units that run out of memory or time there run again with more of it.
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
    warm: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    grows: bool = False

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
    """A file of a batch is not as it should be, so the batch cannot continue."""


class DamagedBatchError(DamagedFileError):
    """A `batch.json` cannot be read, or belongs to another batch."""


def write_batch(batch: Batch) -> None:
    """Make the batch's folders and write its `batch.json`, which appears only when it is complete.

    If the batch was begun before, its `batch.json` is brought up to date.

    Raises:
        DamagedBatchError: the `batch.json` found is damaged or belongs to another batch, or it
            is gone although units have run.
        OSError: the file cannot be written; the error names it.
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
    """Raise DamagedBatchError if units have run, but a file that they need to continue is gone.

    Without the file it is not known how units ended, and ended units must not run again.
    """
    if path.exists():
        return
    of_units = f".attempt-{batch.attempt - 1}.log" if batch.attempt > 1 else ".args.json"
    with contextlib.suppress(FileNotFoundError):
        left = {path.name for path in batch.units_dir.iterdir()}
        if any(f"{unit.name}{of_units}" in left for unit in batch.units):
            raise DamagedBatchError(lost_file(path))


def lost_file(path: Path) -> str:
    """The message for a missing file without which units cannot be run again."""
    return (
        f"{path} was removed or cut while units ran: what became of the units is not known, and "
        "they are not run again. Submit the job again."
    )


def batch_file(batch: Batch) -> bytes:
    """The content of `batch.json` for a batch."""
    return json.dumps(_content(batch)).encode()


@dataclass(frozen=True)
class BegunBatch:
    """The content of a `batch.json`: the units' names by their indexes, and the attempt."""

    names: Mapping[int, str]
    attempt: int


def begun_batch(folder: Path) -> BegunBatch | None:
    """The batch in a folder; None if the folder has no `batch.json` yet.

    Raises:
        DamagedBatchError: its `batch.json` cannot be read.
    """
    content = _read_content(folder / BATCH_FILE)
    if content is None:
        return None
    names = {unit["index"]: unit["name"] for unit in content["units"]}
    return BegunBatch(names, content.get("attempt", 1))


def units_of_batch(folder: Path) -> set[int] | None:
    """The indexes of the batch's units; None if the folder has no `batch.json` yet.

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
        "warm": batch.warm,
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
    may_change = {"format", "max_parallel", "warm"}
    differing = [
        key
        for key in content.keys() - may_change - optional
        if key not in begun or begun[key] != content[key]
    ]
    if differing:
        raise DamagedBatchError(
            f"{path} does not match the job (in: {', '.join(sorted(differing))}): the dataset or "
            "arguments have changed since it was written. Submit the job again."
        )
