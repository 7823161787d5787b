"""Workflows, the tasks in them, and templates made from them."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, Relationship, SQLModel

from fractal_models.tables.columns import flag, json_object, optional_json, timestamp
from fractal_models.tables.project import ProjectV2
from fractal_models.tables.task import TaskV2


class WorkflowTaskV2(SQLModel, table=True):
    """A task at its place in a workflow, with its arguments."""

    __tablename__ = "workflowtaskv2"

    id: int | None = Field(default=None, primary_key=True)
    workflow_id: int = Field(foreign_key="workflowv2.id", index=True, ondelete="CASCADE")
    order: int | None = None
    meta_parallel: dict[str, Any] | None = optional_json()
    meta_non_parallel: dict[str, Any] | None = optional_json()
    args_parallel: dict[str, Any] | None = optional_json()
    args_non_parallel: dict[str, Any] | None = optional_json()
    type_filters: dict[str, bool] = json_object()
    task_type: str
    task_id: int = Field(foreign_key="taskv2.id", index=True)
    alias: str | None = None
    description: str | None = None

    task: TaskV2 = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class WorkflowV2(SQLModel, table=True):
    """An ordered list of tasks with arguments, to run on datasets of its project."""

    __tablename__ = "workflowv2"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    description: str | None = None
    project_id: int = Field(foreign_key="projectv2.id", index=True, ondelete="CASCADE")
    template_id: int | None = Field(
        default=None, foreign_key="workflowtemplate.id", ondelete="SET NULL"
    )
    timestamp_created: datetime = timestamp()
    is_starred: bool = flag()

    task_list: list[WorkflowTaskV2] = Relationship(
        cascade_delete=True,
        sa_relationship_kwargs={"lazy": "selectin", "order_by": "WorkflowTaskV2.order"},
    )
    project: ProjectV2 = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class WorkflowTemplate(SQLModel, table=True):
    """A version of a workflow that its author offers to others."""

    __tablename__ = "workflowtemplate"
    __table_args__ = (
        UniqueConstraint("user_id", "name", "version", name="uq_workflowtemplate_version"),
    )

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    user_group_id: int | None = Field(default=None, foreign_key="usergroup.id", ondelete="SET NULL")
    name: str
    version: int
    description: str | None = None
    timestamp_created: datetime = timestamp()
    timestamp_last_used: datetime = timestamp()
    fractal_server_version: str
    data: dict[str, Any] = json_object()
