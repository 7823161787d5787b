"""What a resource may say of pixi."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fractal_models.schemas.pixi import TasksPixiConfig
from fractal_models.schemas.resource import ValidResource, ValidResourceSlurmSSH

CONFIG = {"versions": {"0.50.0": "/pixi/0.50.0"}, "default_version": "0.50.0"}
SLURM = {"partition": "main", "cpus": 2, "mem": "4G", "time": "60"}
_config = TypeAdapter(TasksPixiConfig)


def stored(config: Any) -> Any:
    return _config.dump_python(_config.validate_python(config))


def test_nothing_says_that_there_is_no_pixi() -> None:
    assert stored({}) == {}


def test_what_is_not_said_is_filled_in_once() -> None:
    filled = stored(CONFIG)
    assert filled == {
        **CONFIG,
        "PIXI_CONCURRENT_SOLVES": 4,
        "PIXI_CONCURRENT_DOWNLOADS": 4,
        "TOKIO_WORKER_THREADS": 2,
        "DEFAULT_ENVIRONMENT": "default",
        "DEFAULT_PLATFORM": "linux-64",
        "SLURM_CONFIG": None,
    }
    assert stored(filled) == filled


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"default_version": "1"}, "not among versions"),
        ({"versions": {}}, "not among versions (none)"),
        ({"versions": {"0.50.0": "pixi/0.50.0"}}, "absolute"),
        ({"versions": {"0.50.0": "/pixi/newest"}}, "/pixi/0.50.0"),
        ({"versions": {**CONFIG["versions"], "0.60.0": "/other/0.60.0"}}, "/pixi/0.60.0"),
        ({"TOKIO_WORKER_THREADS": 0}, "greater than 0"),
        ({"SLURM_CONFIG": {**SLURM, "mem": None}}, "either mem or mem_per_cpu"),
        ({"SLURM_CONFIG": {**SLURM, "mem_per_cpu": "1G"}}, "either mem or mem_per_cpu"),
        ({"SLURM_CONFIG": {**SLURM, "mem": "much"}}, "is no memory"),
        ({"SLURM_CONFIG": {**SLURM, "time": "soon"}}, "is no time limit"),
        ({"SLURM_CONFIG": {**SLURM, "cpus": 0}}, "greater than 0"),
        ({"SLURM_CONFIG": {**SLURM, "partition": "a b"}}, "sbatch option"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        stored({**CONFIG, **changes})
    assert told in str(refused.value)


def test_the_job_of_an_installation_is_asked_for_in_words_of_slurm() -> None:
    settings = _config.validate_python({**CONFIG, "SLURM_CONFIG": SLURM})
    assert settings is not None
    assert settings.SLURM_CONFIG is not None
    assert settings.SLURM_CONFIG.options() == [
        "--job-name=pixi",
        "--partition=main",
        "--cpus-per-task=2",
        "--mem=4096M",
        "--time=60",
    ]


def test_a_cluster_that_is_reached_by_ssh_needs_a_job_for_pixi() -> None:
    batching = {
        f"{bound}_{what}": "1G" if "mem" in what else 1
        for bound in ("target", "max")
        for what in ("cpus_per_job", "mem_per_job", "num_jobs")
    }
    resource = {
        "type": "slurm_ssh",
        "name": "cluster",
        "host": "cluster",
        "jobs_local_dir": "/j",
        "jobs_runner_config": {
            "default_slurm_config": {"partition": "main"},
            "batching_config": batching,
        },
        "jobs_slurm_python_worker": "/usr/bin/python3",
        "tasks_local_dir": "/t",
        "tasks_python_config": {"default_version": "3.11", "versions": {"3.11": "/python"}},
    }
    adapter: TypeAdapter[Any] = TypeAdapter(ValidResource)
    with pytest.raises(ValidationError, match="needs a SLURM_CONFIG"):
        adapter.validate_python({**resource, "tasks_pixi_config": CONFIG})
    with_job = {**CONFIG, "SLURM_CONFIG": SLURM}
    valid = adapter.validate_python({**resource, "tasks_pixi_config": with_job})
    assert isinstance(valid, ValidResourceSlurmSSH)
    assert valid.model_dump()["tasks_pixi_config"]["SLURM_CONFIG"]["mem"] == "4G"
