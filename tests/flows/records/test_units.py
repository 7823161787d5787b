"""Ends of units are counted, once, by what failed them."""

from typing import Any

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.observation import tallies
from flows.records.units import EndedUnit, record_units
from flows.units.results import UnitResult
from fractal_models.database import saved_id
from fractal_models.tables import HistoryRun, HistoryUnit
from fractal_models.tables.columns import now


def result(**fields: Any) -> UnitResult:
    given = {"index": 0, "exit_code": 0, "signal": None, "error": None, "max_rss_kb": 1}
    times = {"started_at": now(), "ended_at": now(), "cpu_seconds": 0.1}
    more = {"host": "here", "has_output": False, "has_warnings": False}
    return UnitResult(**{**given, **times, **more, **fields})


async def test_units_are_counted_once_by_what_failed_them(
    runnable: dict[str, Any], dataset: dict[str, Any], submit: Any, session: AsyncSession
) -> None:
    job_id = (await submit(runnable, dataset)).json()["id"]
    run = HistoryRun(
        dataset_id=dataset["id"], job_id=job_id, status="submitted", num_available_images=8
    )
    session.add(run)
    await session.flush()
    session.add_all(HistoryUnit(history_run_id=saved_id(run), status="submitted") for _ in range(8))
    await session.commit()
    ids = list(await session.exec(select(HistoryUnit.id).order_by(HistoryUnit.id)))
    ends = [
        ("done", result()),
        ("submitted", result()),  # the init unit of a compound task
        ("failed", result()),
        ("failed", result(exit_code=1)),
        ("failed", result(exit_code=None, signal=9)),
        ("failed", result(exit_code=None, signal=15, error="stopped")),
        ("failed", result(exit_code=127, error="executable not found")),
        ("failed", None),
    ]
    units = [EndedUnit(unit_id, *end) for unit_id, end in zip(ids, ends, strict=True)]

    await record_units(session, job_id, units[:5])
    await record_units(session, job_id, units)

    counted = {(each.outcome, each.cause): each.number for each in await tallies(session)}
    causes = ["output", "exit code", "signal", "stopped", "not started", "no result"]
    assert counted == {("done", ""): 2, **{("failed", cause): 1 for cause in causes}}
