from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.programs.batch_folder import PATIENCE, BatchFolder


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[BatchFolder]:
    batch = BatchFolder(tmp_path)
    yield batch
    batch.kill_all()
    for runner in batch.runners:
        runner.communicate(timeout=PATIENCE)
