"""A job's folder: its log, one subfolder per workflow task, and its archive."""

import os
import re
import zipfile
from pathlib import Path
from typing import Self

from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

JOB_LOG = "job.log"
EXECUTOR_LOG = "executor_error.log"

_WARNING = "WARNING "
_WARNING_LINE = re.compile(rf"^[\d-]+ [\d:.]+\+00:00 {_WARNING}(.+)$", re.MULTILINE)


class JobFolder:
    """The files of one job.

    `job.log` tells the story of the job. `<order>_<task name>/` holds the units of a workflow
    task (arguments, output and log of each), `<order>_<task name>/batches/` how they were run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, job: JobV2) -> Self:
        """The folder of a job, which it has from its submission on."""
        if job.working_dir is None:
            raise ValueError(f"Job {job.id} has no folder.")
        return cls(Path(job.working_dir))

    @property
    def log_path(self) -> Path:
        return self.path / JOB_LOG

    @property
    def executor_log_path(self) -> Path:
        """What a cluster said of units that it ended."""
        return self.path / EXECUTOR_LOG

    @property
    def archive_path(self) -> Path:
        return archive_path(self.path)

    def create(self) -> None:
        """Make the folder, if it is not there from an earlier start of the job."""
        self.path.mkdir(parents=True, exist_ok=True)

    def units_dir(self, order: int, task_name: str, retry: int = 0) -> Path:
        """The folder of a workflow task's units; of the job's retries, each has its own."""
        return self.path / f"{order}_{slug(task_name)}{f'_retry_{retry}' if retry else ''}"

    def batches(self) -> list[Path]:
        """The folders of all batches so far."""
        return sorted(self.path.glob("*/batches/*/"))

    def log(self, message: str, *, is_warning: bool = False) -> None:
        """Append to the job's log, with the time."""
        mark = _WARNING if is_warning else ""
        line = f"{now().isoformat(' ', 'milliseconds')} {mark}{message}\n"
        try:
            with self.log_path.open("a") as file:
                file.write(line)
        except OSError as error:  # of a full disk, it does not name the file
            raise OSError(error.errno, error.strerror, str(self.log_path)) from error

    def read_log(self) -> str:
        """The job's log; empty before there is one."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def warnings_in(log: str) -> list[str]:
    """The warnings in a job's log, each once."""
    return list(dict.fromkeys(_WARNING_LINE.findall(log)))


def archive_path(folder: Path) -> Path:
    """Where a job folder's archive is: beside it."""
    return folder.with_name(f"{folder.name}.zip")


def write_archive(folder: Path, target: Path) -> None:
    """Zip a folder. `target` is whole as soon as it is there; symbolic links are left out."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(
            partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False
        ) as archive:
            for directory, subdirectories, names in os.walk(folder):
                subdirectories.sort()
                for name in sorted(names):
                    path = Path(directory, name)
                    if path.is_file() and not path.is_symlink():
                        archive.write(path, path.relative_to(folder))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def slug(name: str) -> str:
    """A name as part of a file name: lower case, everything unusual as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "task"
