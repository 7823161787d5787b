"""Users, their OAuth accounts and their groups."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, json_list, number, timestamp


class OAuthAccount(SQLModel, table=True):
    """An account at an OAuth provider with which a user logs in."""

    __tablename__ = "oauthaccount"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", nullable=False, ondelete="CASCADE")
    oauth_name: str = Field(index=True, nullable=False)
    access_token: str = Field(nullable=False)
    expires_at: int | None = None
    refresh_token: str | None = None
    account_id: str = Field(index=True, nullable=False)
    account_email: str = Field(nullable=False)

    user: "UserOAuth" = Relationship(back_populates="oauth_accounts")


class UserOAuth(SQLModel, table=True):
    """A person (or service) that logs in, with the columns of fastapi-users and Fractal's own."""

    __tablename__ = "user_oauth"
    __table_args__ = (
        CheckConstraint("NOT (is_superuser AND is_guest)", name="superuser_is_not_guest"),
    )

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True, index=True, nullable=False)
    hashed_password: str = Field(nullable=False)
    is_active: bool = flag(default=True)
    is_superuser: bool = flag()
    is_verified: bool = flag()
    is_guest: bool = flag()
    profile_id: int | None = Field(default=None, foreign_key="profile.id", ondelete="RESTRICT")
    project_dirs: list[str] = Field(
        default_factory=list,
        sa_column=Column(ARRAY(String), server_default="{}", nullable=False),
    )
    slurm_accounts: list[str] = json_list()
    # Login tokens belong to a generation, and become invalid when it changes.
    login_generation: int = number()

    oauth_accounts: list[OAuthAccount] = Relationship(
        back_populates="user",
        sa_relationship_kwargs={"lazy": "joined", "cascade": "all, delete-orphan"},
    )


class UserGroup(SQLModel, table=True):
    """A named group of users, with which task groups are shared."""

    __tablename__ = "usergroup"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, nullable=False)
    timestamp_created: datetime = timestamp()


class LinkUserGroup(SQLModel, table=True):
    """A user's membership of a group."""

    __tablename__ = "linkusergroup"

    group_id: int = Field(foreign_key="usergroup.id", primary_key=True, ondelete="CASCADE")
    user_id: int = Field(foreign_key="user_oauth.id", primary_key=True, ondelete="CASCADE")
    timestamp_created: datetime = timestamp()
