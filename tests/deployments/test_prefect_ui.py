"""The Prefect UI, in a browser: a job is found there by its name, with its task runs."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from prefect.client.orchestration import PrefectClient

from deployments.stack import Stack
from tests.journal import Journal
from tests.lab import Lab, eventually

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make browser)"),
]


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page of a browser with nothing remembered."""
    async with await chromium.new_context(viewport={"width": 1400, "height": 900}) as context:
        context.set_default_timeout(PATIENCE_MS)
        yield await context.new_page()


async def test_a_job_is_found_in_the_prefect_ui_with_its_task_runs(
    stack: Stack, lab: Lab, page: Page
) -> None:
    dataset = await lab.dataset("A01", "A02", "B01", "B02")
    workflow = await lab.workflow("Copy", "Process", "Combine")
    job = await lab.run(workflow, dataset)
    assert job["status"] == "done"

    await log_in(page, stack)
    await page.goto(f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}")
    name = f"job {job['id']} · {workflow['name']} on {dataset['name']}"
    await expect(page.get_by_text(name).first).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_text("Completed").first).to_be_visible(timeout=PATIENCE_MS)
    await page.get_by_text("Task Runs", exact=True).click()
    for task_run in ("0 Copy", "1 Process", "2 Combine"):
        await expect(page.get_by_text(task_run, exact=True).first).to_be_visible(
            timeout=PATIENCE_MS
        )
    await shoot(page, "prefect-ui")


async def test_the_summary_of_a_job_is_among_its_artifacts(
    stack: Stack, lab: Lab, page: Page
) -> None:
    dataset = await lab.dataset("A01", "A02", "B01", "B02")
    fails = {"args_parallel": {"fail_on": ["A01_copy", "B01_copy", "B02_copy"]}}
    workflow = await lab.workflow("Copy", ("Process", fails))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    await log_in(page, stack)
    await page.goto(f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}")
    await page.get_by_text("Artifacts", exact=True).click()
    await page.get_by_text(f"job-{job['id']}-summary").first.click()
    await expect(page.get_by_text("Peak RAM").first).to_be_visible()
    await expect(page.get_by_text("Warnings").first).to_be_visible()
    await shoot(page, "prefect-summary", height=480)


async def test_the_form_of_the_deployment_starts_a_job(
    stack: Stack, lab: Lab, page: Page, prefect: PrefectClient
) -> None:
    dataset = await lab.dataset("A01", "A02")
    workflow = await lab.workflow("Process")
    deployment = await prefect.read_deployment_by_name("run-job/local")
    await log_in(page, stack)
    await page.goto(f"{stack.prefect_url}/deployments/deployment/{deployment.id}/run")
    email = stack.initialised.admin_email
    await expect(page.get_by_text("Email of the user who runs the job")).to_be_visible()
    for place, text in enumerate((email, "lab", workflow["name"], str(dataset["id"]))):
        await page.locator("textarea").nth(place).fill(text)
    await shoot(page, "prefect-form")
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_text("scheduled to start").first).to_be_visible(timeout=PATIENCE_MS)
    url = f"{lab.base}/workflow/{workflow['id']}/job/"
    (job,) = await eventually(lambda: lab.ok("GET", url), bool)
    assert (await lab.ended(job))["status"] == "done"
    assert (job["user_email"], job["dataset_id"]) == (email, dataset["id"])


async def test_a_run_is_suspended_resumed_and_cancelled_in_the_ui(
    stack: Stack, journal_lab: Lab, journal: Journal, page: Page, gate: Path
) -> None:
    first = {"args_parallel": {**journal.args, "until": str(gate)}}
    second = {"args_parallel": {**journal.args, "seconds": 60}}
    workflow = await journal_lab.workflow(("Journal process", first), ("Journal process", second))
    job = await journal_lab.submit(workflow, await journal_lab.dataset("A"))
    await log_in(page, stack)
    await page.goto(f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}")
    await confirm(page, "Suspend")
    await expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=PATIENCE_MS)
    gate.touch()
    await eventually(
        lambda: journal_lab.job(job, show_tmp_logs=True),
        lambda now: "Paused before 1 Journal process" in (now["log"] or ""),
    )
    await shoot(page, "prefect-paused", height=560)
    assert len(journal.ended()) == 1
    await confirm(page, "Resume")
    await journal.begins_again(2)
    await confirm(page, "Cancel")
    ended = await journal_lab.ended(job)
    assert "Job stopped" in ended["log"]
    await expect(page.get_by_text("Cancelled").first).to_be_visible(timeout=PATIENCE_MS)


async def test_a_failed_run_that_is_retried_in_the_ui_continues_its_job(
    stack: Stack, journal_lab: Lab, journal: Journal, page: Page
) -> None:
    args = {"args_parallel": {**journal.args, "fail_first": ["B"]}}
    workflow = await journal_lab.workflow(("Journal process", args), "Combine")
    job = await journal_lab.run(workflow, await journal_lab.dataset("A", "B"))
    assert job["status"] == "failed"
    await log_in(page, stack)
    await page.goto(f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}")
    await confirm(page, "Retry")
    await eventually(lambda: journal_lab.job(job), lambda now: now["status"] == "done")
    await expect(page.get_by_text("Completed").first).to_be_visible(timeout=PATIENCE_MS)
    assert len(journal.began()) == 3


async def test_the_prefect_ui_lets_nobody_in_who_does_not_know_its_secret(
    stack: Stack, page: Page
) -> None:
    await page.goto(f"{stack.prefect_url}/dashboard")
    await page.wait_for_url(re.compile("/unauthenticated|/login"), timeout=PATIENCE_MS)
    await expect(page.locator("input[type=password]")).to_be_visible(timeout=PATIENCE_MS)


async def confirm(page: Page, action: str) -> None:
    """Press a button of a run's page, and confirm it in the dialogue which then opens."""
    await page.get_by_role("button", name=action).first.click()
    buttons = page.locator(".p-modal__footer").get_by_role("button")
    await buttons.filter(has_not_text="Close").click()
    await page.locator(".p-modal__footer").wait_for(state="detached")


async def shoot(page: Page, name: str, height: int = 900) -> None:
    """Keep a picture for docs/ of the upper part of a page, where asked for."""
    if folder := os.environ.get("FRACTAL_SCREENSHOTS"):
        clip = {"x": 0, "y": 0, "width": 1400, "height": height}
        await page.screenshot(path=Path(folder, f"{name}.png"), clip=clip)


async def log_in(page: Page, stack: Stack) -> None:
    await page.goto(f"{stack.prefect_url}/dashboard")
    secret = page.locator("input[type=password]")
    await secret.fill(stack.prefect_auth)
    await secret.press("Enter")
    await secret.wait_for(state="detached")
