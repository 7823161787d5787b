"""What is shown in the Prefect UI is only shown: a job does not need it."""

import logging
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.reports.artifacts import show_text
from tests.conftest import PREFECT_AWAY


async def test_a_summary_that_prefect_does_not_take_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with temporary_settings({PREFECT_API_URL: PREFECT_AWAY}), caplog.at_level(logging.WARNING):
        await show_text("summary", "job-1-summary", "Job 1", "nothing", uuid4())
    assert "The summary cannot be shown in Prefect at present" in caplog.text
