"""A job's folder: its log, one subfolder per workflow task, and its archive."""

import errno
import os
import re
import stat
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from flows.units.files import PASSED
from flows.units.left_files import open_left, two_ends
from fractal_models.private_files import open_private, private_folder
from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

JOB_LOG = "workflow.log"  # as Fractal calls it
EXECUTOR_LOG = "executor_error.log"
MOST_OF_A_LOG = 4 << 20  # bytes; of a longer one its two ends are read

# What goes into an archive: of a file, of all (with so much for each), and names of what does not.
_MOST_OF_A_FILE, _MOST_ARCHIVED, _MEMBER_BYTES = 64 << 20, 4 << 30, 1024
_MOST_LEFT_OUT = 1000

_WARNING = "WARNING "
_WARNING_LINE = re.compile(rf"^[\d-]+ [\d:.]+\+00:00 {_WARNING}(.+)$", re.MULTILINE)


class JobFolder:
    """The files of one job.

    `workflow.log` tells the story of the job. `<order>_<task name>/` holds the units of a workflow
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
        """Make the folder, if it is not there from an earlier start of the job; it is private.

        Or its units' OS user passes it: those may go on meanwhile.
        """
        if not self.path.parent.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.chmod(0o711)  # OS users of jobs pass it, and cannot list it
        if not (self.path.exists() and stat.S_IMODE(self.path.stat().st_mode) == PASSED):
            private_folder(self.path)

    def units_dir(self, order: int, task_name: str, retry: int = 0) -> Path:
        """The folder of a workflow task's units; of the job's retries, each has its own."""
        return self.path / f"{order}_{slug(task_name)}{f'_retry_{retry}' if retry else ''}"

    def batches(self) -> list[Path]:
        """The folders of all batches so far; none that a symbolic link leads to."""
        found, real = sorted(self.path.glob("*/batches/*/")), self.path.resolve()
        return [each for each in found if each.resolve() == real / each.relative_to(self.path)]

    def log(self, message: str, *, is_warning: bool = False) -> None:
        """Append to the job's log, with the time."""
        mark = _WARNING if is_warning else ""
        line = f"{now().isoformat(' ', 'milliseconds')} {mark}{message}\n"
        try:
            with open_left(self.log_path, "ab", below=self.path) as file:
                file.write(line.encode(errors="replace"))
        except OSError as error:  # of a full disk, it does not name the file
            raise OSError(error.errno, error.strerror, str(self.log_path)) from error

    def read_log(self) -> str:
        """The job's log; empty before there is one. Raises OSError, as `open_left`."""
        return self._read(self.log_path)

    def read_executor_log(self) -> str:
        """What a cluster said; empty if it said nothing. Raises OSError, as `open_left`."""
        return self._read(self.executor_log_path)

    def _read(self, path: Path) -> str:
        with suppress(FileNotFoundError), open_left(path, below=self.path) as file:
            return two_ends(file, MOST_OF_A_LOG, str(path)).decode(errors="replace")
        return ""


def warnings_in(log: str) -> list[str]:
    """The warnings in a job's log, each once."""
    return list(dict.fromkeys(_WARNING_LINE.findall(log)))


def archive_path(folder: Path) -> Path:
    """Where a job folder's archive is: beside it."""
    return folder.with_name(f"{folder.name}.zip")


def archive_folder(folder: Path) -> None:
    """Zip a folder, into its archive beside it: private, and whole as soon as it is there."""
    target = archive_path(folder)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with open_private(partial, "xb") as file:
            write_archive(folder, file)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_archive(folder: Path, target: BinaryIO) -> None:
    """Zip a folder.

    Only regular files are in it, of large ones (64 MiB) the two ends, and no more than 4 GiB in
    all: `left-out.txt` in the archive names what is not in it, and why.
    """
    left_out: list[str] = []
    room = _MOST_ARCHIVED
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in _files_in(folder):
            name = os.fsencode(path.relative_to(folder)).decode(errors="replace")
            try:
                with open_left(path, below=folder) as file:
                    if room <= 0:
                        raise OSError(errno.EFBIG, "the archive would be too large", str(path))
                    content = two_ends(file, _MOST_OF_A_FILE, name)
                    modified = time.localtime(os.fstat(file.fileno()).st_mtime)[:6]
            except OSError as error:
                if len(left_out) < _MOST_LEFT_OUT:
                    left_out.append(f"{name}: {error.strerror}\n")
                elif room <= 0:
                    break
                continue
            room -= len(content) + _MEMBER_BYTES
            earliest, latest = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
            info = zipfile.ZipInfo(name, min(max(modified, earliest), latest))
            info.external_attr = 0o600 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
        if left_out:
            archive.writestr("left-out.txt", "".join(left_out))


def _files_in(folder: Path) -> Iterator[Path]:
    """Whatever is below a folder and is no folder, in order; links are not followed."""
    for directory, subdirectories, names in os.walk(folder):
        subdirectories.sort()
        for name in sorted(names):
            yield Path(directory, name)


def slug(name: str) -> str:
    """A name as part of a file name: lower case, everything unusual as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "task"
