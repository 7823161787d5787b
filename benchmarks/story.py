"""What happened in a run of the chaos benchmark, and how soon jobs went on."""

import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from json import loads
from math import inf
from signal import SIGSTOP

from benchmarks.havoc import Act
from benchmarks.workload import Job
from tests.consistency import Findings


@dataclass
class Recovery:
    """Seconds from each act to the next line of a unit, as far as a job had units left.

    `last_act` are those of acts that no other one followed before that line, and `waits` the
    seconds until a unit or another act came. A process that stands still recovers from when it
    goes on.
    """

    any_unit: list[float] = field(default_factory=list)
    last_act: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    every_job: list[float] = field(default_factory=list)


@dataclass
class Story:
    """What happened: acts with their time, jobs, what is wrong."""

    began: float = field(default_factory=time.time)
    acts: list[tuple[float, Act]] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    jobs: list[Job] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    recovery: Recovery = field(default_factory=Recovery)
    rounds: int = 0

    def tell(self, text: str) -> None:
        print(f"{time.time() - self.began:7.1f} s  {text}", flush=True)


def recovery_of(story: Story) -> Recovery:
    """How long the jobs that had been submitted before each act took to go on."""
    by_job = [
        (job.submitted_at, [loads(line)["at"] for line in job.journal.read_text().splitlines()])
        for job in story.jobs
    ]
    moments = sorted(
        moment + (act.seconds if act.number == SIGSTOP else 0.0) for moment, act in story.acts
    )
    recovery = Recovery()
    for moment, following in zip(moments, [*moments[1:], inf], strict=True):
        nexts = [
            times[bisect_right(times, moment)]
            for submitted_at, times in by_job
            if submitted_at <= moment and times and times[-1] > moment
        ]
        if nexts:
            first = min(nexts)
            recovery.any_unit.append(first - moment)
            recovery.every_job.append(max(nexts) - moment)
            recovery.waits.append(min(first, following) - moment)
            recovery.last_act += [first - moment] if first <= following else []
    return recovery
