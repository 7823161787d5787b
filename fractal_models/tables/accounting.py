"""Accounting: the work done for users, per workflow task and per SLURM job."""

from datetime import datetime

from sqlalchemy import Column, Integer
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
