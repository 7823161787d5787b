"""Kills and freezes the parts of a stack at random while jobs run; then looks for what was lost.

    python benchmarks/chaos.py [--seed 7] [--rounds 200] [--jobs 3] [--images 40] [--pause 8]
    python benchmarks/chaos.py --on slurm_ssh --images 20
    python benchmarks/chaos.py --away postgres --seconds 120 --images 150

Runs on an embedded stack of its own, jobs on this machine or on a SLURM cluster (as root,
on Debian, after `make servers`). What is done, in which order, is a function of the seed; or one
part is killed and stays away once, for so many seconds. The journals that the units write
themselves are held against the database. The exit code is 1 if anything is wrong; then the stack's
folder is kept.
"""

import argparse
import asyncio
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from json import loads
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, default_int_handler, signal

import httpx

from benchmarks.havoc import (
    CLUSTER_KINDS,
    KINDS,
    SSH_KINDS,
    Act,
    Havoc,
    Round,
    describe,
    processes_of,
    schedule,
)
from benchmarks.sites import KINDS as SITES
from benchmarks.sites import Site, running_at
from benchmarks.story import Story, recovery_of
from benchmarks.workload import Job, Workload
from deployments.data_dir import DataDirError
from deployments.demo.client import DemoError, FractalClient
from deployments.services import ServiceError
from deployments.stack import Stack, StackOptions, running_stack
from flows.launchers.local import is_running
from flows.process.lock import locked_jobs
from fractal_models.database import open_database
from tests.cluster_machine import KNOWN_HOSTS
from tests.consistency import Findings, examine, examine_accounting

PARTS = ("postgres", "prefect", "worker", "api")
ADMIN, PASSWORD = "chaos@example.org", "of the benchmark"

# Acts at random can hit a job more often between two of its units than it would be taken up again.
MAX_RESTARTS = "20"

_TICK_SECONDS = 0.05
_CALM_SECONDS = 10.0  # in which jobs begin, before a part goes away
_VICTIM_SECONDS = 15.0  # to wait for a process that an act can hit
_REST_SECONDS = 300.0  # for all jobs to end, when nothing is done to them any more
_GONE_SECONDS = 10.0
_SHOWN_FAULTS = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=3, help="jobs that run at a time")
    parser.add_argument("--images", type=int, default=40, help="images of each converter of a job")
    parser.add_argument("--pause", type=float, default=8.0, help="longest pause between rounds, s")
    parser.add_argument("--patience", type=float, default=30.0, help="to the next unit, s")
    parser.add_argument("--on", choices=SITES, default="local", help="where jobs run")
    parser.add_argument("--away", choices=PARTS, help="have this part go away, once, instead")
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long it is away")
    options = parser.parse_args()
    kinds = {"local": KINDS, "slurm_sudo": CLUSTER_KINDS, "slurm_ssh": SSH_KINDS}[options.on]
    rounds = schedule(options.seed, options.rounds, options.pause, kinds)
    if options.away:
        rounds = [Round(_CALM_SECONDS, (Act(SIGKILL, options.away, options.seconds, pick=0.0),))]
        options.patience += options.seconds
    print(f"seed {options.seed}, {len(rounds)} rounds", flush=True)
    os.environ["FRACTAL_MAX_RESTARTS"] = MAX_RESTARTS
    for number in (SIGINT, SIGTERM):  # in the background the first would be ignored
        signal(number, default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="fractal-chaos-"))
    story = Story()
    try:
        make = partial(Workload, seed=options.seed, at_once=options.jobs, images=options.images)
        run(folder, options.on, rounds, make, story)
    except (DataDirError, ServiceError, DemoError) as error:
        story.findings.wrong.append(f"the run ended early: {error}")
    finally:
        leftovers(folder, story.findings)
    report(story, options.patience)
    if story.findings.faults:
        print(
            f"\nEverything is kept in {folder}. Again: --seed {options.seed} and the same options"
        )
        return 1
    shutil.rmtree(folder)
    return 0


def run(
    folder: Path,
    kind: str,
    rounds: list[Round],
    make_workload: Callable[[FractalClient, Site], Workload],
    story: Story,
) -> None:
    """Live through the rounds on a new stack, with jobs on a site, and examine what is left."""
    os.environ["FRACTAL_SSH_KNOWN_HOSTS"] = str(KNOWN_HOSTS)
    options = StackOptions(
        data_dir=folder, port=0, prefect_port=0, admin_email=ADMIN, admin_password=PASSWORD
    )
    with (
        running_stack(options) as stack,
        running_at(kind, stack, PASSWORD) as site,
        ThreadPoolExecutor(1) as pool,
    ):
        workload = make_workload(FractalClient(stack.api_url, site.email, site.password), site)
        story.jobs = workload.jobs
        havoc = Havoc(site.parts, site.folder, story.tell, site.cancel)
        story.ended = havoc.ended
        working = pool.submit(workload.run)
        try:
            _live_through(rounds, havoc, working, story)
            workload.end()
            _rest(stack, havoc, workload, working, story)
        finally:
            workload.give_up()
            havoc.thaw()
            story.recovery = recovery_of(story)
        _examine_prefect(stack, workload, story.findings)
        stack.services.stop()
        asyncio.run(_examine_all(stack, story))


def _live_through(rounds: list[Round], havoc: Havoc, working: Future[None], story: Story) -> None:
    for number, this in enumerate(rounds, 1):
        _pass(this.pause, havoc, working)
        for act in this.acts:
            done = _strike(act, havoc, working)
            if done is None:
                story.missed[act.kind] += 1
            else:
                story.acts.append((time.time(), act))
            story.tell(f"{number}/{len(rounds)}  {done or f'{act.kind}: there was none'}")
        story.rounds = number
    while not havoc.is_quiet:
        _pass(_TICK_SECONDS, havoc, working)


def _strike(act: Act, havoc: Havoc, working: Future[None]) -> str | None:
    """Do an act, as soon as there is a process for it."""
    deadline = time.monotonic() + _VICTIM_SECONDS
    while (done := havoc.strike(act)) is None and time.monotonic() < deadline:
        _pass(_TICK_SECONDS, havoc, working)
    return done


def _pass(seconds: float, havoc: Havoc, working: Future[None]) -> None:
    """Let time pass, in which the stack is looked after."""
    until = time.monotonic() + seconds
    while True:
        havoc.tend()
        if working.done():
            working.result()  # raises what ended it
        if time.monotonic() >= until:
            return
        time.sleep(_TICK_SECONDS)


def _rest(
    stack: Stack, havoc: Havoc, workload: Workload, working: Future[None], story: Story
) -> None:
    """Wait until everything is up and all jobs have ended."""
    story.tell(f"waiting for {len(workload.running)} jobs to end")
    deadline = time.monotonic() + _REST_SECONDS
    while not (working.done() and havoc.is_quiet):
        havoc.tend()
        if time.monotonic() > deadline:
            hanging = [_how_it_hangs(stack, job) for job in workload.running]
            story.findings.wrong += hanging or ["the API or another part did not come back"]
            return
        time.sleep(_TICK_SECONDS)
    working.result()


def _how_it_hangs(stack: Stack, job: Job) -> str:
    open_jobs = {job.id: job for job in stack.open_jobs()}
    if (found := open_jobs.get(job.id)) is None:
        return f"job {job.id} has ended, but the API did not tell"
    log = Path(found.folder or "", "workflow.log")
    last = log.read_text().splitlines()[-1:] if log.exists() else "(no log)"
    lines = job.journal.read_text().splitlines()
    last_unit = f"{time.time() - loads(lines[-1])['at']:.0f} s ago" if lines else "never"
    units = "has" if found.has_running_units() else "has no"
    return (
        f"job {job.id} hangs after {_REST_SECONDS:.0f} s of peace: it {units} unit runner, "
        f"a unit wrote last {last_unit}, its log ends with {last}"
    )


def _examine_prefect(stack: Stack, workload: Workload, findings: Findings) -> None:
    """Whether the flow runs of all jobs have ended well. Those that just ended may say so late."""
    user, password = stack.prefect_auth.split(":", 1)
    url = f"{stack.prefect_url}/api/flow_runs/filter"
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        states: Counter[str] = Counter()
        offset = 0
        while True:
            answer = httpx.post(url, json={"offset": offset}, auth=(user, password))
            if not (page := answer.raise_for_status().json()):
                break
            states.update(flow_run["state_name"] for flow_run in page)
            offset += len(page)
        expected = {"Completed": len(workload.jobs)}
        if states == expected or time.monotonic() > deadline:
            findings.expect("states of flow runs", dict(states), expected)
            return
        time.sleep(0.5)


async def _examine_all(stack: Stack, story: Story) -> None:
    """Hold the database against the journals, when no part but PostgreSQL runs any more."""
    async with open_database(stack.postgres.fractal) as sessions, sessions() as session:
        for job in story.jobs:
            story.findings.add(await examine(session, job.id, job.journal), f"job {job.id}")
        story.findings.add(await examine_accounting(session), "accounting")
        locked = await locked_jobs(session)
    story.findings.expect("jobs whose lock is held", locked, set())
    held = [folder for folder in stack.data_dir.glob("jobs/*/*/batches/*/") if is_running(folder)]
    story.findings.expect("batches whose lock is held", held, [])


def leftovers(folder: Path, findings: Findings) -> None:
    """Find processes that outlived their stack."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    findings.wrong += [f"a process is left behind: {describe(process)}" for process in left]
    for process in left:
        process.kill()


def report(story: Story, patience: float) -> None:
    """The table, and a line for each finding."""
    findings = story.findings
    recovery = story.recovery
    worst = max(recovery.waits, default=0.0)
    if worst >= patience:
        findings.wrong.append(f"no unit ran for {worst:.1f} s after an act, {patience:g} s allowed")
    done = sum(job.status == "done" for job in story.jobs)
    rows: list[tuple[str, object]] = [
        ("rounds", f"{story.rounds} in {time.time() - story.began:.0f} s"),
        *sorted(Counter(act.kind for _, act in story.acts).items()),
        *((f"{kind}, no process", count) for kind, count in sorted(story.missed.items())),
        *((f"{name} ended by itself", count) for name, count in sorted(story.ended.items())),
        ("jobs done", f"{done} of {len(story.jobs)}"),
        ("units", findings.num_units),
        ("units killed with their runner", f"{len(findings.killed)}, which began again"),
        ("  of which at their very end", f"{len(findings.ended_twice)}, which ended twice"),
        ("units lost", len(findings.lost)),
        ("units run twice", len(findings.twice)),
        ("to the next unit", _times(recovery.any_unit)),
        ("  from the last act before it", _times(recovery.last_act)),
        ("to the next unit of every job", _times(recovery.every_job)),
    ]
    print()
    for name, value in rows:
        print(f"{name:<32}{value}")
    faults = findings.faults
    print(f"\n{len(faults)} findings" + (":" if faults else ""))
    for fault in faults[:_SHOWN_FAULTS]:
        print(f"- {fault}")
    if len(faults) > _SHOWN_FAULTS:
        print(f"- and {len(faults) - _SHOWN_FAULTS} more")


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "(no act was followed by a unit)"
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"


if __name__ == "__main__":
    sys.exit(main())
