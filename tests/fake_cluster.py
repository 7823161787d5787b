"""A fake of a cluster on which nothing runs, with a job of two units whose SLURM jobs end at once.

It answers what it is told to, so that tests can have it answer what a real one rarely does.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from flows.launchers.slurm.cluster import Cluster
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.pace import Pace
from flows.launchers.slurm.queue import SlurmQueue
from flows.process.transport import Completed
from flows.units.batch import Batch, BatchUnit
from fractal_models.schemas.slurm import JobRunnerConfigSLURM

CONFIG = {
    "default_slurm_config": {"cpus_per_task": 1, "mem": "50M"},
    "batching_config": {
        "target_cpus_per_job": 1,
        "max_cpus_per_job": 1,
        "target_mem_per_job": "50M",
        "max_mem_per_job": "50M",
        "target_num_jobs": 2,
        "max_num_jobs": 2,
    },
}


class FakeCluster:
    """A fake whose `collect` answers what it is told to, once, and then that all has ended well."""

    place = "user01@cluster"

    def __init__(self, *answers: bytes, **said: bytes) -> None:
        self.answers = list(answers)
        self.said = said
        self.token = ""

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        await asyncio.sleep(0)
        return Completed(tuple(command), 0, self._answer(command, stdin), b"")

    def _answer(self, command: Sequence[str], stdin: bytes) -> bytes:
        words = " ".join(command)
        if "sbatch" in words:
            self.token = PurePosixPath(command[-1]).stem
        for program in ("sbatch", "squeue", "scontrol", "scancel"):
            if program in words and program in self.said:
                return self.said[program]
        if "begun" in command:
            return framed(command, self.said.get("begun", b"[]"))
        if "sbatch" in words:
            return b"Submitted batch job 1\n"
        if "scontrol" in words:
            return b"MaxArraySize = 1001\n"
        if "squeue" in words:
            return "".join(
                f"fractal-job|{self.token}|0|1|{n}|RUNNING|None|.\n" for n in (0, 1)
            ).encode()
        if "collect" in command:
            return framed(command, self.answers.pop(0) if self.answers else good_answer(stdin))
        return framed(command, b"[]")

    async def close(self) -> None:
        """Nothing is kept."""


def result(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        **{"index": index, "exit_code": 0, "signal": None, "error": None},
        **{"started_at": 1.0, "ended_at": 2.0, "max_rss_kb": 1, "cpu_seconds": 0.5},
        **{"host": "node", "has_output": False, "has_warnings": False, **fields},
    }


def answer(*files: tuple[str, bytes]) -> bytes:
    index = json.dumps([(name, len(content)) for name, content in files]).encode()
    return b"\n".join([index, b"".join(content for _, content in files)])


def lines(*contents: object) -> bytes:
    return b"".join(json.dumps(content).encode() + b"\n" for content in contents)


def framed(command: Sequence[str], content: bytes) -> bytes:
    """An answer in the frame that is asked for: who answers knows the mark."""
    (mark,) = (word for word in command if word.startswith("fractal-answer-"))
    checksum = hashlib.sha256(content).hexdigest()
    return f"{mark} 0 {len(content)} {checksum}\n".encode() + content


def good_answer(stdin: bytes) -> bytes:
    """That the unit of each batch that is asked for has ended well."""
    size, _, rest = stdin.partition(b"\n")
    asked = json.loads(rest[int(size) :])["batches"]
    end = {"end": True, "ended_at": 3.0, "stopped": False}
    parts = [
        (f"results/{number}", lines({"format": 2, "host": "node"}, result(int(number)), end))
        for number in asked
    ]
    return answer(*parts)


def fake_context(
    home: Path,
    cluster: FakeCluster,
    on_submitted: Callable[[int], Awaitable[None]],
    say: Callable[[str], None],
) -> SlurmContext:
    """What the batches of a job on the fake have in common; `home` is the job's folder here."""
    return SlurmContext(
        cluster=Cluster(cluster, cluster, "python3", PurePosixPath("/there/job")),
        queue=SlurmQueue(home / "queue.json", cluster, 0.0),
        pace=Pace(home / "pace", 0.0, "user01"),
        config=JobRunnerConfigSLURM.model_validate(CONFIG),
        home=home,
        account=None,
        worker_init=None,
        seconds=0.0,
        on_submitted=on_submitted,
        say=say,
        patience=0.2,
    )


def batch_of_two(home: Path) -> Batch:
    """A batch of two units, each of which gets a SLURM job."""
    return Batch(
        folder=home / "0_task" / "batches" / "parallel",
        units_dir=home / "0_task",
        command=("true",),
        common_args={},
        units=[BatchUnit(n, f"par-{n:06d}", {}) for n in (0, 1)],
        max_parallel=1,
    )
