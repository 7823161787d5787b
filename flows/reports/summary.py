"""The summary of a job that has ended, as Markdown for the Prefect UI."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.reports.markdown import bullets, escaped, table
from flows.reports.quantities import duration, memory


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one workflow task of a job, or of all of them, and what it used.

    The total of all tasks has neither a title nor a number of images. Measured values are those of
    the units' latest attempts; they are None where nothing was measured.
    """

    title: str | None
    num_images: int | None
    num_units: int
    num_done: int
    num_failed: int
    num_retries: int
    wall_seconds: float | None
    cpu_seconds: float | None
    median_rss_kb: float | None
    peak_rss_kb: int | None


_HEAD = (
    *("Workflow task", "Images", "Units", "Done", "Failed", "Retries"),
    *("Wall time", "CPU time", "Median RAM", "Peak RAM"),
)


@dataclass(frozen=True, slots=True)
class Imports:
    """Imports that were made for many units at a time: how long, how often, and what that saved.

    Each unit but one would have taken as long for its own.
    """

    seconds: float
    times: int
    saved_seconds: float


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The facts about a job that its summary shows besides the work of its tasks."""

    how: str  # the last words of its log
    seconds: float  # since its submission
    folder: str | None
    remote_folder: str | None  # on a cluster, if it is another one there
    warnings: Sequence[str]
    imports: Imports | None = None  # that were made once for many units


def summary(job: EndedJob, works: Sequence[Work]) -> str:
    """A table with a row per workflow task and a total; imports; warnings; the folders of files."""
    parts = [
        f"**{escaped(job.how)}**",
        f"From submission to end: {duration(job.seconds)}.",
        table(_HEAD, map(_row, works)) if works else "No workflow task was begun.",
    ]
    if job.imports is not None:
        parts += [f"{_imports(job.imports)}."]
    if job.warnings:
        parts += ["## Warnings", bullets(map(escaped, job.warnings))]
    parts += [f"Folder: `{job.folder}`"]
    if job.remote_folder not in (None, job.folder):
        parts += [f"On the cluster: `{job.remote_folder}`"]
    return "\n\n".join(parts)


def _imports(imports: Imports) -> str:
    times = "once" if imports.times == 1 else f"in {imports.times} processes"
    saved = duration(imports.saved_seconds)
    return f"Import {duration(imports.seconds)} {times}, saved {saved}"


def _row(work: Work) -> tuple[str, ...]:
    return (
        escaped(work.title or "All"),
        "" if work.num_images is None else str(work.num_images),
        *(str(number) for number in (work.num_units, work.num_done, work.num_failed)),
        str(work.num_retries),
        _known(work.wall_seconds, duration),
        _known(work.cpu_seconds, duration),
        _known(work.median_rss_kb, memory),
        _known(work.peak_rss_kb, memory),
    )


def _known(amount: float | None, read: Callable[[float], str]) -> str:
    return "-" if amount is None else read(amount)
