"""How a batch is split into SLURM jobs, and what is kept of its submissions."""

from pathlib import Path
from typing import Any, cast

import pytest

from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.state import STATE_FILE, SlurmState, Submission
from flows.units.batch import Batch, BatchUnit, DamagedBatchError
from fractal_models.schemas.slurm import JobRunnerConfigSLURM


@pytest.fixture
def job(tmp_path: Path) -> SlurmContext:
    """A job that plans, and needs no cluster for that."""
    config = {
        "default_slurm_config": {"cpus_per_task": 1, "mem": "1G"},
        "gpu_slurm_config": {"gpus": "1"},
        "batching_config": {
            "target_cpus_per_job": 4,
            "max_cpus_per_job": 8,
            "target_mem_per_job": "8G",
            "max_mem_per_job": "8G",
            "target_num_jobs": 2,
            "max_num_jobs": 2,
        },
    }
    no: Any = cast(Any, None)
    return SlurmContext(
        cluster=no,
        queue=no,
        pace=no,
        config=JobRunnerConfigSLURM.model_validate(config),
        home=tmp_path,
        account=None,
        worker_init=None,
        seconds=1.0,
        on_submitted=no,
        say=no,
    )


def batch(units: int, **fields: Any) -> Batch:
    return Batch(
        folder=Path("batch"),
        units_dir=Path("units"),
        command=("true",),
        common_args={},
        units=[BatchUnit(n, str(n), {}) for n in range(units)],
        max_parallel=1,
        **fields,
    )


@pytest.mark.parametrize(
    ("meta", "sizes", "parallel_tasks"),
    [
        ({}, [5, 5], 5),
        ({"mem": "4G"}, [5, 5], 2),
        ({"needs_gpu": True}, [5, 5], 1),
        ({"needs_gpu": True, "tasks_per_job": 5, "parallel_tasks_per_job": 2}, [5, 5], 2),
    ],
    ids=["by cpus", "by memory", "one unit per GPU", "units that share a GPU"],
)
def test_units_are_split_by_what_they_need(
    job: SlurmContext, meta: dict[str, Any], sizes: list[int], parallel_tasks: int
) -> None:
    split = job.split(batch(10, meta=meta))
    assert (split.sizes, split.parallel_tasks) == (sizes, parallel_tasks)


def test_each_attempt_may_have_more_memory(job: SlurmContext) -> None:
    meta = {"retry": {"max": 2, "mem_factor": 1.5}}
    requests = [job.request(batch(1, meta=meta, attempt=attempt)) for attempt in (1, 2, 3)]
    assert [request.mem for request in requests] == [1024, 1536, 2304]


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    submission = Submission("a", [0, 1], 0, 1.5, 12, [1], left=[2, 1])
    state = SlurmState([2, 1], 4, [submission], {2: "TIMEOUT"}, {1: 2.5}, {1: ["FORGOTTEN"]}, [0])
    state.write(tmp_path)
    assert SlurmState.read(tmp_path) == state
    assert state.split("abc") == ["ab", "c"]


def test_a_part_is_executed_by_its_latest_submission_that_is_not_settled() -> None:
    first, second = Submission("a", [0, 1], 0, 1.0, settled=[0]), Submission("b", [0], 0, 2.0)
    state = SlurmState([1, 1], 1, [first, second])
    assert (state.submission_of(0), state.submission_of(1)) == (second, first)
    second.settled.append(0)
    assert state.submission_of(0) is None


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"format": 1, "sizes": [1]}'])
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(DamagedBatchError, match=STATE_FILE):
        SlurmState.read(tmp_path)


def test_before_anything_is_kept_there_is_nothing(tmp_path: Path) -> None:
    assert SlurmState.read(tmp_path) is None
