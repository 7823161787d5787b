"""Pauses of jobs: suspensions of their flow runs. See `JobRun.leave_if_paused`."""

import asyncio
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.states import Suspended

from flows.engine.client import Engine
from fractal_models.errors import RefusedError

# A flow run is pending only for a short time: how often to look again, and after how long.
_PENDING_TRIES, _PENDING_SECONDS = 10, 0.2


class PauseRefusedError(RefusedError):
    """A flow run cannot be paused or resumed; the message says why."""


async def pause(engine: Engine, flow_run_id: UUID, reason: str) -> None:
    """Suspend a flow run: it stops after its current workflow task, or does not begin.

    Raises:
        PauseRefusedError: the flow run cannot be suspended, e.g. because it has ended.
    """
    flow_run = await _begun_or_waiting(engine, flow_run_id)
    state = flow_run.state if flow_run else None
    if state is None or not (state.is_running() or state.is_scheduled()):
        raise PauseRefusedError(f"It is {state.name}." if state else "It has no flow run.")
    # Prefect suspends only running flow runs, unless forced.
    await suspend(engine, flow_run_id, reason, force=state.is_scheduled())


async def suspend(engine: Engine, flow_run_id: UUID, message: str, *, force: bool) -> None:
    """Set the state of a flow run to suspended, without a time limit.

    Raises:
        PauseRefusedError: Prefect does not accept this.
    """
    async with engine.asking() as client:
        result: OrchestrationResult[Any] = await client.set_flow_run_state(
            flow_run_id, Suspended(message=message), force=force
        )
    if result.status is not SetStateStatus.ACCEPT:
        raise PauseRefusedError(f"Prefect refuses: {result.details}")


async def resume(engine: Engine, flow_run_id: UUID) -> None:
    """Resume a suspended flow run.

    Raises:
        PauseRefusedError: the flow run is not suspended.
    """
    async with engine.asking() as client:
        result = await client.resume_flow_run(flow_run_id)
    if result.status is not SetStateStatus.ACCEPT:
        raise PauseRefusedError(f"Prefect refuses: {result.details}")


async def _begun_or_waiting(engine: Engine, flow_run_id: UUID) -> FlowRun | None:
    """The flow run, once it is not pending: a process that just starts could not be told."""
    for _ in range(_PENDING_TRIES):
        flow_run = (await engine.flow_runs([flow_run_id])).get(flow_run_id)
        if flow_run is None or flow_run.state is None or not flow_run.state.is_pending():
            break
        await asyncio.sleep(_PENDING_SECONDS)
    return flow_run
