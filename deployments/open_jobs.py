"""Jobs that have not ended: a stop of the stack leaves them, and its next start continues them."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL
from sqlmodel import col, select

from flows.launchers.local import is_running
from flows.units.job_folder import JobFolder
from fractal_models.database import open_database, saved_id
from fractal_models.tables import JobV2


@dataclass(frozen=True)
class OpenJob:
    """A submitted job, and its folder."""

    id: int
    workflow: str
    dataset: str
    folder: str | None

    def __str__(self) -> str:
        return f"job {self.id} ({self.workflow} on {self.dataset})"

    def has_running_units(self) -> bool:
        """Whether a unit runner of the job lives on this machine: it locks its batch."""
        if self.folder is None:
            return False
        return any(map(is_running, JobFolder(Path(self.folder)).batches()))


async def read_open_jobs(database: URL) -> list[OpenJob]:
    """The submitted jobs in a Fractal database, oldest first."""
    query = select(JobV2).where(JobV2.status == "submitted").order_by(col(JobV2.id))
    async with open_database(database) as sessions, sessions() as session:
        return [
            OpenJob(
                saved_id(job),
                job.workflow_dump["name"],
                job.dataset_dump["name"],
                job.working_dir,
            )
            for job in await session.exec(query)
        ]
