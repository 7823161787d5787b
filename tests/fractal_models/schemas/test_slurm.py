from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fractal_models.schemas.meta import Retry
from fractal_models.schemas.resource import ValidResource
from fractal_models.schemas.slurm import (
    BatchingConfigSet,
    JobRunnerConfigSLURM,
    SlurmConfigSet,
    SlurmMeta,
    mebibytes,
    slurm_meta_of,
)

BATCHING = {
    "target_cpus_per_job": 4,
    "max_cpus_per_job": 8,
    "target_mem_per_job": "8G",
    "max_mem_per_job": 16384,
    "target_num_jobs": 10,
    "max_num_jobs": 20,
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4000, 4000),
        ("4000", 4000),
        ("4000M", 4000),
        ("4G", 4096),
        ("4GB", 4096),
        ("4 gb", 4096),
        ("1T", 1024**2),
        ("1024K", 1),
        ("1025KB", 2),
        ("1K", 1),
    ],
)
def test_memory_is_mib_or_has_a_unit_of_1024(value: int | str, expected: int) -> None:
    assert mebibytes(value) == expected


@pytest.mark.parametrize(
    "value",
    [0, -1, True, 1.5, None, [], "", "0", "0G", "-1G", "1.5G", "4B", "4P", "4GiB", "G", "٤"],
)
def test_what_is_no_memory_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is no memory: write a positive number of MiB"):
        mebibytes(value)


@pytest.mark.parametrize(
    "options",
    [
        {"mem": "4 GB"},
        {"mem": 4000},
        *({"time": time} for time in ("90", "90:00", "8:00:00", "100:00:00")),
        *({"time": time} for time in ("1-12", "1-12:30", "1-2:30:00")),
        {"constraint": "[rack1*2&rack2*4]|(a,b)"},
        {"gres": "gpu:a100:1,tmp:10G", "gpus": "1"},
        {"nodelist": "node[1-4,7]", "nodes": 1},
        {"shebang_line": "#! /bin/bash -l"},
        {"extra_lines": ["#SBATCH --qos=high", "module load cuda"]},
    ],
)
def test_options_are_stored_as_given(options: dict[str, Any]) -> None:
    stored = SlurmConfigSet.model_validate(options).model_dump(exclude_defaults=True)
    assert stored == options


@pytest.mark.parametrize(
    ("options", "field", "told"),
    [
        ({"mem": "much"}, "mem", "'much' is no memory"),
        ({"cpus_per_task": 0}, "cpus_per_task", "greater than 0"),
        ({"cpus_per_task": True}, "cpus_per_task", "valid integer"),
        *(
            ({"time": time}, "time", "is no time limit: write minutes, MM:SS")
            for time in ("1h", "1:60", "1:00:60", "1:0", "1-24", "1-12:60", "1-", "-1", "UNLIMITED")
        ),
        ({"partition": "a b"}, "partition", "remove blanks"),
        ({"partition": "a\n#SBATCH --wrap=x"}, "partition", "remove blanks"),
        ({"account": "a'"}, "account", "quotes"),
        ({"gres": "gpu#1"}, "gres", "#"),
        ({"shebang_line": "/bin/sh"}, "shebang_line", "does not name a shell"),
        ({"shebang_line": "#!/bin/sh\nrm"}, "shebang_line", "does not name a shell"),
        ({"extra_lines": ["#SBATCH --mem=1"]}, "extra_lines.0", "use mem instead"),
        ({"memory": 1}, "memory", "Extra inputs"),
    ],
)
def test_wrong_options_are_refused_by_their_field(
    options: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        SlurmConfigSet.model_validate(options)
    (problem,) = refused.value.errors()
    assert ".".join(map(str, problem["loc"])) == field
    assert told in problem["msg"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"target_cpus_per_job": 9},
            r"target_cpus_per_job \(9\) is more than max_cpus_per_job \(8",
        ),
        ({"target_mem_per_job": "17G"}, r"target_mem_per_job \(17G\) is more than max_mem_per_job"),
        ({"target_num_jobs": 21}, r"target_num_jobs \(21\) is more than max_num_jobs \(20\)"),
        ({"max_mem_per_job": "all"}, "'all' is no memory"),
    ],
)
def test_a_target_beyond_its_maximum_is_refused(changed: dict[str, Any], told: str) -> None:
    assert BatchingConfigSet.model_validate(BATCHING).model_dump() == BATCHING
    with pytest.raises(ValidationError, match=told):
        BatchingConfigSet.model_validate(BATCHING | changed)


@pytest.mark.parametrize(
    ("exports", "told"),
    [
        ({"1A": "x"}, "1A"),
        ({"A B": "x"}, "A B"),
        ({"A\n": "x"}, "should match pattern"),
        ({"A": "x\ny"}, "has a line break"),
        ({"A": ""}, "at least 1 character"),
    ],
)
def test_exports_are_variables_of_the_shell_with_values_of_one_line(
    exports: dict[str, str], told: str
) -> None:
    config = {"default_slurm_config": {}, "batching_config": BATCHING}
    with pytest.raises(ValidationError, match=told):
        JobRunnerConfigSLURM.model_validate(config | {"user_local_exports": exports})


def test_a_resource_is_refused_by_the_field_of_its_configuration() -> None:
    resource = {
        "type": "slurm_sudo",
        "name": "cluster",
        "jobs_local_dir": "/jobs",
        "tasks_local_dir": "/tasks",
        "tasks_python_config": {"default_version": "3.11", "versions": {"3.11": "/python"}},
        "tasks_pixi_config": {},
        "jobs_slurm_python_worker": "/usr/bin/python3",
        "jobs_runner_config": {
            "default_slurm_config": {"mem": "4X"},
            "gpu_slurm_config": {"gres": "gpu:1"},
            "batching_config": BATCHING,
        },
    }
    with pytest.raises(ValidationError) as refused:
        TypeAdapter[Any](ValidResource).validate_python(resource)
    (problem,) = refused.value.errors()
    assert problem["loc"] == ("slurm_sudo", "jobs_runner_config", "default_slurm_config", "mem")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, SlurmMeta()),
        (
            {"cpus_per_task": 4, "mem": "16G", "needs_gpu": True, "gres": "gpu:1"},
            SlurmMeta(cpus_per_task=4, mem="16G", needs_gpu=True, gres="gpu:1"),
        ),
        (
            {"tasks_per_job": 10, "parallel_tasks_per_job": 2},
            SlurmMeta(tasks_per_job=10, parallel_tasks_per_job=2),
        ),
        (
            {"retry": {"max": 2, "mem_factor": 2}},
            SlurmMeta(retry=Retry(max=2, mem_factor=2.0)),
        ),
        ({"use_mem_per_cpu": False, "account": None}, SlurmMeta(use_mem_per_cpu=False)),
    ],
)
def test_a_task_says_what_its_units_need(meta: dict[str, Any], expected: SlurmMeta) -> None:
    assert slurm_meta_of(meta) == expected


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"cpu": 4, "gpu": 1}, "^cpu: Extra inputs are not permitted; gpu: Extra"),
        ({"mem": "4X"}, "^mem: '4X' is no memory"),
        ({"needs_gpu": "yes"}, "^needs_gpu: Input should be a valid boolean"),
        ({"tasks_per_job": 4}, "^one of tasks_per_job and parallel_tasks_per_job is missing"),
        ({"parallel_tasks_per_job": 4}, "set both or neither"),
        ({"tasks_per_job": 0, "parallel_tasks_per_job": 1}, "^tasks_per_job: Input should be"),
        ({"account": "other"}, "^account: a task does not choose it: submit the job with this"),
        ({"retry": {"max": "2"}}, "^retry.max: Input should be a valid integer"),
        ({"extra_lines": ["#SBATCH -t 1"]}, "^extra_lines.0: .* use time instead"),
        ({"shebang_line": "#!/bin/sh"}, "^shebang_line: Extra inputs"),
    ],
)
def test_a_wrong_meta_is_refused_by_its_fields(meta: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        slurm_meta_of(meta)
