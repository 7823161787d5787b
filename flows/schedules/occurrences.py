"""Occurrences of schedules: which ones run after a downtime, and how each ended."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse

from fractal_models.schemas.schedule import Occurrence

Node = TypeVar("Node", bound=Hashable)

# The tag of schedules' deployments, and so of all their flow runs.
TAG = "fractal-schedule"
# The name of the state of an occurrence that did not run.
SKIPPED = "Skipped"

_WAITING = (StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED)
_LEFT_OUT = (StateType.CANCELLED, StateType.CANCELLING)


def begins_by_itself(flow_run: FlowRun) -> bool:
    """Whether a schedule or an automation made a flow run, rather than a person or the REST API."""
    creator = flow_run.created_by.type if flow_run.created_by else None
    return flow_run.auto_scheduled or creator == "AUTOMATION"


def parameters_now(flow_run: FlowRun, deployment: DeploymentResponse) -> dict[str, Any] | None:
    """What a flow run that Prefect made for a time would be told if it was made now.

    None if its deployment has no such time any more. When a deployment is changed, Prefect deletes
    the flow runs that it made ahead, but may be making others just then, from what was before.
    """
    maker = flow_run.created_by.id if flow_run.created_by else None
    for times in deployment.schedules:
        if times.id == maker and times.active:
            return {**deployment.parameters, **times.parameters}
    return None


def due(flow_runs: Collection[FlowRun], moment: datetime) -> list[FlowRun]:
    """The flow runs that begin by themselves, whose time has passed, and that have never started.

    A flow run that began and was interrupted is not among them: it is continued.
    """
    return [
        each
        for each in flow_runs
        if begins_by_itself(each)
        and each.deployment_id is not None
        and each.run_count == 0
        and each.expected_start_time is not None
        and each.expected_start_time <= moment
    ]


def missed(flow_runs: Collection[FlowRun]) -> dict[UUID, list[UUID]]:
    """Maps each due flow run that is to run to the earlier ones that it replaces.

    Only the latest flow run of each schedule runs. All schedules of a Fractal deployment count as
    one.
    """
    schedules: dict[object, list[FlowRun]] = defaultdict(list)
    for each in flow_runs:
        creator = each.created_by.id if each.created_by else None
        schedules[each.deployment_id, None if TAG in each.tags else creator].append(each)
    found = {}
    for runs in schedules.values():
        *earlier, latest = sorted(runs, key=lambda run: (run.expected_start_time, run.id))
        if earlier:
            found[latest.id] = [run.id for run in earlier]
    return found


def outcome_of(flow_run: FlowRun, jobs: Mapping[UUID, tuple[int, str]]) -> Occurrence:
    """How an occurrence ended; `jobs` has, by flow run, the id and status of its job."""
    state = flow_run.state
    job_id, job_status = jobs.get(flow_run.id, (None, None))
    told: dict[str, object] = {"job_id": job_id, "job_status": job_status}
    if job_id is not None:
        outcome = "running" if job_status == "submitted" else "run"
    elif state is None or state.type in _WAITING:
        outcome = "waiting"
    elif state.type is StateType.RUNNING:
        outcome = "running"
    elif state.type is StateType.COMPLETED:
        outcome = "run"  # its job was deleted
    else:
        outcome = "skipped" if state.type in _LEFT_OUT else "failed"
        told["reason"] = state.message or f"It was {state.name} in Prefect."
    return Occurrence.model_validate(
        {
            "flow_run_id": flow_run.id,
            "expected": flow_run.expected_start_time,
            "outcome": outcome,
            **told,
        }
    )


def leads_back(follows: Iterable[tuple[Node, Node]], start: Node) -> bool:
    """Whether steps lead from `start` back to it; each pair is a step from first to second."""
    goes_to: dict[Node, list[Node]] = defaultdict(list)
    for first, second in follows:
        goes_to[first].append(second)
    reached: set[Node] = set()
    ends = [start]
    while ends:
        new = set(goes_to[ends.pop()]) - reached
        reached |= new
        ends += new
    return start in reached
