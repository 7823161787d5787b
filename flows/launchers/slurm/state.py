"""What is stored about a batch on SLURM: how it was split, and what was submitted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from flows.units.batch import DamagedBatchError
from flows.units.files import write_whole

Unit = TypeVar("Unit")

STATE_FILE = "slurm.json"
_FORMAT = 1


@dataclass
class Submission:
    """A job array that was submitted at a time; without `job_id` that is not certain.

    Its element i is the part i + `offset` of the batch. `token` is its comment, by which it is
    found. `settled` are the parts that are no longer expected to be executed by it. `is_confirmed`
    says that its `job_id` was seen with its token: before, it is only what `sbatch` printed.
    """

    token: str
    parts: list[int]
    offset: int
    submitted_at: float
    job_id: int | None = None
    settled: list[int] = field(default_factory=list)
    is_confirmed: bool = False

    def runs(self, part: int) -> bool:
        """Whether a part is, or perhaps is, executed by it."""
        return part in self.parts and part not in self.settled


@dataclass
class SlurmState:
    """The sizes of a batch's parts, in its order; how many units of each run at once; submissions.

    `reasons` tell why units, by their index, have no result and will have none. `again_at` are the
    times, in seconds since the epoch, before which parts are not submitted again.
    """

    sizes: list[int]
    parallel_tasks: int
    submissions: list[Submission] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    again_at: dict[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "SlurmState | None":
        """The state in a batch's folder; None if there is none yet.

        Raises:
            DamagedBatchError: it cannot be read.
        """
        path = folder / STATE_FILE
        try:
            content = json.loads(path.read_bytes())
            if (found := content.pop("format")) != _FORMAT:
                raise ValueError(f"it has format {found!r}, supported is {_FORMAT}")
            content["submissions"] = [Submission(**each) for each in content["submissions"]]
            content["reasons"] = {int(index): why for index, why in content["reasons"].items()}
            again_at = content.pop("again_at", {})
            content["again_at"] = {int(part): when for part, when in again_at.items()}
            return cls(**content)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedBatchError(
                f"{path} is damaged: {error}. Submit the job again: this one cannot go on."
            ) from error

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all. An OSError names the file."""
        content = {"format": _FORMAT, **asdict(self)}
        write_whole(folder / STATE_FILE, json.dumps(content).encode())

    def split(self, units: Sequence[Unit]) -> list[Sequence[Unit]]:
        """The units of each part."""
        ends = list(accumulate(self.sizes))
        return [units[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]

    def submission_of(self, part: int) -> Submission | None:
        """What executes a part, or perhaps does; None if nothing."""
        for submission in reversed(self.submissions):
            if submission.runs(part):
                return submission
        return None

    def tries_of(self, part: int) -> int:
        """How often a part was submitted."""
        return sum(part in submission.parts for submission in self.submissions)
