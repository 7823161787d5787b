"""The report of real jobs, also of those whose files or data are gone."""

import shutil
from typing import Any

from sqlalchemy import make_url
from sqlmodel import select

from deployments.stack import Stack
from fractal_models.database import open_database
from fractal_models.tables import Allocation
from tests.lab import Lab


async def report_of(lab: Lab, job: dict[str, Any]) -> str:
    answer = await lab.client.get(f"{lab.base}/job/{job['id']}/report.html")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in answer.headers["content-security-policy"]
    return answer.text


async def allocations(stack: Stack, job: dict[str, Any]) -> list[Allocation]:
    url = make_url(stack.environment["FRACTAL_DATABASE_URL"])
    async with open_database(url) as sessions, sessions() as session:
        found = await session.exec(
            select(Allocation).where(Allocation.job_id == job["id"]).order_by(Allocation.batch)  # type: ignore[arg-type]
        )
        return list(found)


async def test_a_job_leaves_what_its_runners_did_and_a_report(lab: Lab, stack: Stack) -> None:
    dataset = await lab.dataset("A", "B", "C")
    args = {
        "args_parallel": {"fail_on": ["B_copy"]},
        "meta_parallel": {"retry": {"max": 1, "delay_seconds": 0}},
    }
    workflow = await lab.workflow("Copy", ("Process", args))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    found = await allocations(stack, job)
    assert [(each.batch, each.num_units) for each in found] == [
        ("0_copy/batches/init", 1),
        ("0_copy/batches/parallel", 3),
        ("1_process/batches/parallel", 3),
        ("1_process/batches/parallel-2", 1),
    ]
    assert len({each.history_run_id for each in found}) == 2
    assert all(each.cpus is None and each.cpu_seconds > 0 for each in found)
    assert all(each.ended_at >= each.started_at for each in found)

    whole = await report_of(lab, job)
    assert "1 unit: exit code 1: this image cannot be processed" in whole
    assert "3: 2 done, 1 failed, 1 run again" in whole
    shutil.rmtree(job["working_dir"])
    assert await report_of(lab, job) == whole  # from the archive

    await lab.ok("DELETE", f"{lab.base}/dataset/{dataset['id']}/")
    assert "<h3>Failures</h3>" in whole
    assert "<h3>Failures</h3>" not in await report_of(lab, job)  # history went with the dataset
    kept = await allocations(stack, job)
    assert [each.history_run_id for each in kept] == [None] * 4
    assert [each.cpu_seconds for each in kept] == [each.cpu_seconds for each in found]
