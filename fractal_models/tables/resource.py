"""Computational resources, and the profiles with which users use them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, String
from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import flag, json_object, timestamp


def _first_name() -> Any:
    """A unique name; by default, the `name` with which the row is created."""

    def name(context: Any) -> str:
        return str(context.get_current_parameters()["name"])

    column: Column[str] = Column(String, default=name, unique=True, nullable=False)
    return Field(default=None, sa_column=column)


class Resource(SQLModel, table=True):
    """Where jobs run: on this machine, or on a SLURM cluster by sudo or by SSH.

    Each resource is also a Prefect work pool. The work pool keeps the first name of the resource,
    because it cannot be renamed.
    """

    __tablename__ = "resource"
    __table_args__ = (
        CheckConstraint("type IN ('local', 'slurm_sudo', 'slurm_ssh')", name="correct_type"),
        CheckConstraint(
            "(type = 'local') OR (jobs_slurm_python_worker IS NOT NULL)",
            name="jobs_slurm_python_worker_set",
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    type: str
    name: str = Field(unique=True)
    work_pool: str = _first_name()
    timestamp_created: datetime = timestamp()
    host: str | None = None
    prevent_new_submissions: bool = flag()
    jobs_local_dir: str
    jobs_runner_config: dict[str, Any] = json_object()
    jobs_slurm_python_worker: str | None = None
    jobs_poll_interval: int
    tasks_local_dir: str
    tasks_python_config: dict[str, Any] = json_object()
    tasks_pixi_config: dict[str, Any] = json_object()

    @property
    def pip_cache_dir_arg(self) -> str:
        """pip's option for its cache: `--cache-dir X` if one is configured, or `--no-cache-dir`."""
        cache_dir = self.tasks_python_config.get("pip_cache_dir")
        return f"--cache-dir {cache_dir}" if cache_dir else "--no-cache-dir"


class Profile(SQLModel, table=True):
    """A user's access to a resource: the user name there, and the folders for files."""

    __tablename__ = "profile"

    id: int | None = Field(default=None, primary_key=True)
    resource_id: int = Field(foreign_key="resource.id", ondelete="RESTRICT")
    resource_type: str
    name: str = Field(unique=True)
    username: str | None = None
    ssh_key_path: str | None = None
    jobs_remote_dir: str | None = None
    tasks_remote_dir: str | None = None
    pixi_cache_dir: str | None = None
