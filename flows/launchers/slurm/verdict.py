"""Decides what follows for the units of a part when its SLURM job has ended."""

from collections.abc import Set
from dataclasses import dataclass

from flows.launchers.slurm.queue import ElementState

# States in which SLURM jobs end because of the cluster, not of what they ran; and one that is only
# concluded, from SLURM's silence.
OF_THE_CLUSTER = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "LAUNCH_FAILED", "REVOKED"}
_FORGOTTEN = {"FORGOTTEN"}
# States that the running units cause. Units that waited in the same SLURM job did not cause them.
_OF_RUNNING_UNITS = {"TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
# States that only say that the unit runner has ended; its own last words say why.
_OF_THE_RUNNER = {"COMPLETED", "FAILED"}
# Without cgroups, only the output of a SLURM job says that the job needed too much memory.
_OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "out-of-memory")
# SLURM's word on a job that it ends to start it again, which then begins its output anew.
_REQUEUED = "DUE TO JOB REQUEUE"


@dataclass(frozen=True)
class Verdict:
    """What follows for the units without a result: `failed` never run again, the others do if
    `goes_on`. With `one_by_one` they do so one after the other, if it `grows` with more of what
    they ran out of; with `in_vain` the SLURM job counts as a try that brought nothing."""

    failed: frozenset[int]
    goes_on: bool
    one_by_one: bool = False
    grows: bool = False
    in_vain: bool = False


def verdict_on(
    how: ElementState,
    missing: Set[int],
    running: Set[int],
    *,
    has_results: bool,
    was_one_by_one: bool,
    may_grow: bool = False,
) -> Verdict:
    """What follows when a SLURM job ended in a state.

    Of its units, `missing` have no result, of which `running` were started; `has_results` says
    whether the job brought any. It ran one unit at a time if `was_one_by_one`; the next one may get
    more of what it ran out of, memory or time, if `may_grow`.

    A limit of time ends units that could have ended in another job, so they run again as long as
    jobs bring results. A job that needs too much memory may have had several units running, of
    which one is to blame: it shows when they run again, one by one. After a state that is the fault
    of nobody here the units run again, after one that somebody wanted, such as CANCELLED, never.
    """
    running = (missing & running) or missing
    if how.state in OF_THE_CLUSTER | _FORGOTTEN:
        return Verdict(frozenset(), goes_on=True, in_vain=not has_results)
    if how.state == "TIMEOUT" and has_results:
        return Verdict(frozenset(), goes_on=True)
    if may_grow and how.state in _OF_RUNNING_UNITS:
        return Verdict(frozenset(), goes_on=True, grows=True)
    if how.state == "OUT_OF_MEMORY" and len(running) > 1 and not was_one_by_one:
        return Verdict(frozenset(), goes_on=True, one_by_one=True)
    if how.state in _OF_RUNNING_UNITS:
        return Verdict(frozenset(running), goes_on=running < missing)
    if how.state in _OF_THE_RUNNER:
        return Verdict(frozenset(), goes_on=False)
    return Verdict(frozenset(missing), goes_on=False)


def better_told(
    how: ElementState, said: str, *, time_was_up: bool, was_refused: bool = False
) -> ElementState:
    """The state in which a SLURM job ended, where SLURM says only that its program failed.

    Or that it was cancelled, if `was_refused` says that its node has refused it. `said` is the end
    of the job's output; `time_was_up` says that the runner ended because SLURM told it that the
    time limit was near.
    """
    if was_refused:
        return ElementState("LAUNCH_FAILED", "its node refused it, and SLURM cancelled it")
    if how.state not in _OF_THE_RUNNER:
        return how
    if time_was_up:
        return ElementState("TIMEOUT", "told so before the time limit")
    if any(words in said for words in _OUT_OF_MEMORY):
        return ElementState("OUT_OF_MEMORY", how.reason)
    if _REQUEUED in said:
        return ElementState("LAUNCH_FAILED", "requeued, but refused by its node")
    return how
