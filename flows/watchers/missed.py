"""Skips missed occurrences of schedules, except the latest of each schedule."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import StateCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.engine.client import Engine
from flows.schedules.occurrences import SKIPPED, due, missed
from fractal_models.tables.columns import now

_PAGE, _AT_ONCE = 200, 50  # Prefect's limits


class MissedOccurrences:
    """Occurrences overdue because no worker ran, or the work pool was full or paused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def skip(self, flow_runs: Sequence[FlowRun], begun: Collection[UUID]) -> set[UUID]:
        """Skip overdue flow runs, except the latest of each schedule. Returns the skipped ids.

        `flow_runs` are those that a worker could start now, `begun` those that it is starting.
        """
        moment = now()
        overdue = [each for each in due(flow_runs, moment) if each.id not in begun]
        if not overdue:
            return set()
        deployments = sorted({each.deployment_id for each in overdue if each.deployment_id})
        skipped: set[UUID] = set()
        async with self._engine.asking() as client:
            waiting = due(await _scheduled(client, deployments, moment), moment)
        times = {each.id: each.expected_start_time for each in waiting}
        for latest, earlier in missed([each for each in waiting if each.id not in begun]).items():
            await self._skip(earlier, times[latest])
            skipped.update(earlier)
        return skipped

    async def _skip(self, ids: list[UUID], instead: datetime | None) -> None:
        """Cancel flow runs, unless another worker has started them meanwhile."""
        message = (
            "Missed: no worker had room for it in time. "
            f"The occurrence of {instead:%Y-%m-%d %H:%M:%S} UTC is run in its place."
        )
        state = StateCreate(type=StateType.CANCELLED, name=SKIPPED, message=message)
        for begin in range(0, len(ids), _AT_ONCE):
            wanted = FlowRunFilter(
                id=FlowRunFilterId(any_=ids[begin : begin + _AT_ONCE]),
                state=_in_state(StateType.SCHEDULED),
            )
            body = {"flow_runs": wanted, "state": state}
            async with self._engine.asking() as client:
                await client.request(
                    "POST",
                    "/flow_runs/bulk_set_state",  # type: ignore[arg-type]  # not in its list
                    json={key: value.model_dump(mode="json") for key, value in body.items()},
                )


async def _scheduled(
    client: PrefectClient, deployment_ids: list[UUID], moment: datetime
) -> list[FlowRun]:
    """All scheduled flow runs of these deployments that should have begun before `moment`."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=deployment_ids),
                state=_in_state(StateType.SCHEDULED),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=moment),
            ),
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


def _in_state(type_: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=[type_]))
