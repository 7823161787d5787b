"""Texts that can be stored and shown anywhere, and how jobs are called."""

import re

from fractal_models.tables import JobV2

# All control characters but tab and newline: PostgreSQL refuses NUL, terminals obey escapes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


def printable(text: str) -> str:
    """A text without control characters, which would be refused or obeyed somewhere."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def title_of_job(job_id: int | None, workflow: str, dataset: str) -> str:
    """How a job is called where people see it."""
    return f"job {job_id} · {workflow} on {dataset}"


def job_title(job: JobV2) -> str:
    """How a job is called where people see it."""
    return title_of_job(job.id, job.workflow_dump["name"], job.dataset_dump["name"])
