"""Tasks, the packages (task groups) from which they come, and the activities of task groups."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column
from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, json_list, json_object, ordered_json, timestamp


class TaskV2(SQLModel, table=True):
    """An executable for one kind of processing, with the schema of its arguments."""

    __tablename__ = "taskv2"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    type: str
    command_non_parallel: str | None = None
    command_parallel: str | None = None
    meta_non_parallel: dict[str, Any] = json_object()
    meta_parallel: dict[str, Any] = json_object()
    version: str | None = None
    args_schema_non_parallel: dict[str, Any] | None = ordered_json()
    args_schema_parallel: dict[str, Any] | None = ordered_json()
    args_schema_version: str | None = None
    docs_info: str | None = None
    docs_link: str | None = None
    input_types: dict[str, bool] = json_object()
    output_types: dict[str, bool] = json_object()
    taskgroupv2_id: int = Field(foreign_key="taskgroupv2.id", index=True, ondelete="CASCADE")
    category: str | None = None
    modality: str | None = None
    authors: str | None = None
    tags: list[str] = json_list()
    is_core: bool = flag()


class TaskGroupV2(SQLModel, table=True):
    """One version of a package of tasks, and its environment on one resource."""

    __tablename__ = "taskgroupv2"
    __table_args__ = (
        CheckConstraint("origin IN ('pypi', 'wheel-file', 'pixi', 'other')", name="correct_origin"),
    )

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    user_group_id: int | None = Field(
        default=None, foreign_key="usergroup.id", ondelete="SET NULL", index=True
    )
    resource_id: int = Field(foreign_key="resource.id", ondelete="RESTRICT", index=True)
    origin: str
    pkg_name: str
    version: str | None = None
    python_version: str | None = None
    pixi_version: str | None = None
    path: str | None = None
    archive_path: str | None = None
    pip_extras: str | None = None
    pinned_package_versions_pre: dict[str, str] = json_object()
    pinned_package_versions_post: dict[str, str] = json_object()
    env_info: str | None = None
    venv_path: str | None = None
    venv_size_in_kB: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    venv_file_number: int | None = None
    active: bool = flag(default=True)
    timestamp_created: datetime = timestamp()
    timestamp_last_used: datetime = timestamp()

    task_list: list[TaskV2] = Relationship(
        cascade_delete=True,
        sa_relationship_kwargs={"lazy": "selectin", "order_by": "TaskV2.id"},
    )

    @property
    def pip_install_string(self) -> str:
        """The requirement for pip: the archive or `name==version`, with extras.

        Raises:
            ValueError: the group has neither archive nor version, or belongs to pixi.
        """
        self._require_pip()
        extras = f"[{self.pip_extras}]" if self.pip_extras else ""
        if self.archive_path is not None:
            return f"{self.archive_path}{extras}"
        if self.version is None:
            raise ValueError(f"Task group {self.pkg_name} has neither an archive nor a version.")
        return f"{self.pkg_name}{extras}=={self.version}"

    @property
    def pinned_package_versions_pre_string(self) -> str:
        """Versions to install before the package, as `a==1 b==2`."""
        self._require_pip()
        return _pins(self.pinned_package_versions_pre)

    @property
    def pinned_package_versions_post_string(self) -> str:
        """Versions to install after the package, as `a==1 b==2`."""
        self._require_pip()
        return _pins(self.pinned_package_versions_post)

    def _require_pip(self) -> None:
        if self.origin == "pixi":
            raise ValueError(
                f"Task group {self.pkg_name} is a pixi group: pip does not install it."
            )


def _pins(versions: dict[str, str]) -> str:
    return " ".join(f"{name}=={version}" for name, version in versions.items())


class TaskGroupActivityV2(SQLModel, table=True):
    """One collection, deactivation, reactivation, deletion or reset of a task group."""

    __tablename__ = "taskgroupactivityv2"
    __table_args__ = (
        CheckConstraint(
            "action IN ('collect', 'deactivate', 'reactivate', 'delete', 'reset')",
            name="correct_action",
        ),
        CheckConstraint(
            "status IN ('pending', 'ongoing', 'failed', 'OK')", name="correct_activity_status"
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    taskgroupv2_id: int | None = Field(
        default=None, foreign_key="taskgroupv2.id", ondelete="SET NULL", index=True
    )
    timestamp_started: datetime = timestamp()
    timestamp_ended: datetime | None = timestamp(optional=True)
    pkg_name: str
    version: str
    status: str
    action: str
    log: str | None = None
    # Fractal does not have this column: the Prefect flow run of the activity.
    flow_run_id: UUID | None = None
