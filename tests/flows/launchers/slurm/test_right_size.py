"""What units ask of SLURM where that is left to what earlier ones needed."""

from typing import Any

import pytest

from flows.launchers.slurm.right_size import (
    Growth,
    Measured,
    enough_for,
    grown_request,
    is_auto,
    right_size,
)
from flows.launchers.slurm.script import SlurmRequest
from fractal_models.schemas.slurm import JobRunnerConfigSLURM

MB = 1024  # KiB


def config(**fields: Any) -> JobRunnerConfigSLURM:
    """Of a resource whose SLURM jobs have at most 8 GB."""
    batching = {
        "target_cpus_per_job": 4,
        "max_cpus_per_job": 8,
        "target_mem_per_job": "8G",
        "max_mem_per_job": "8G",
        "target_num_jobs": 2,
        "max_num_jobs": 2,
    }
    given = {"default_slurm_config": {"mem": "3G"}, "batching_config": batching, **fields}
    return JobRunnerConfigSLURM.model_validate(given)


@pytest.mark.parametrize(
    ("of_resource", "said", "manifest", "expected"),
    [
        ("asked", "4G", "4G", False),
        ("asked", "auto", "4G", True),
        ("auto", "4G", "4G", True),
        ("auto", None, None, True),
        ("auto", "5G", "4G", False),  # somebody has chosen that
        ("auto", None, "4G", False),
    ],
)
def test_memory_is_auto_unless_somebody_has_chosen_it(
    of_resource: str, said: str | None, manifest: str | None, expected: bool
) -> None:
    meta, own = ({"mem": each} if each else {} for each in (said, manifest))
    assert is_auto(config(mem=of_resource), meta, own) == expected


def test_memory_is_what_earlier_units_needed_and_a_margin() -> None:
    sized = right_size(config(), {"mem": "auto", "time": "5"}, {}, Measured(2100 * MB, 1200))
    assert sized.meta == {"mem": 2700, "time": "5"}
    assert sized.told == "mem is auto: 1200 units before needed at most 2.1 GB"


@pytest.mark.parametrize(
    ("peak_mb", "units", "enough"),
    [(1, 1000, 200), (1000, 1000, 1350), (1000, 19, 1600), (1000, 20, 1350), (10, 1, 200)],
)
def test_few_measures_need_a_larger_margin_and_there_is_a_floor(
    peak_mb: int, units: int, enough: int
) -> None:
    assert enough_for(Measured(peak_mb * MB, units)) == enough


def test_memory_is_never_more_than_a_slurm_job_may_have() -> None:
    sized = right_size(config(), {"mem": "auto"}, {}, Measured(50_000 * MB, 100))
    assert sized.meta["mem"] == 8192
    meta = {"mem": "auto", "tasks_per_job": 8, "parallel_tasks_per_job": 4}
    assert right_size(config(), meta, {}, Measured(50_000 * MB, 100)).meta["mem"] == 2048


@pytest.mark.parametrize(
    ("manifest", "expected"), [({"mem": "16G"}, {"mem": "16G"}), ({}, {}), ({"mem": "auto"}, {})]
)
def test_the_first_job_asks_for_what_the_task_does(
    manifest: dict[str, str], expected: dict[str, str]
) -> None:
    assert right_size(config(), {"mem": "auto"}, manifest, None).meta == expected


def test_each_cause_makes_only_its_own_amount_grow() -> None:
    assert Growth().after("OUT_OF_MEMORY") == Growth(mem=1)
    assert Growth(1, 1).after("TIMEOUT") == Growth(mem=1, time=2)
    for other in ("NODE_FAIL", "PREEMPTED", "FAILED", "CANCELLED", "DEADLINE"):
        assert Growth().after(other) is None
    assert Growth(mem=4).after("OUT_OF_MEMORY") is None


@pytest.mark.parametrize(
    ("growth", "mem", "time"),
    [
        (Growth(), 1000, "1:30:00"),
        (Growth(mem=1), 2000, "1:30:00"),
        (Growth(mem=2), 3000, "1:30:00"),  # the most there is
        (Growth(time=2), 1000, "360"),
    ],
)
def test_what_has_run_out_is_doubled(growth: Growth, mem: int, time: str) -> None:
    request = SlurmRequest(mem=1000, time="1:30:00")
    assert grown_request(request, growth, 3000) == SlurmRequest(mem=mem, time=time)


def test_a_limit_of_time_that_nobody_asked_for_stays_that_of_the_cluster() -> None:
    assert grown_request(SlurmRequest(), Growth(time=1), 9999) == SlurmRequest()


def test_a_request_that_is_more_than_the_most_does_not_shrink() -> None:
    assert grown_request(SlurmRequest(mem=4000), Growth(mem=1), 3000).mem == 4000
