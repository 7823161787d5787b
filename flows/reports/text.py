"""Texts that can be stored and shown anywhere, and the titles of jobs."""

import re

from fractal_models.tables import JobV2

# All control characters but tab and newline: PostgreSQL refuses NUL, terminals obey escapes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


def printable(text: str) -> str:
    """The text with each control character replaced: databases and terminals mishandle them."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def title_of_job(job_id: int | None, workflow: str, dataset: str) -> str:
    """The title of a job for people, from its parts."""
    return f"job {job_id} · {workflow} on {dataset}"


def job_title(job: JobV2) -> str:
    """The title of a job for people, from its row."""
    return title_of_job(job.id, job.workflow_dump["name"], job.dataset_dump["name"])
