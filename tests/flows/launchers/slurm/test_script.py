import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.launchers.slurm.script import (
    SlurmRequest,
    SlurmRequestError,
    array_of,
    resolve_request,
    sbatch_script,
)
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, slurm_meta_of

BATCHING = {
    "target_cpus_per_job": 4,
    "max_cpus_per_job": 8,
    "target_mem_per_job": "8G",
    "max_mem_per_job": "16G",
    "target_num_jobs": 10,
    "max_num_jobs": 20,
}


def config(default: dict[str, Any], **others: Any) -> JobRunnerConfigSLURM:
    return JobRunnerConfigSLURM.model_validate(
        {"default_slurm_config": default, "batching_config": BATCHING, **others}
    )


def script(request: SlurmRequest, **changed: Any) -> str:
    given_to_script: dict[str, Any] = {
        "folder": PurePosixPath("/jobs/7/0_threshold"),
        "batches": range(10),
        "parallel_tasks": 1,
        "python": "/usr/bin/python3",
        "job_name": "threshold",
        "comment": "fractal-job-7",
    }
    return sbatch_script(request, **{**given_to_script, **changed})


@pytest.mark.parametrize(
    ("default", "gpu", "meta", "account", "expected"),
    [
        ({}, None, {}, None, SlurmRequest(cpus_per_task=1, mem=4000)),
        ({"mem": "2G", "time": "1:00:00"}, None, {}, None, SlurmRequest(mem=2048, time="1:00:00")),
        (
            {"mem": "2G", "partition": "main", "cpus_per_task": 2},
            None,
            {"mem": "3G", "cpus_per_task": 4},
            None,
            SlurmRequest(mem=3072, cpus_per_task=4, partition="main"),
        ),
        ({"account": "facility"}, None, {}, None, SlurmRequest(account="facility")),
        ({"account": "facility"}, None, {}, "lab", SlurmRequest(account="lab")),
        (
            {"partition": "main"},
            {"partition": "gpu"},
            {},
            None,
            SlurmRequest(partition="main"),
        ),
        (
            {"partition": "main", "time": "10", "shebang_line": "#!/bin/bash"},
            {"partition": "gpu", "gres": "gpu:1", "mem": "8G", "shebang_line": "#!/bin/sh"},
            {"needs_gpu": True, "gres": "gpu:2"},
            None,
            SlurmRequest(
                partition="gpu", time="10", mem=8192, gres="gpu:2", shebang_line="#!/bin/bash"
            ),
        ),
        (  # as fractal-server stores it
            {"partition": "main", "mem": 2000},
            {"partition": "gpu", "mem": None, "time": None, "cpus_per_task": None},
            {"needs_gpu": True},
            None,
            SlurmRequest(partition="gpu", mem=2000),
        ),
        (
            {"extra_lines": ["#SBATCH --qos=high"]},
            {"extra_lines": ["module load cuda"]},
            {"needs_gpu": True, "extra_lines": ["ulimit -c 0"]},
            None,
            SlurmRequest(extra_lines=("#SBATCH --qos=high", "module load cuda", "ulimit -c 0")),
        ),
        (
            {"use_mem_per_cpu": True},
            None,
            {"use_mem_per_cpu": False},
            None,
            SlurmRequest(use_mem_per_cpu=False),
        ),
    ],
)
def test_a_task_overrides_the_configuration_of_the_resource(
    default: dict[str, Any],
    gpu: dict[str, Any] | None,
    meta: dict[str, Any],
    account: str | None,
    expected: SlurmRequest,
) -> None:
    resource = config(default, gpu_slurm_config=gpu)
    assert resolve_request(resource, slurm_meta_of(meta), account) == expected


def test_a_gpu_that_the_resource_does_not_have_is_refused() -> None:
    with pytest.raises(SlurmRequestError, match=r"needs_gpu, but .* has no gpu_slurm_config"):
        resolve_request(config({}), slurm_meta_of({"needs_gpu": True}), None)


@pytest.mark.parametrize(
    ("mem", "mem_factor", "expected"),
    [
        ("4G", 1.0, 4096),
        ("4G", 2.0, 8192),
        ("4G", 1.0001, 4097),
        ("4G", 8.0, 16384),
        ("20G", 2.0, 20480),
    ],
)
def test_memory_grows_up_to_the_maximum_of_a_job(
    mem: str, mem_factor: float, expected: int
) -> None:
    request = resolve_request(config({"mem": mem}), slurm_meta_of({}), None, mem_factor=mem_factor)
    assert request.mem == expected


MINIMAL = """\
#!/bin/sh
#SBATCH --array=0-9
#SBATCH --job-name=threshold
#SBATCH --comment=fractal-job-7
#SBATCH --chdir=/jobs/7/0_threshold
#SBATCH --output=/jobs/7/0_threshold/slurm-%A_%a.out
#SBATCH --signal=B:USR1@15
#SBATCH --cpus-per-task=1
#SBATCH --mem=4000M
#SBATCH --no-requeue

: # Below the first command no line is read as an option.
batch=/jobs/7/0_threshold/"$(printf %06d "$SLURM_ARRAY_TASK_ID")"
echo "$SLURM_ARRAY_JOB_ID" > "$batch"/fractal-job-7.job
[ ! -e "$batch"/fractal-job-7.void ] || exit 0
export SLURM_CPUS_PER_TASK=1 SLURM_CPUS_ON_NODE=1 SLURM_NTASKS=1 SLURM_NPROCS=1
unset SLURM_TRES_PER_TASK
exec /usr/bin/python3 -I -S /jobs/7/0_threshold/unit_runner.py --wait \
/jobs/7/0_threshold/"$(printf %06d "$SLURM_ARRAY_TASK_ID")"
"""

FULL = r"""#!/bin/bash -l
#SBATCH --array=0-3,7
#SBATCH --job-name="it's \"threshold\""
#SBATCH --comment="fractal job 7 #1"
#SBATCH --chdir="/jobs/50% of \"it's\""
#SBATCH --output="/jobs/50%% of \"it's\"/slurm-%A_%a.out"
#SBATCH --signal=B:USR1@15
#SBATCH --cpus-per-task=8
#SBATCH --mem=8192M
#SBATCH --time=1-12:00
#SBATCH --partition=main,long
#SBATCH --account=lab
#SBATCH --constraint=[a*2&b]
#SBATCH --gres=tmp:10G
#SBATCH --nodes=1
#SBATCH --nodelist=node[1-4,7]
#SBATCH --exclude=node9
#SBATCH --qos=high
#SBATCH --no-requeue

: # Below the first command no line is read as an option.
batch='/jobs/50% of "it'"'"'s"/'"$(printf %06d "$((SLURM_ARRAY_TASK_ID + 1000))")"
echo "$SLURM_ARRAY_JOB_ID" > "$batch"/'fractal job 7 #1'.job
[ ! -e "$batch"/'fractal job 7 #1'.void ] || exit 0
export SLURM_CPUS_PER_TASK=2 SLURM_CPUS_ON_NODE=2 SLURM_NTASKS=1 SLURM_NPROCS=1
unset SLURM_TRES_PER_TASK
ulimit -c 0
module load cuda
#SBATCH --mem=1T
if true; then
  echo "$HOSTNAME"
fi
export MODELS='/my models'
export NAME='/home/user01/it'"'"'s $HOME'
exec '/opt/my python' -I -S '/jobs/50% of "it'"'"'s"/unit_runner.py' --wait """ + (
    """'/jobs/50% of "it'"'"'s"/'"$(printf %06d "$((SLURM_ARRAY_TASK_ID + 1000))")"\n"""
)

GPU = MINIMAL.replace(
    "--mem=4000M\n",
    "--mem=8192M\n#SBATCH --partition=gpu\n#SBATCH --gres=gpu:a100:1\n#SBATCH --gpus=1\n",
)

MEM_PER_CPU = MINIMAL.replace(
    "--cpus-per-task=1\n#SBATCH --mem=4000M", "--cpus-per-task=6\n#SBATCH --mem-per-cpu=1366M"
).replace("CPUS_PER_TASK=1 SLURM_CPUS_ON_NODE=1", "CPUS_PER_TASK=3 SLURM_CPUS_ON_NODE=3")

WORKER_INIT = MINIMAL.replace(
    "exec", "#SBATCH --account=others\nsource ~/.profile\n\nexport A=1\nexec"
)

FULL_REQUEST = resolve_request(
    config(
        {
            "partition": "main,long",
            "cpus_per_task": 2,
            "mem": "2G",
            "constraint": "[a*2&b]",
            "gres": "tmp:10G",
            "time": "1-12:00",
            "account": "facility",
            "nodes": 1,
            "nodelist": "node[1-4,7]",
            "exclude": "node9",
            "shebang_line": "#!/bin/bash -l",
            "extra_lines": ["ulimit -c 0", "#SBATCH --qos=high"],
        },
        user_local_exports={"MODELS": "/my models", "NAME": "it's $HOME"},
    ),
    slurm_meta_of({"extra_lines": ["module load cuda"]}),
    "lab",
    cache_dir="/home/user01",
)
GPU_REQUEST = resolve_request(
    config({}, gpu_slurm_config={"partition": "gpu", "gres": "gpu:a100:1", "gpus": "1"}),
    slurm_meta_of({"needs_gpu": True, "mem": "8G"}),
    None,
)


@pytest.mark.parametrize(
    ("request_", "changed", "expected"),
    [
        (SlurmRequest(), {}, MINIMAL),
        (
            FULL_REQUEST,
            {
                "folder": PurePosixPath('/jobs/50% of "it\'s"'),
                "batches": [1000, 1001, 1002, 1003, 1007],
                "offset": 1000,
                "parallel_tasks": 4,
                "python": "/opt/my python",
                "job_name": 'it\'s "threshold"',
                "comment": "fractal job 7 #1",
                "worker_init": '#SBATCH --mem=1T\r\nif true; then\n  echo "$HOSTNAME"\nfi\n',
            },
            FULL,
        ),
        (GPU_REQUEST, {}, GPU),
        (
            SlurmRequest(cpus_per_task=3, mem=4096, use_mem_per_cpu=True),
            {"parallel_tasks": 2},
            MEM_PER_CPU,
        ),
        (
            SlurmRequest(),
            {"worker_init": "#SBATCH --account=others\nsource ~/.profile\n\nexport A=1"},
            WORKER_INIT,
        ),
    ],
    ids=["minimal", "full", "gpu", "mem-per-cpu", "worker-init"],
)
def test_the_script_of_an_array(
    request_: SlurmRequest, changed: dict[str, Any], expected: str
) -> None:
    text = script(request_, **changed)
    assert text == expected
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_a_script_runs_the_unit_runner_on_the_batch_of_its_index(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s 50% "of" $HOME #1'
    folder.mkdir()
    batch = folder / "001008"
    batch.mkdir()
    (folder / "unit_runner.py").write_text("import os, sys\nprint(sys.argv[2], os.environ['A'])")
    python = shutil.which("python3") or "python3"
    text = script(
        SlurmRequest(exports={"A": "$HOME's"}),
        folder=PurePosixPath(folder),
        python=python,
        offset=1000,
        batches=[1008],
    )

    def run() -> str:
        env = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_JOB_ID": "12"}
        return subprocess.run(
            ["sh"], input=text, env=env, text=True, stdout=subprocess.PIPE, check=True
        ).stdout

    assert run() == f"{batch} $HOME's\n"
    assert (batch / "fractal-job-7.job").read_text() == "12\n"
    (batch / "fractal-job-7.void").touch()
    assert run() == ""  # it was given up


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"job_name": "a\n#SBATCH --wrap=x"}, "of --job-name has a line break"),
        ({"comment": "a\rb"}, "of --comment has a line break"),
        ({"folder": PurePosixPath("/a\nb")}, "of --chdir has a line break"),
        ({"folder": PurePosixPath("/a\\b")}, "no output to folders with a backslash"),
    ],
)
def test_what_a_script_cannot_say_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        script(SlurmRequest(), **changed)


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([0], "0"),
        (range(10), "0-9"),
        ([7, 0, 1, 2, 3], "0-3,7"),
        ([1, 3, 5, 6], "1,3,5-6"),
    ],
)
def test_indexes_of_an_array_are_written_compactly(indexes: Iterable[int], expected: str) -> None:
    assert array_of(indexes) == expected


@given(st.sets(st.integers(0, 60), min_size=1))
def test_an_array_has_just_the_given_indexes(indexes: set[int]) -> None:
    read = set()
    for part in array_of(indexes).split(","):
        first, _, last = part.partition("-")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == indexes
