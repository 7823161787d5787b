"""What is kept so that an installation can be watched. Fractal does not have these tables."""

from datetime import datetime

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import timestamp


class Tally(SQLModel, table=True):
    """How many jobs or units have ended on a resource, by their outcome and what failed them.

    It only grows: what is deleted was counted all the same.
    """

    __tablename__ = "tally"

    resource_id: int = Field(foreign_key="resource.id", ondelete="CASCADE", primary_key=True)
    what: str = Field(primary_key=True)  # "job" or "unit"
    outcome: str = Field(primary_key=True)
    cause: str = Field(primary_key=True)  # "" if nothing failed
    number: int = Field(sa_column=Column(BigInteger, nullable=False))


class SignOfLife(SQLModel, table=True):
    """When a part of a resource's worker did its work the last time."""

    __tablename__ = "signoflife"

    resource_id: int = Field(foreign_key="resource.id", ondelete="CASCADE", primary_key=True)
    part: str = Field(primary_key=True)
    answered: datetime = timestamp()
