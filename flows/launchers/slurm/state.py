"""What is saved about a batch on SLURM: how it was split, and what was submitted."""

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
    """A job array that was submitted; as long as `job_id` is None, perhaps it was not.

    Element i of the array runs part i + `offset` of the batch. `token` is the array's comment, by
    which it is found. `left` is how many units of each part it was to run. `settled` are the parts
    that it is no longer expected to run. `is_confirmed` says that SLURM has shown `job_id` together
    with the token; before, the id is only what `sbatch` printed.
    """

    token: str
    parts: list[int]
    offset: int
    submitted_at: float
    job_id: int | None = None
    settled: list[int] = field(default_factory=list)
    is_confirmed: bool = False
    left: list[int] = field(default_factory=list)

    def runs(self, part: int) -> bool:
        """Whether this array runs a part, or perhaps does."""
        return part in self.parts and part not in self.settled

    def left_of(self, part: int) -> int:
        """How many units of a part it was to run; 0 if this is not known."""
        return dict(zip(self.parts, self.left, strict=False)).get(part, 0)


@dataclass
class SlurmState:
    """The state of a batch on SLURM.

    `sizes` has the number of units in each part, in the order of the batch; `parallel_tasks` of
    them run at once, for which each was to get `mem` (MiB; None: an earlier version did not save
    it). `reasons` says why units, by their index, have no result and will have none.
    `again_at` has, by part, the earliest time of its next submission, in seconds since the epoch;
    `in_vain` the states in which its latest SLURM jobs ended that brought no result. The units of
    the parts in `one_by_one` run one at a time, as it is to be found out which needs too much
    memory. `more_mem` and `more_time` say how often that of a part was doubled.
    """

    sizes: list[int]
    parallel_tasks: int
    submissions: list[Submission] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    again_at: dict[int, float] = field(default_factory=dict)
    in_vain: dict[int, list[str]] = field(default_factory=dict)
    one_by_one: list[int] = field(default_factory=list)
    more_mem: dict[int, int] = field(default_factory=dict)
    more_time: dict[int, int] = field(default_factory=dict)
    mem: int | None = None

    @classmethod
    def read(cls, folder: Path) -> "SlurmState | None":
        """The state saved in a batch's folder; None if there is none yet.

        Raises:
            DamagedBatchError: the file cannot be read.
        """
        path = folder / STATE_FILE
        try:
            content = json.loads(path.read_bytes())
            if (version := content.pop("format")) != _FORMAT:
                raise ValueError(f"it has format {version!r}, supported is {_FORMAT}")
            content["submissions"] = [Submission(**each) for each in content["submissions"]]
            content["reasons"] = {int(index): why for index, why in content["reasons"].items()}
            for by_part in ("again_at", "in_vain", "more_mem", "more_time"):
                found = content.pop(by_part, {})
                content[by_part] = {int(part): value for part, value in found.items()}
            return cls(**content)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedBatchError(
                f"{path} is damaged: {error}. Submit the job again: this one cannot go on."
            ) from error

    def write(self, folder: Path) -> None:
        """Save the state, completely or not at all. An OSError names the file."""
        content = {"format": _FORMAT, **asdict(self)}
        write_whole(folder / STATE_FILE, json.dumps(content).encode())

    def split(self, units: Sequence[Unit]) -> list[Sequence[Unit]]:
        """The units of each part."""
        ends = list(accumulate(self.sizes))
        return [units[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]

    def submission_of(self, part: int) -> Submission | None:
        """The submission that runs a part, or perhaps does; None if there is none."""
        for submission in reversed(self.submissions):
            if submission.runs(part):
                return submission
        return None
