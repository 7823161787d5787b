"""The Prefect UI, in a browser: a job is found there by its name, with its task runs."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from deployments.stack import Stack
from tests.lab import Lab

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


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page of a browser with nothing remembered."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch_persistent_context(
            tmp_path / "browser",
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            viewport={"width": 1400, "height": 900},
        )
        page = browser.pages[0]
        page.set_default_timeout(PATIENCE_MS)
        yield page
        await browser.close()


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
    if target := os.environ.get("FRACTAL_SCREENSHOT"):
        await page.screenshot(path=target)


async def test_the_prefect_ui_lets_nobody_in_who_does_not_know_its_secret(
    stack: Stack, page: Page
) -> None:
    await page.goto(f"{stack.prefect_url}/dashboard")
    await page.wait_for_url(re.compile("/unauthenticated|/login"), timeout=PATIENCE_MS)
    await expect(page.locator("input[type=password]")).to_be_visible(timeout=PATIENCE_MS)


async def log_in(page: Page, stack: Stack) -> None:
    await page.goto(f"{stack.prefect_url}/dashboard")
    secret = page.locator("input[type=password]")
    await secret.fill(stack.prefect_auth)
    await secret.press("Enter")
    await secret.wait_for(state="detached")
