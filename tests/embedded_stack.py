"""The whole embedded stack, one for all tests of a process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.stack import Stack, StackOptions, running_stack
from tests.cluster_machine import KNOWN_HOSTS

# A Prefect server that does sooner what it does every 5 seconds, and makes the flow runs of a
# schedule not an hour ahead: of one that is due every second, those would be a hundred.
PREFECT_SOON = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT30S",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole embedded stack, as `fractal-prefect up` starts it: it takes some seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="fractal-stack-") as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("FRACTAL_SSH_KNOWN_HOSTS", str(KNOWN_HOSTS))
        environment.setenv("FRACTAL_STOP_SECONDS", "10")
        for name, value in PREFECT_SOON.items():
            environment.setenv(name, value)
        options = StackOptions(
            data_dir=Path(folder), port=0, prefect_port=0, admin_password="of the tests"
        )
        with running_stack(options) as stack:
            yield stack
