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

# Limits of an archive: bytes of one file, bytes of all files, bytes counted per file in addition,
# and how many left-out files are listed by name.
_MOST_OF_A_FILE, _MOST_ARCHIVED, _MEMBER_BYTES = 64 << 20, 4 << 30, 1024
_MOST_LEFT_OUT = 1000

_WARNING = "WARNING "
_WARNING_LINE = re.compile(rf"^[\d-]+ [\d:.]+\+00:00 {_WARNING}(.+)$", re.MULTILINE)


class JobFolder:
    """The files of one job.

    `workflow.log` is the log of the job. `<order>_<task name>/` holds the arguments, output and log
    of each unit of a workflow task, `<order>_<task name>/batches/` the batches in which they ran.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, job: JobV2) -> Self:
        """The folder of a job; each job has one from its submission on."""
        if job.working_dir is None:
            raise ValueError(f"Job {job.id} has no folder.")
        return cls(Path(job.working_dir))

    @property
    def log_path(self) -> Path:
        return self.path / JOB_LOG

    @property
    def executor_log_path(self) -> Path:
        """The log of what a cluster said about units that it ended."""
        return self.path / EXECUTOR_LOG

    @property
    def archive_path(self) -> Path:
        return archive_path(self.path)

    def create(self) -> None:
        """Make the folder, unless an earlier start of the job has made it.

        It is made private, unless an earlier start has let the OS user of the units pass through
        it: units of that start may still run.
        """
        if not self.path.parent.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.chmod(0o711)  # OS users of jobs pass it, and cannot list it
        if not (self.path.exists() and stat.S_IMODE(self.path.stat().st_mode) == PASSED):
            private_folder(self.path)

    def units_dir(self, order: int, task_name: str, retry: int = 0) -> Path:
        """The folder of a workflow task's units. Each retry of the job has its own."""
        return self.path / f"{order}_{slug(task_name)}{f'_retry_{retry}' if retry else ''}"

    def batches(self) -> list[Path]:
        """The folders of all batches so far, without those reached through a symbolic link."""
        found, real = sorted(self.path.glob("*/batches/*/")), self.path.resolve()
        return [each for each in found if each.resolve() == real / each.relative_to(self.path)]

    def log(self, message: str, *, is_warning: bool = False) -> None:
        """Append a message to the job's log, with the time."""
        mark = _WARNING if is_warning else ""
        line = f"{now().isoformat(' ', 'milliseconds')} {mark}{message}\n"
        try:
            with open_left(self.log_path, "ab", below=self.path) as file:
                file.write(line.encode(errors="replace"))
        except OSError as error:  # of a full disk, it does not name the file
            raise OSError(error.errno, error.strerror, str(self.log_path)) from error

    def read_log(self) -> str:
        """The job's log; empty if it does not exist yet. Raises OSError, as `open_left`."""
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
    """The path of a job folder's archive: beside the folder."""
    return folder.with_name(f"{folder.name}.zip")


def archive_folder(folder: Path) -> None:
    """Zip a folder into the archive beside it, which is private and appears when complete."""
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

    The archive has only regular files, of files above 64 MiB only the beginning and the end, and at
    most 4 GiB in total. `left-out.txt` in the archive names what is left out, and why.
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
    """All files below a folder, whatever their type, in order; symbolic links are not followed."""
    for directory, subdirectories, names in os.walk(folder):
        subdirectories.sort()
        for name in sorted(names):
            yield Path(directory, name)


def slug(name: str) -> str:
    """A name as part of a file name: lower case, other characters replaced by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "task"
