"""All requests of Fractal to Prefect, in one class."""

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkQueueFilter,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkPoolStatus
from prefect.client.schemas.responses import DeploymentResponse, OrchestrationResult, SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.events.schemas.events import Event
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed

from flows.engine.wait_reasons import PoolLimits
from flows.parameters import JobRequest
from flows.reports.text import job_title
from fractal_models.errors import FractalError, UnavailableError
from fractal_models.settings import PrefectSettings
from fractal_models.tables import EventOutbox, JobV2, Resource, TaskGroupActivityV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_JOB_KEY = re.compile(r"job-(\d+)-")

_PATIENCE_SECONDS = 10.0
_PAGE = 200  # Prefect's limit


class EngineError(FractalError):
    """Prefect did not fulfil a request."""


class EngineUnavailableError(EngineError, UnavailableError):
    """The Prefect API does not answer; the request was not fulfilled."""


class EngineRefusedError(EngineError):
    """The Prefect API refuses a request: something in Prefect is not in the expected state."""


class UnpublishedError(EngineUnavailableError):
    """Prefect does not know a resource yet."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Prefect has no {what} yet: a worker of the resource makes it when it starts."
        )


class Engine:
    """The Prefect API, as Fractal uses it.

    Every method raises EngineError: EngineUnavailableError if Prefect does not answer within 10 s,
    EngineRefusedError if it refuses.
    """

    def __init__(
        self,
        client: PrefectClient,
        seconds_in_all: float = math.inf,
        deployments: dict[str, UUID] | None = None,
    ) -> None:
        self._client = client
        self._seconds_left = seconds_in_all
        # Those of which flow runs were made, by name.
        self._deployments = {} if deployments is None else deployments

    def within(self, seconds: float) -> "Engine":
        """The same Prefect, but all requests together may take at most this many seconds."""
        return Engine(self._client, seconds, self._deployments)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[PrefectClient]:
        """The client, for requests that have no method here."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(_PATIENCE_SECONDS, self._seconds_left)):
                yield self._client
        except (httpx.TransportError, TimeoutError) as error:
            raise EngineUnavailableError(f"The Prefect API does not answer: {error!r}") from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code in (401, 403) or error.response.status_code >= 500:
                raise EngineUnavailableError(f"The Prefect API refuses: {error}") from error
            raise EngineRefusedError(str(error)) from error
        finally:
            self._seconds_left -= time.monotonic() - began

    async def greet(self) -> None:
        """Find out whether Prefect answers.

        Raises:
            EngineError: it does not.
        """
        async with self.asking():
            await self._client.hello()

    async def submit_job(self, job: JobV2, resource: Resource) -> UUID:
        """Make the flow run of a job and return its id. A second call returns the same flow run.

        Raises:
            UnpublishedError: no worker has made the resource's work pool yet.
        """
        return await self._create_flow_run(
            f"run-job/{resource.work_pool}",
            name=job_title(job),
            parameters=JobRequest.of(job).as_parameters(),
            # The time distinguishes the jobs of several databases that share a Prefect server. The
            # number of restarts allows a new flow run for a job whose flow run was deleted.
            key=f"job-{job.id}-{job.start_timestamp.isoformat()}-{job.restarts}",
            tags=_tags(job, resource.name),
        )

    async def deployment(self, deployment_id: UUID | None) -> DeploymentResponse | None:
        """A deployment; None if it was deleted."""
        if deployment_id is None:
            return None
        async with self.asking():
            try:
                return await self._client.read_deployment(deployment_id)
            except ObjectNotFound:
                return None

    async def entitle(self, flow_run: FlowRun, job: JobV2, resource_name: str) -> None:
        """Give a flow run that began in Prefect the name and the tags of its job."""
        async with self.asking():
            await self._client.update_flow_run(
                flow_run.id,
                name=job_title(job),
                tags=sorted({*flow_run.tags, *_tags(job, resource_name)}),
            )

    async def submit_activity(
        self, activity: TaskGroupActivityV2, resource: Resource, **parameters: Any
    ) -> UUID:
        """Make the flow run of an activity and return its id; a second call returns the same."""
        return await self._create_flow_run(
            f"{activity.action}-tasks/{resource.work_pool}",
            name=f"{activity.action} {activity.pkg_name} {activity.version}",
            parameters={"activity_id": activity.id, **parameters},
            key=f"task-group-activity-{activity.id}-{activity.timestamp_started.isoformat()}",
        )

    async def flow_runs(self, ids: Sequence[UUID]) -> dict[UUID, FlowRun]:
        """The flow runs with these ids, by id; those that do not exist are left out."""
        found: dict[UUID, FlowRun] = {}
        async with self.asking():
            for begin in range(0, len(ids), _PAGE):
                page = await self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(
                        id=FlowRunFilterId(any_=list(ids[begin : begin + _PAGE]))
                    ),
                    sort=FlowRunSort.ID_DESC,
                    limit=_PAGE,
                )
                found |= {flow_run.id: flow_run for flow_run in page}
        return found

    async def begun_jobs(self, pool: str) -> list[FlowRun]:
        """The flow runs of a resource's jobs that are pending, running or being stopped."""
        begun = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
        return await self._jobs(pool, begun)

    async def paused_jobs(self, pool: str) -> list[FlowRun]:
        """The flow runs of a resource's jobs that are paused."""
        return await self._jobs(pool, [StateType.PAUSED])

    async def open_runs(self, pool: str, flows: Sequence[str]) -> list[FlowRun]:
        """The flow runs of these flows in a work pool that are scheduled or have a process."""
        begun = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
        return await self._runs(pool, flows, [StateType.SCHEDULED, *begun])

    async def _jobs(self, pool: str, states: list[StateType]) -> list[FlowRun]:
        return await self._runs(pool, ["run-job"], states)

    async def _runs(
        self, pool: str, flows: Sequence[str], states: list[StateType]
    ) -> list[FlowRun]:
        found: list[FlowRun] = []
        while len(found) % _PAGE == 0:
            async with self.asking():
                page = await self._client.read_flow_runs(
                    flow_filter=FlowFilter(name=FlowFilterName(any_=list(flows))),
                    flow_run_filter=FlowRunFilter(
                        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
                    ),
                    work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
                    sort=FlowRunSort.ID_DESC,
                    limit=_PAGE,
                    offset=len(found),
                )
            if not page:
                break
            found += page
        return found

    async def go_on(self, flow_run_id: UUID, reason: str, *, delay_seconds: float = 0) -> None:
        """Restart a flow run that no process executes any more, if it is running or pending."""
        flow_run = (await self.flow_runs([flow_run_id])).get(flow_run_id)
        state = flow_run.state if flow_run is not None else None
        if flow_run is not None and state and (state.is_running() or state.is_pending()):
            await self.restart(flow_run, reason, delay_seconds=delay_seconds)

    async def restart(
        self,
        flow_run: FlowRun,
        reason: str,
        *,
        delay_seconds: float = 0,
        always: bool = False,
    ) -> bool:
        """Set a flow run to be executed again, after it crashed or lost its process.

        Its running task runs become Crashed. Returns False if Prefect refuses because the flow run
        was told to stop meanwhile; the flow run then stays as it is. With `always`, Prefect cannot
        refuse.
        """
        async with self.asking():
            lost = await self._client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])),
                task_run_filter=TaskRunFilter(
                    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
                ),
                sort=TaskRunSort.ID_DESC,
                limit=_PAGE,
            )
            for task_run in lost:
                await self._client.set_task_run_state(
                    task_run.id, Crashed(message=reason), force=True
                )
        when = now() + timedelta(seconds=delay_seconds)
        if flow_run.expected_start_time is not None:  # it may begin some seconds early
            when = max(when, flow_run.expected_start_time)
        async with self.asking():
            result: OrchestrationResult[Any] = await self._client.set_flow_run_state(
                flow_run.id,
                AwaitingRetry(message=reason, scheduled_time=when),
                # Unless forced, Prefect allows a flow run that is being cancelled only to end.
                force=always or flow_run.state is None or flow_run.state.is_final(),
            )
        accepted = result.status is SetStateStatus.ACCEPT
        if not accepted:
            logger.warning("Prefect does not restart %s: %s", flow_run.name, result.details)
        return accepted

    async def end(self, flow_run_id: UUID, state: State[Any]) -> None:
        """Set the final state of a flow run that no process executes."""
        async with self.asking():
            await self._client.set_flow_run_state(flow_run_id, state, force=True)

    async def log(self, messages: Mapping[UUID, str]) -> None:
        """Write one line to the log of each of these flow runs."""
        lines = [
            LogCreate(
                name="prefect.flow_runs",
                level=logging.WARNING,
                message=message,
                timestamp=now(),
                flow_run_id=flow_run_id,
            )
            for flow_run_id, message in messages.items()
        ]
        async with self.asking():
            await self._client.create_logs(lines)

    async def pool_limits(self, pool: str) -> PoolLimits | None:
        """The limits for which a work pool's flow runs wait; None if the pool does not exist."""
        async with self.asking():
            try:
                found, queues = await asyncio.gather(
                    self._client.read_work_pool(pool),
                    self._client.read_work_queues(pool, WorkQueueFilter(), _PAGE, 0),
                )
            except ObjectNotFound:
                return None
        return PoolLimits(found, {queue.name: queue for queue in queues})

    async def has_pool(self, pool: str) -> bool:
        """Whether there is a work pool of this name."""
        async with self.asking():
            try:
                await self._client.read_work_pool(pool)
            except ObjectNotFound:
                return False
        return True

    async def pools_without_worker(self, pools: Sequence[str]) -> set[str]:
        """Those of the work pools that no worker has polled lately; unknown ones are left out."""
        async with self.asking():
            found = await self._client.read_work_pools(
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=list(pools)))
            )
        return {pool.name for pool in found if pool.status is WorkPoolStatus.NOT_READY}

    async def schedule(self, flow_run_id: UUID, state: State[Any]) -> None:
        """Set the state of a waiting flow run, and so its start time, unless it was deleted."""
        async with self.asking():
            with suppress(ObjectNotFound):
                await self._client.set_flow_run_state(flow_run_id, state)

    async def emit(self, events: Sequence[EventOutbox]) -> None:
        """Send events to Prefect. It stores them seconds later: if it dies first, they are lost."""
        body = [
            Event.model_validate(event.model_dump(exclude={"sent"})).model_dump(mode="json")
            for event in events
        ]
        async with self.asking():
            await self._client.request("POST", "/events", json=body)

    async def known_events(self, occurred: Mapping[UUID, datetime]) -> list[UUID]:
        """Those of at most 50 events that Prefect has stored; `occurred` has their times, by id."""
        first, last = min(occurred.values()), max(occurred.values())
        wanted = {
            "id": {"id": [str(event_id) for event_id in occurred]},
            "occurred": {"since": first.isoformat(), "until": last.isoformat()},
        }
        async with self.asking():
            answer = await self._client.request("POST", "/events/filter", json={"filter": wanted})
        return [UUID(event["id"]) for event in answer.json()["events"]]

    async def cancel(self, flow_run_id: UUID) -> bool:
        """Ask a flow run to stop. True if it has ended now, as one that was waiting does."""
        async with self.asking():
            try:
                result: OrchestrationResult[Any] = await self._client.set_flow_run_state(
                    flow_run_id, Cancelling(message="Stopped through the Fractal API.")
                )
            except ObjectNotFound:
                return True
        return result.state is not None and result.state.is_final()

    async def cancel_at_once(self, flow_run_id: UUID, reason: str) -> None:
        """Cancel a flow run that probably has no process. If it has one, its worker ends that."""
        if not await self.cancel(flow_run_id):
            await self.end(flow_run_id, Cancelled(message=reason))

    async def _create_flow_run(
        self,
        deployment: str,
        *,
        name: str,
        parameters: dict[str, Any],
        key: str,
        tags: Sequence[str] = (),
    ) -> UUID:
        create = partial(
            self._client.create_flow_run_from_deployment,
            name=name,
            parameters=parameters,
            idempotency_key=key,
            tags=tags,
        )
        async with self.asking():
            known = self._deployments.get(deployment)
            try:
                flow_run = await create(known or await self._deployment_id(deployment))
            except PrefectHTTPStatusError as error:
                if known is None or error.response.status_code != httpx.codes.NOT_FOUND:
                    raise
                # It was deleted, and perhaps made again.
                flow_run = await create(await self._deployment_id(deployment))
        return flow_run.id

    async def _deployment_id(self, name: str) -> UUID:
        self._deployments.pop(name, None)
        try:
            found = await self._client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            raise UnpublishedError(f"deployment {name!r}") from error
        self._deployments[name] = found.id
        return found.id


def job_id_of(flow_run: FlowRun) -> int | None:
    """The id of the job for which a flow run was made; None if the flow run began in Prefect."""
    found = _JOB_KEY.match(flow_run.idempotency_key or "")
    return int(found[1]) if found else None


def _tags(job: JobV2, resource_name: str) -> list[str]:
    return [
        f"project:{job.project_dump['name']}",
        f"user:{job.user_email}",
        f"resource:{resource_name}",
    ]


@asynccontextmanager
async def open_engine(settings: PrefectSettings) -> AsyncIterator[Engine]:
    """An engine for the duration of a block. Prefect need not be reachable yet."""
    auth = settings.prefect_auth_string
    client = PrefectClient(
        settings.prefect_api_url,
        auth_string=auth.get_secret_value() if auth else None,
        server_type=None,
    )
    async with client:
        yield Engine(client)
