"""What the engine adds on a SLURM cluster: jobs of N units of `true`, by sudo and by SSH.

    python benchmarks/slurm.py [--units 100 1000] [--by sudo ssh] [--singles 200]

Runs on an embedded stack and a cluster of its own: as root, on Debian, after `make servers`.
Beside each job the same units run as a job array of their own: as many SLURM jobs, in each of which
`xargs` keeps as many units running at once. Compare the ratios.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.own_stack import own_stack
from deployments.stack import Stack
from flows.launchers.slurm.batching import Batching, plan_batching
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, mebibytes
from tests.cluster import Cluster, running_cluster
from tests.cluster_machine import KNOWN_HOSTS, ClusterError, check_machine
from tests.differential.reference import ADMIN, PASSWORD
from tests.lab import Lab, logged_in
from tests.slurm_site import RUNNER_CONFIG, lab_at, resource_body

_LOOK_SECONDS = 0.2
# By what each command asks of slurmctld, which counts that.
_COMMANDS = {
    "REQUEST_SUBMIT_BATCH_JOB": "sbatch",
    "REQUEST_JOB_INFO": "squeue",
    "REQUEST_KILL_JOB": "scancel",
    "REQUEST_BUILD_INFO": "scontrol",
}
_REQUESTS = re.compile(r"^\s+([A-Z_]+)\s+\( *\d+\) count:(\d+)", re.MULTILINE)
_SUBMITTED = re.compile(r"^\[(\S+)\] _slurm_rpc_submit_batch_job:", re.MULTILINE)
_SLURM_JOB_ENDED = re.compile(r"^\[(\S+)\] _job_complete: \S+ done", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """One job, in seconds: from submission to done, until SLURM had it, and from the end of its
    last SLURM job to done; the longest time for which the API did not tell of a unit that had
    ended. CPU is by part of the stack."""

    done: float
    before_slurm: float
    after_slurm: float
    unseen: float
    commands: Counter[str]
    cpu: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--by", choices=("sudo", "ssh"), nargs="+", default=["sudo", "ssh"])
    parser.add_argument("--singles", type=int, default=0, help="SLURM jobs without an array")
    options = parser.parse_args()
    try:
        check_machine()
        os.environ["FRACTAL_SSH_KNOWN_HOSTS"] = str(KNOWN_HOSTS)
        with own_stack() as stack:
            asyncio.run(measure_all(stack, options.by, options.units, options.singles))
    except ClusterError as reason:
        sys.exit(str(reason))


async def measure_all(stack: Stack, transports: list[str], sizes: list[int], singles: int) -> None:
    async with running_cluster() as cluster, logged_in(stack, ADMIN, PASSWORD) as client:
        log = cluster.root / "state" / "slurmctld.log"
        async with cluster.configured(SlurmctldLogFile=log):
            if singles:
                seconds = await single_jobs(cluster, singles)
                print(f"{singles} single sbatch of one `true` each: {seconds:.1f} s", flush=True)
            for transport in transports:
                resource = resource_body(cluster, stack.data_dir, f"slurm_{transport}")
                admin = Lab(client, stack.data_dir)
                async with lab_at(cluster, stack, admin, resource) as lab:
                    benchmark = Benchmark(cluster, lab, stack, log)
                    await benchmark.run(1)  # the first job after a start is slower
                    for units in sizes:
                        measured = await benchmark.run(units)
                        report(transport, units, measured, await plain_array(cluster, units))


class Benchmark:
    """Runs jobs of one workflow task, `true`, and looks at them from outside."""

    def __init__(self, cluster: Cluster, lab: Lab, stack: Stack, log: Path) -> None:
        self._cluster = cluster
        self._lab = lab
        self._log = log
        self._stack = stack

    async def run(self, units: int) -> Measured:
        """A job of so many units."""
        workflow, dataset = await self._prepare(units)
        await self._cluster.run("sdiag", "--reset")
        log_begin = self._log.stat().st_size
        cpu = cpu_by_part(self._stack)
        began = time.time()
        job = await self._lab.submit(workflow, dataset)
        seen: list[tuple[float, int]] = []
        while job["status"] == "submitted":
            await asyncio.sleep(_LOOK_SECONDS)
            seen.append((time.time(), await self._ended_units(workflow, dataset)))
            job = await self._lab.job(job)
        if job["status"] != "done":
            raise SystemExit(f"The job failed: {job['log']}")
        done = datetime.fromisoformat(job["end_timestamp"]).timestamp()
        commands = await commands_since_reset(self._cluster)
        submitted, ended = await self._slurm_jobs(log_begin)
        return Measured(
            done=done - began,
            before_slurm=submitted - began,
            after_slurm=done - ended,
            unseen=await self._longest_unseen(workflow, dataset, seen),
            commands=commands,
            cpu={name: now - cpu[name] for name, now in cpu_by_part(self._stack).items()},
        )

    async def _prepare(self, units: int) -> tuple[dict[str, Any], dict[str, Any]]:
        if not self._lab.tasks:
            body = {"name": "True", "version": "1", "command_parallel": "true"}
            self._lab.tasks["True"] = (await self._lab.ok("POST", "/api/v2/task/", json=body))["id"]
        dataset = await self._lab.dataset(*map(str, range(units)))
        return await self._lab.workflow("True"), dataset

    async def _ended_units(self, workflow: dict[str, Any], dataset: dict[str, Any]) -> int:
        """How many units have ended, as the API tells it at this moment."""
        query = {
            "dataset_id": dataset["id"],
            "workflowtask_id": workflow["task_list"][0]["id"],
        }
        runs = await self._lab.ok("GET", f"{self._lab.base}/status/run/", params=query)
        return sum(run["num_done_units"] for run in runs)

    async def _longest_unseen(
        self, workflow: dict[str, Any], dataset: dict[str, Any], seen: list[tuple[float, int]]
    ) -> float:
        _, units = await self._lab.history(workflow, dataset)
        ends = sorted(datetime.fromisoformat(unit["ended_at"]).timestamp() for unit in units)
        return max(when - ends[known] for when, known in seen if known < len(ends))

    async def _slurm_jobs(self, log_begin: int) -> tuple[float, float]:
        """When they were submitted, and the last of them ended, by the controller's log."""
        await self._cluster.wait_idle()
        with self._log.open() as log:
            log.seek(log_begin)
            said = log.read()
        submitted, ended = _SUBMITTED.findall(said)[0], _SLURM_JOB_ENDED.findall(said)[-1]
        first, last = (datetime.fromisoformat(when) for when in (submitted, ended))
        return first.timestamp(), last.timestamp()


async def commands_since_reset(cluster: Cluster) -> Counter[str]:
    """The commands of SLURM that were run since `sdiag --reset`, as its controller saw them."""
    requests = _REQUESTS.findall(await cluster.run("sdiag"))
    return Counter({_COMMANDS[name]: int(count) for name, count in requests if name in _COMMANDS})


def cpu_by_part(stack: Stack) -> dict[str, float]:
    """CPU seconds so far. Workers and jobs are what was forked and is neither Prefect nor API."""
    forked_from = {each.fork_server.process for each in stack.services if each.fork_server}
    forked = sum(cpu_seconds(server.pid) for server in forked_from if server)
    prefect, api = (cpu_seconds(stack.parts[name].pid) for name in ("prefect", "api"))
    return {"workers and job": forked - prefect - api, "Prefect": prefect, "API": api}


def cpu_seconds(pid: int | None) -> float:
    """User and system time of a process with all its descendants, also of those that ended."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))


async def plain_array(cluster: Cluster, units: int) -> float:
    """Seconds that as many `true` take as a job array with a batching like ours."""
    batching = batching_of(units)
    at_once = batching.parallel_tasks_per_job
    options = (
        f"--array=0-{batching.num_jobs - 1}",
        f"--cpus-per-task={at_once}",
        f"--mem={_mem() * at_once}M",
        "--output=/dev/null",
    )
    script = f"#!/bin/sh\nseq {batching.tasks_per_job} | xargs -P {at_once} -n 1 true\n"
    began = time.time()
    await cluster.run("sbatch", *options, user=cluster.user, stdin=script)
    await cluster.wait_idle()  # by squeue: `sbatch --wait` looks every ten seconds or so
    return time.time() - began


async def single_jobs(cluster: Cluster, number: int) -> float:
    """Seconds that so many SLURM jobs of a `true` each take, without an array."""
    sbatch = "sbatch --cpus-per-task=1 --mem=50M --output=/dev/null --wrap=true"
    loop = f"cd /; for n in $(seq {number}); do {sbatch} || exit; done"
    began = time.time()
    await cluster.run("sh", "-c", loop, user=cluster.user)
    await cluster.wait_idle()
    return time.time() - began


def batching_of(units: int) -> Batching:
    """How our job puts them together."""
    config = JobRunnerConfigSLURM.model_validate(RUNNER_CONFIG).batching_config
    return plan_batching(units, cpus_per_task=1, mem=_mem(), config=config)


def _mem() -> int:
    config = JobRunnerConfigSLURM.model_validate(RUNNER_CONFIG)
    return mebibytes(config.default_slurm_config.mem or "")


def report(transport: str, units: int, measured: Measured, array_seconds: float) -> None:
    batching = batching_of(units)
    commands = ", ".join(f"{count} {name}" for name, count in measured.commands.most_common())
    cpu = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in measured.cpu.items())
    print(
        f"{transport}, {units} units in {batching.num_jobs} SLURM jobs, "
        f"{batching.parallel_tasks_per_job} at once in each: {measured.done:.1f} s, "
        f"{measured.done / array_seconds:.1f} times a plain array ({array_seconds:.1f} s)\n"
        f"    SLURM has it after {measured.before_slurm:.2f} s, done {measured.after_slurm:.2f} s "
        f"after the last SLURM job | units seen within {measured.unseen:.2f} s\n"
        f"    commands: {commands} | CPU: {cpu}",
        flush=True,
    )


if __name__ == "__main__":
    main()
