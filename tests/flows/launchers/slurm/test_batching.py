from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flows.launchers.slurm.batching import Batching, BatchingError, plan_batching
from fractal_models.schemas.slurm import BatchingConfigSet, mebibytes

CONFIG = BatchingConfigSet(
    target_cpus_per_job=10,
    max_cpus_per_job=20,
    target_mem_per_job="10000M",
    max_mem_per_job="20000M",
    target_num_jobs=4,
    max_num_jobs=8,
)


@pytest.mark.parametrize(
    ("num_units", "cpus_per_task", "mem", "num_jobs", "tasks_per_job", "parallel_tasks_per_job"),
    [
        # Within the targets: as few jobs as there can be, all about as large.
        (1, 1, 1, 1, 1, 1),
        (10, 1, 1, 1, 10, 10),
        (11, 1, 1, 2, 6, 6),
        (40, 1, 1, 4, 10, 10),
        (5, 4, 1, 3, 2, 2),
        (5, 1, 4000, 3, 2, 2),
        # One unit is above the target size.
        (3, 11, 1, 3, 1, 1),
        (3, 1, 20000, 3, 1, 1),
        # Above the target size, so that the number of jobs stays at its target.
        (41, 1, 1, 4, 11, 11),
        (80, 1, 1, 4, 20, 20),
        # Above both targets.
        (81, 1, 1, 5, 17, 17),
        (160, 1, 1, 8, 20, 20),
        (8, 20, 1, 8, 1, 1),
        # As many jobs as there may be, with a queue in each.
        (161, 1, 1, 8, 21, 20),
        (1000, 5, 1, 8, 125, 4),
        (9, 20, 1, 8, 2, 1),
        (100, 1, 20000, 8, 13, 1),
    ],
)
def test_units_are_put_together_within_targets_then_limits_then_with_a_queue(
    num_units: int,
    cpus_per_task: int,
    mem: int,
    num_jobs: int,
    tasks_per_job: int,
    parallel_tasks_per_job: int,
) -> None:
    planned = plan_batching(num_units, cpus_per_task=cpus_per_task, mem=mem, config=CONFIG)
    assert planned == Batching(num_units, num_jobs, parallel_tasks_per_job)
    assert planned.tasks_per_job == tasks_per_job


@pytest.mark.parametrize(
    ("num_units", "tasks_per_job", "parallel_tasks_per_job", "expected"),
    [
        (100, 50, 5, Batching(100, 2, 5)),
        (101, 50, 5, Batching(101, 3, 5)),
        (100, 25, 20, Batching(100, 4, 20)),
        (3, 50, 5, Batching(3, 1, 3)),
        (8, 1, 1, Batching(8, 8, 1)),
    ],
)
def test_what_a_task_asks_for_is_taken(
    num_units: int, tasks_per_job: int, parallel_tasks_per_job: int, expected: Batching
) -> None:
    planned = plan_batching(
        num_units,
        cpus_per_task=1,
        mem=1,
        config=CONFIG,
        tasks_per_job=tasks_per_job,
        parallel_tasks_per_job=parallel_tasks_per_job,
    )
    assert planned == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"cpus_per_task": 21},
            "One unit needs 21 CPUs, but max_cpus_per_job .* 20: lower cpus_pe",
        ),
        ({"mem": 20001}, "One unit needs 20001 MiB .* max_mem_per_job .* 20000: lower mem of"),
        (
            {"tasks_per_job": 2, "parallel_tasks_per_job": 3},
            r"parallel_tasks_per_job \(3\) is more than tasks_per_job \(2\)",
        ),
        (
            {"tasks_per_job": 30, "parallel_tasks_per_job": 21},
            "21 units at once need 21 CPUs.* lower parallel_tasks_per_job or cpus_per_task",
        ),
        (
            {"tasks_per_job": 30, "parallel_tasks_per_job": 3, "mem": 8000},
            "3 units at once need 24000 MiB .* lower parallel_tasks_per_job or mem",
        ),
        (
            {"tasks_per_job": 12, "parallel_tasks_per_job": 1},
            "are 9 SLURM jobs, but max_num_jobs .* is 8: raise tasks_per_job of the task to 13",
        ),
    ],
)
def test_what_is_impossible_is_refused_by_its_fields(asked: dict[str, int], told: str) -> None:
    with pytest.raises(BatchingError, match=told):
        plan_batching(100, config=CONFIG, **({"cpus_per_task": 1, "mem": 1} | asked))


def test_units_are_split_evenly_and_in_their_order() -> None:
    assert Batching(7, 3, 1).split("abcdefg") == ["ab", "cd", "efg"]
    assert Batching(2, 2, 1).split([5, 6]) == [[5], [6]]


@st.composite
def configs(draw: st.DrawFn) -> BatchingConfigSet:
    limits: dict[str, Any] = {}
    for what in ("cpus_per_job", "mem_per_job", "num_jobs"):
        limits[f"max_{what}"] = draw(st.integers(1, 50))
        limits[f"target_{what}"] = draw(st.integers(1, limits[f"max_{what}"]))
    return BatchingConfigSet(**limits)


@given(st.integers(1, 3000), st.integers(1, 50), st.integers(1, 50), configs())
def test_all_limits_hold_and_all_units_are_in_some_job(
    num_units: int, cpus_per_task: int, mem: int, config: BatchingConfigSet
) -> None:
    max_mem, target_mem = mebibytes(config.max_mem_per_job), mebibytes(config.target_mem_per_job)
    assume(cpus_per_task <= config.max_cpus_per_job and mem <= max_mem)
    planned = plan_batching(num_units, cpus_per_task=cpus_per_task, mem=mem, config=config)

    jobs = planned.split(range(num_units))
    assert [unit for job in jobs for unit in job] == list(range(num_units))
    assert len(jobs) == planned.num_jobs <= config.max_num_jobs
    assert max(map(len, jobs)) == planned.tasks_per_job <= min(map(len, jobs)) + 1
    at_once = planned.parallel_tasks_per_job
    assert 1 <= at_once <= planned.tasks_per_job
    assert at_once * cpus_per_task <= config.max_cpus_per_job
    assert at_once * mem <= max_mem

    fit = min(config.target_cpus_per_job // cpus_per_task, target_mem // mem)
    if fit * config.target_num_jobs >= num_units:
        assert planned.num_jobs <= config.target_num_jobs
        assert planned.tasks_per_job == at_once <= fit
    fit = min(config.max_cpus_per_job // cpus_per_task, max_mem // mem)
    if fit * config.max_num_jobs >= num_units:
        assert planned.tasks_per_job == at_once
