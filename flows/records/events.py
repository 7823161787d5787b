"""The Prefect events that Fractal sends: their names, resources and payloads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from flows.reports.text import title_of_job
from fractal_models.tables import EventOutbox

# How a job ended. (In the database, a stopped job has the status "failed".)
Outcome = Literal["done", "failed", "stopped"]

JOB_EVENTS = tuple(f"fractal.job.{what}" for what in ("submitted", "done", "failed", "stopped"))
WORKFLOW_TASK_EVENTS = tuple(f"fractal.workflow-task.{what}" for what in ("done", "failed"))


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The facts that every event of a job contains: what it runs, where, and for whom."""

    job_id: int
    flow_run_id: UUID | None
    project_id: int
    project: str
    workflow_id: int
    workflow: str
    dataset_id: int
    dataset: str
    user_id: int | None
    user: str
    resource_id: int | None
    resource: str | None

    @property
    def title(self) -> str:
        """The name of a job in Prefect."""
        return title_of_job(self.job_id, self.workflow, self.dataset)


def job_event(
    job: JobFacts,
    status: Literal["submitted"] | Outcome,
    *,
    occurred: datetime,
    reason: str | None = None,
    counts: Mapping[str, int],
) -> EventOutbox:
    """The event for a job's new status; `counts` are the numbers of its units."""
    return EventOutbox(
        event=f"fractal.job.{status}",
        occurred=occurred,
        resource=_named(f"fractal.job.{job.job_id}", job.title) | {"fractal.job.status": status},
        related=_related(job),
        payload=_payload(job, status, reason, counts),
    )


def workflow_task_event(
    job: JobFacts,
    workflow_task: Mapping[str, Any],
    status: Literal["done", "failed"],
    *,
    occurred: datetime,
    reason: str | None = None,
    counts: Mapping[str, int],
) -> EventOutbox:
    """The event for the end of a workflow task, which is given as the job keeps it.

    `counts` are the numbers of its units and images.
    """
    name = workflow_task.get("alias") or workflow_task["task"]["name"]
    order = workflow_task["order"]
    return EventOutbox(
        event=f"fractal.workflow-task.{status}",
        occurred=occurred,
        resource={
            **_named(f"fractal.workflow-task.{workflow_task['id']}", f"{order} {name}"),
            "fractal.workflow-task.order": str(order),
            "fractal.workflow-task.status": status,
        },
        related=[_in_role("job", f"fractal.job.{job.job_id}", job.title), *_related(job)],
        payload={
            "workflow_task_id": workflow_task["id"],
            "workflow_task": name,
            "order": order,
            **_payload(job, status, reason, counts),
        },
    )


def _named(resource_id: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": resource_id, "prefect.resource.name": name}


def _in_role(role: str, resource_id: str, name: str) -> dict[str, str]:
    return {**_named(resource_id, name), "prefect.resource.role": role}


def _related(job: JobFacts) -> list[dict[str, str]]:
    """The resources related to a job, as far as they exist."""
    around = [
        ("project", f"fractal.project.{job.project_id}", job.project),
        ("workflow", f"fractal.workflow.{job.workflow_id}", job.workflow),
        ("dataset", f"fractal.dataset.{job.dataset_id}", job.dataset),
    ]
    if job.user_id is not None:
        around.append(("user", f"fractal.user.{job.user_id}", job.user))
    if job.resource is not None:
        around.append(("fractal-resource", f"fractal.resource.{job.resource_id}", job.resource))
    if job.flow_run_id is not None:
        around.append(("flow-run", f"prefect.flow-run.{job.flow_run_id}", job.title))
    return [_in_role(*each) for each in around]


# Limited because events end up in mails.
_REASON_LENGTH = 1000


def _payload(
    job: JobFacts, status: str, reason: str | None, counts: Mapping[str, int]
) -> dict[str, Any]:
    """The payload of an event. All events have the same keys, so templates need not test them."""
    if reason is not None and len(reason) > _REASON_LENGTH:
        reason = f"{reason[: _REASON_LENGTH - 1]}…"
    return {
        "job": job.title,
        "job_id": job.job_id,
        "status": status,
        "reason": reason or None,
        "project_id": job.project_id,
        "project": job.project,
        "workflow_id": job.workflow_id,
        "workflow": job.workflow,
        "dataset_id": job.dataset_id,
        "dataset": job.dataset,
        "user": job.user,
        "resource": job.resource,
        "flow_run_id": job.flow_run_id and str(job.flow_run_id),
        **counts,
    }
