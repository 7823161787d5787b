"""What those see who watch an installation, while the Prefect API is away."""

import asyncio
import os
import re
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession

from api.app import create_app
from flows.monitoring.folders import Folders
from flows.monitoring.request_times import RequestTimes, shared_by_processes
from flows.records import observation
from fractal_models.settings import Settings
from fractal_models.tables import Resource

TOKEN = "of those who watch the installation"


def read(text: str) -> dict[tuple[str, ...], float]:
    """The values of metrics, by their names and the values of their labels, sorted by label."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})


async def test_administrators_and_who_has_the_token_may_read(
    anonymous: httpx.AsyncClient, owner: Any, admin: Any
) -> None:
    for path in ("/metrics", "/api/health/"):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        wrong = {"Authorization": f"Bearer {TOKEN}!"}
        answers = [
            await anonymous.get(path),
            await anonymous.get(path, headers=wrong),
            await owner.get(path),
            await admin.get(path),
            await anonymous.get(path, headers=bearer),
        ]
        seen = 503 if "health" in path else 200
        assert [each.status_code for each in answers] == [401, 401, 403, seen, seen]


async def test_metrics_tell_of_open_jobs_and_count_ends(
    admin: Any,
    owner: Any,
    resource: Resource,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Any,
    session: AsyncSession,
) -> None:
    job = (await submit(runnable, dataset)).json()
    counts = {("done", ""): 3, ("failed", "signal"): 2}
    await observation.count_ended(session, job["id"], "unit", counts)
    await observation.count_ended(session, job["id"], "unit", {("done", ""): 4})
    await observation.sign(session, resource.work_pool, {"worker": 7.0, "reconciler": 90.0})
    await observation.sign(session, resource.work_pool, {"worker": 70.0})  # another one of it

    seen = read((await admin.get("/metrics")).text)
    assert (seen["fractal_database_up",], seen["fractal_prefect_up",]) == (1, 0)
    assert seen["fractal_jobs", "here", "running"] == 0
    assert seen["fractal_jobs", "here", "waiting"] == 1
    assert 0 < seen["fractal_oldest_waiting_job_seconds", "here"] < 100
    assert seen["fractal_units_ended_total", "", "done", "here"] == 7
    assert seen["fractal_units_ended_total", "signal", "failed", "here"] == 2
    assert 7 <= seen["fractal_silence_seconds", "worker", "here"] < 60
    assert 90 <= seen["fractal_silence_seconds", "reconciler", "here"] < 200
    assert seen["fractal_folder_up", resource.jobs_local_dir] == 1
    free = seen["fractal_folder_free_bytes", resource.jobs_local_dir]
    assert 0 < free <= seen["fractal_folder_size_bytes", resource.jobs_local_dir]
    assert ("fractal_jobs_ended_total", "stopped", "here") not in seen

    await owner.ok("GET", f"/api/v2/project/{job['project_id']}/job/{job['id']}/stop/")
    seen = read((await admin.get("/metrics")).text)
    assert seen["fractal_jobs", "here", "waiting"] == 0
    assert seen["fractal_oldest_waiting_job_seconds", "here"] == 0
    assert seen["fractal_jobs_ended_total", "stopped", "here"] == 1


async def test_requests_are_measured_by_their_endpoint(admin: Any) -> None:
    async def count(*labels: str) -> float:
        return read((await admin.get("/metrics")).text).get(labels, 0.0)

    missing = ("fractal_endpoint_seconds_count", "GET", "/api/v2/project/{project_id}/", "4xx")
    unknown = ("fractal_endpoint_seconds_count", "GET", "none", "4xx")
    before = await count(*missing), await count(*unknown)
    for number in range(3):
        await admin.get(f"/api/v2/project/{10**6 + number}/")
        await admin.get(f"/no/such/path/{number}")
    assert (await count(*missing), await count(*unknown)) == (before[0] + 3, before[1] + 3)
    assert await count("fractal_request_seconds_count", "GET", "4xx") >= 6


async def test_health_names_what_is_not_well(
    admin: Any, resource: Resource, session: AsyncSession
) -> None:
    await observation.sign(session, resource.work_pool, {"worker": 1.0, "squeue": 600.0})
    answer = await admin.get("/api/health/")
    parts = {part["name"]: part for part in answer.json()["parts"]}
    assert (answer.status_code, answer.json()["ok"]) == (503, False)
    assert parts["database"] == {"name": "database", "ok": True, "state": "answers"}
    assert parts["prefect"] == {"name": "prefect", "ok": False, "state": "does not answer"}
    assert parts["worker of here"]["ok"]
    assert parts["squeue of here"]["state"].startswith("did its work 60")
    assert not parts["squeue of here"]["ok"]
    assert parts[resource.jobs_local_dir]["state"].endswith("GiB are free")


async def test_what_needs_no_database_is_told_without_one(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://me@127.0.0.1:9/none"})
    app = create_app(away)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://fractal",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as client,
    ):
        seen = read((await client.get("/metrics")).text)
        health = await client.get("/api/health/")
    assert seen["fractal_database_up",] == 0
    assert not [name for name, *_ in seen if name == "fractal_jobs"]
    assert health.json()["parts"][0] == {
        "name": "database",
        "ok": False,
        "state": "does not answer",
    }


async def test_example_alerts_are_of_metrics_that_there_are(admin: Any) -> None:
    text = (await admin.get("/metrics")).text
    families = {family.name for family in text_string_to_metric_families(text)}
    known = {name for name in families if not name.endswith("_created")}  # of one process alone
    alerts = (Path(__file__).parents[2] / "docs" / "alerts.yml").read_text()
    used = {
        re.sub("_(total|count|bucket)$", "", name) for name in re.findall(r"fractal_\w+", alerts)
    }
    assert used <= known
    document = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    described = re.findall(r"`(fractal_\w+)`", document)
    assert {name.removesuffix("_total") for name in described} == known


async def test_a_folder_that_hangs_takes_one_thread_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, asked = Event(), []

    def hanging(path: Path) -> Any:
        asked.append(path)
        goes_on.wait()
        return used

    used, folders = shutil.disk_usage(tmp_path), Folders()
    monkeypatch.setattr(shutil, "disk_usage", hanging)
    monkeypatch.setattr("flows.monitoring.folders._SECONDS", 0.05)
    below = str(tmp_path / "not" / "there")
    for _ in range(3):
        assert await folders.spaces([below]) == {below: None}
    assert asked == [tmp_path]
    goes_on.set()
    await asyncio.sleep(0)
    monkeypatch.setattr("flows.monitoring.folders._SECONDS", 10.0)
    assert (await folders.spaces([below]))[below] == (used.total, used.free)


def test_processes_that_are_forked_measure_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with shared_by_processes():
        times = RequestTimes()
        for _ in range(2):
            if (child := os.fork()) == 0:
                times.took("GET", "/a/", "2xx", 0.25)
                os._exit(0)
            os.waitpid(child, 0)
        times.took("GET", "/a/", "2xx", 0.5)
        registry = CollectorRegistry()
        registry.register(times.collector())
        seen = read(generate_latest(registry).decode())
    assert seen["fractal_endpoint_seconds_count", "GET", "/a/", "2xx"] == 3
    assert seen["fractal_endpoint_seconds_sum", "GET", "/a/", "2xx"] == 1.0
    assert seen["fractal_request_seconds_bucket", "0.25", "GET", "2xx"] == 2
