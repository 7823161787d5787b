"""Accounting: the work done for users, per workflow task, per SLURM job, and what was reserved."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Float, Integer
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import timestamp


class AccountingRecord(SQLModel, table=True):
    """One workflow task that has ended: the number of its units (`num_tasks`) and of new images."""

    __tablename__ = "accountingrecord"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    timestamp: datetime = timestamp()
    num_tasks: int
    num_new_images: int


class AccountingRecordSlurm(SQLModel, table=True):
    """The SLURM jobs that a Fractal job submitted."""

    __tablename__ = "accountingrecordslurm"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    timestamp: datetime = timestamp()
    slurm_job_ids: list[int] = Field(
        default_factory=list, sa_column=Column(ARRAY(Integer), nullable=False)
    )
    # Null in old records of fractal-server, which it wrote before it had this column.
    fractal_job_id: int | None = Field(default=None, foreign_key="jobv2.id", index=True)
    resource_id: int | None = Field(default=None, foreign_key="resource.id", ondelete="SET NULL")


class Allocation(SQLModel, table=True):
    """What one runner of a job had reserved, and what its units used. Fractal has no such table.

    `batch` is the folder of its results within the job's, `runner` its number there. So many units
    as `at_once` could run at once (null where not known). `cpus`,
    `mem_mb` (MiB) and `gpus` are null where nothing was reserved, as on the server's own machine.
    `gb_seconds` is the sum of each unit's peak memory (GiB) times its seconds. The rows of a job
    are written at its end, and stay when its dataset is deleted.
    """

    __tablename__ = "allocation"

    job_id: int = Field(primary_key=True, foreign_key="jobv2.id")
    batch: str = Field(primary_key=True)
    runner: int = Field(primary_key=True)
    history_run_id: int | None = Field(
        default=None, foreign_key="historyrun.id", ondelete="SET NULL", index=True
    )
    resource_id: int | None = Field(default=None, foreign_key="resource.id", ondelete="SET NULL")
    slurm_job_id: str | None = None  # as SLURM writes it: 12, or 12_3 of an array
    host: str
    num_units: int
    at_once: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    cpus: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    mem_mb: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    gpus: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    started_at: datetime = timestamp()
    ended_at: datetime = timestamp()
    cpu_seconds: float = Field(sa_column=Column(Float, nullable=False))
    gb_seconds: float = Field(sa_column=Column(Float, nullable=False))
