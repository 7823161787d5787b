"""Schemas of workflow templates."""

from typing import Self

from pydantic import AwareDatetime, PositiveInt, model_validator

from fractal_models.schemas.base import NonEmpty, OpenInput, Output, Page
from fractal_models.schemas.workflow_import import WorkflowExport, WorkflowImport


class WorkflowTemplateCreate(OpenInput):
    """A new version of a template, made from a workflow."""

    name: NonEmpty
    version: PositiveInt
    description: NonEmpty | None = None


class WorkflowTemplateImport(WorkflowTemplateCreate):
    """A version of a template from another installation."""

    data: WorkflowImport

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.data.task_list:
            raise ValueError("a template needs tasks, and data.task_list is empty")
        if any(entry.task.version is None for entry in self.data.task_list):
            raise ValueError("each task of a template needs a version")
        return self


class WorkflowTemplateUpdate(OpenInput):
    """The fields of a template that can be changed. Without a group the template is private."""

    user_group_id: int | None = None
    description: NonEmpty | None = None


class WorkflowTemplateExport(Output):
    """A version of a template, for import in another installation."""

    name: str
    version: int
    description: str | None = None
    data: WorkflowExport


class WorkflowTemplateRead(WorkflowTemplateExport):
    """A version of a template."""

    id: int
    user_email: str
    user_group_id: int | None = None
    timestamp_created: AwareDatetime
    timestamp_last_used: AwareDatetime
    fractal_server_version: str


class WorkflowTemplateGroupMember(Output):
    """One version of a template in a list."""

    template_id: int
    template_version: int


class WorkflowTemplateGroup(Output):
    """The versions of a template, newest first."""

    user_email: str
    template_name: str
    templates: list[WorkflowTemplateGroupMember]


class TemplatePage(Page[WorkflowTemplateGroup]):
    """Templates, and the emails of those who made the templates that the user can see."""

    email_list: list[str]
