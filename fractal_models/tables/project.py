"""Projects, and who may do what in them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, String, text
from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, timestamp
from fractal_models.tables.user import UserOAuth


class LinkUserProjectV2(SQLModel, table=True):
    """A user's part in a project: as its only owner, or as a guest with some permissions."""

    __tablename__ = "linkuserprojectv2"
    __table_args__ = (
        Index(
            "ix_linkuserprojectv2_one_owner_per_project",
            "project_id",
            unique=True,
            postgresql_where=text("is_owner = true"),
        ),
        CheckConstraint("permissions IN ('r', 'rw', 'rwx')", name="valid_permissions"),
        CheckConstraint("NOT (is_owner AND NOT is_verified)", name="owner_is_verified"),
        CheckConstraint("NOT (is_owner AND permissions <> 'rwx')", name="owner_full_permissions"),
    )

    project_id: int = Field(foreign_key="projectv2.id", primary_key=True, ondelete="CASCADE")
    user_id: int = Field(foreign_key="user_oauth.id", primary_key=True, index=True)
    is_owner: bool
    is_verified: bool
    permissions: str = Field(sa_type=String)


class ProjectV2(SQLModel, table=True):
    """Datasets and workflows that belong together, on one resource."""

    __tablename__ = "projectv2"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    description: str | None = None
    resource_id: int = Field(foreign_key="resource.id", ondelete="RESTRICT")
    timestamp_created: datetime = timestamp()
    is_starred: bool = flag()

    users: list[UserOAuth] = Relationship(
        link_model=LinkUserProjectV2, sa_relationship_kwargs={"viewonly": True}
    )
