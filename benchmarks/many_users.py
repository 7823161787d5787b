"""Many users of a SLURM cluster at once, each with a limit of submissions that is too small.

    python -m benchmarks.many_users [--users 10] [--jobs 2] [--units 200]

Each user submits jobs of so many units of `true`, of which a quality of service lets ten SLURM jobs
be submitted at a time. First one user alone, then all together. What is asked of SLURM is counted
by its controller. Runs on an embedded stack and a cluster of its own: as root, on Debian, after
`make servers`.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.own_stack import own_stack
from benchmarks.slurm import commands_since_reset
from deployments.stack import Stack
from tests.cluster import Cluster, running_cluster
from tests.cluster_machine import ClusterError, check_machine
from tests.differential.reference import ADMIN, PASSWORD
from tests.lab import Lab, logged_in
from tests.slurm_site import RUNNER_CONFIG, lab_of_user, profile_body, resource_body

QUALITY = "ten"
INTERVAL = 1  # `jobs_poll_interval`
_SUBMITTED = re.compile(r"^\[(\S+)\] _slurm_rpc_submit_batch_job:", re.MULTILINE)
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Measured:
    """Seconds until the jobs of each user were done, and what was asked of SLURM meanwhile."""

    done: list[float]
    squeues: int
    submitted_at: list[float]
    waited: int  # jobs whose log tells of the limit

    @property
    def most_a_second(self) -> float:
        """The most submissions in ten seconds, as so many a second."""
        times = self.submitted_at
        within = (sum(begin <= when < begin + 10 for when in times) for begin in times)
        return max(within, default=0) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--units", type=int, default=200)
    options = parser.parse_args()
    try:
        check_machine()
        os.environ["FRACTAL_MAX_RUNNING_JOBS"] = str(options.users * options.jobs)
        with own_stack() as stack:
            asyncio.run(measure_all(stack, options.users, options.jobs, options.units))
    except ClusterError as reason:
        sys.exit(str(reason))


async def measure_all(stack: Stack, users: int, jobs: int, units: int) -> None:
    async with running_cluster() as cluster, logged_in(stack, ADMIN, PASSWORD) as client:
        log = cluster.root / "state" / "slurmctld.log"
        async with cluster.configured(SlurmctldLogFile=log), AsyncExitStack() as contexts:
            admin = Lab(client, stack.data_dir)
            resource = await admin.ok("POST", "/admin/v2/resource/", json=body(cluster, stack))
            labs = []
            for user in cluster.users[:users]:
                profile = profile_body(cluster, resource, user, name=user)
                lab = lab_of_user(cluster, stack, admin, resource, profile)
                labs.append(await contexts.enter_async_context(lab))
            await add_task(labs)
            await run(cluster, labs[:1], log, jobs=1, units=1)  # the first after a start is slower
            alone = await run(cluster, labs[:1], log, jobs, units)
            report("1 user", jobs, units, alone)
            report(f"{users} users", jobs, units, await run(cluster, labs, log, jobs, units))


def body(cluster: Cluster, stack: Stack) -> dict[str, Any]:
    """A request for the cluster, on which all ask for the quality of service with the limit."""
    ours = resource_body(cluster, stack.data_dir, "slurm_sudo")
    default = RUNNER_CONFIG["default_slurm_config"] | {"extra_lines": [f"#SBATCH --qos={QUALITY}"]}
    config = RUNNER_CONFIG | {"default_slurm_config": default}
    return ours | {"jobs_runner_config": config, "jobs_poll_interval": INTERVAL}


async def add_task(labs: list[Lab]) -> None:
    """The task `true`, which all share."""
    body = {"name": "True", "version": "1", "command_parallel": "true"}
    task = await labs[0].ok("POST", "/api/v2/task/", json=body)
    for lab in labs:
        lab.tasks["True"] = task["id"]


async def run(cluster: Cluster, labs: list[Lab], log: Path, jobs: int, units: int) -> Measured:
    """All users submit their jobs at once."""
    prepared = [
        (lab, await lab.workflow("True"), await lab.dataset(*map(str, range(units))))
        for lab in labs
        for _ in range(jobs)
    ]
    await cluster.run("sdiag", "--reset")
    log_begin, began = log.stat().st_size, time.time()
    submitted = [(lab, await lab.submit(*what)) for lab, *what in prepared]
    ended = [(lab, await ended_job(lab, job)) for lab, job in submitted]
    done = {
        lab: max(datetime.fromisoformat(job["end_timestamp"]).timestamp() for _, job in theirs)
        for lab in labs
        if (theirs := [each for each in ended if each[0] is lab])
    }
    with log.open() as lines:
        lines.seek(log_begin)
        found = _SUBMITTED.findall(lines.read())
    return Measured(
        done=sorted(end - began for end in done.values()),
        squeues=(await commands_since_reset(cluster))["squeue"],
        submitted_at=[datetime.fromisoformat(when).timestamp() for when in found],
        waited=sum("SubmitJob" in job["log"] for _, job in ended),
    )


async def ended_job(lab: Lab, job: dict[str, Any]) -> dict[str, Any]:
    while job["status"] == "submitted":
        await asyncio.sleep(_LOOK_SECONDS)
        job = await lab.job(job)
    if job["status"] != "done":
        raise SystemExit(f"A job failed: {job['log']}")
    return job


def report(who: str, jobs: int, units: int, measured: Measured) -> None:
    done = measured.done
    print(
        f"{who}, {jobs} jobs of {units} units each: done after {done[0]:.1f} s (the first user) "
        f"to {done[-1]:.1f} s (the last)\n"
        f"    {measured.squeues / done[-1] * INTERVAL:.2f} squeue per interval | "
        f"{len(measured.submitted_at)} sbatch, at most {measured.most_a_second:.1f} a second | "
        f"{measured.waited} jobs waited for the limit",
        flush=True,
    )


if __name__ == "__main__":
    main()
