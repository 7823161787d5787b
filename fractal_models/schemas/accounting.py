"""Schemas of accounting."""

from pydantic import AwareDatetime

from fractal_models.schemas.base import OpenInput, Output, Timestamp


class AccountingQuery(OpenInput):
    """Which records to list. `fractal_job_id` has an effect only for records of SLURM jobs."""

    user_id: int | None = None
    timestamp_min: AwareDatetime | None = None
    timestamp_max: AwareDatetime | None = None
    fractal_job_id: int | None = None


class AccountingQuerySLURM(AccountingQuery):
    """Which SLURM jobs to list."""

    resource_id: int | None = None


class AccountingRecordRead(Output):
    """One workflow task that has ended: the number of its units (`num_tasks`) and of new images."""

    id: int
    user_id: int
    timestamp: Timestamp
    num_tasks: int
    num_new_images: int
