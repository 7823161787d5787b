"""What follows for units when their SLURM job has ended."""

import pytest

from flows.launchers.slurm.queue import ElementState
from flows.launchers.slurm.verdict import OF_THE_CLUSTER, Verdict, better_told, verdict_on

MISSING, RUNNING = {1, 2, 3}, {1, 2}


def verdict(
    state: str,
    running: set[int] = RUNNING,
    *,
    has_results: bool = False,
    was_one_by_one: bool = False,
    may_grow: bool = False,
) -> Verdict:
    return verdict_on(
        ElementState(state, "a reason"),
        MISSING,
        running,
        has_results=has_results,
        was_one_by_one=was_one_by_one,
        may_grow=may_grow,
    )


@pytest.mark.parametrize("state", [*sorted(OF_THE_CLUSTER), "FORGOTTEN"])
def test_what_the_cluster_ends_goes_on(state: str) -> None:
    assert verdict(state) == Verdict(frozenset(), goes_on=True, in_vain=True)
    assert verdict(state, has_results=True) == Verdict(frozenset(), goes_on=True)


def test_a_limit_of_time_ends_only_units_that_get_no_further() -> None:
    assert verdict("TIMEOUT", has_results=True) == Verdict(frozenset(), goes_on=True)
    assert verdict("TIMEOUT") == Verdict(frozenset(RUNNING), goes_on=True)
    assert verdict("TIMEOUT", set()) == Verdict(frozenset(MISSING), goes_on=False)
    assert verdict("DEADLINE", has_results=True) == Verdict(frozenset(RUNNING), goes_on=True)


def test_which_of_several_units_needs_too_much_memory_is_found_out() -> None:
    assert verdict("OUT_OF_MEMORY") == Verdict(frozenset(), goes_on=True, one_by_one=True)
    assert verdict("OUT_OF_MEMORY", {2}) == Verdict(frozenset({2}), goes_on=True)
    again = verdict("OUT_OF_MEMORY", was_one_by_one=True)
    assert again == Verdict(frozenset(RUNNING), goes_on=True)


def test_units_that_may_get_more_go_on_with_more_and_others_as_ever() -> None:
    more = Verdict(frozenset(), goes_on=True, grows=True)
    assert verdict("OUT_OF_MEMORY", may_grow=True) == more
    assert verdict("OUT_OF_MEMORY", {2}, was_one_by_one=True, may_grow=True) == more
    assert verdict("TIMEOUT", may_grow=True) == more
    assert not verdict("TIMEOUT", has_results=True, may_grow=True).grows  # it makes progress
    for state in ("NODE_FAIL", "FAILED", "CANCELLED"):
        assert verdict(state, may_grow=True) == verdict(state)


@pytest.mark.parametrize("state", ["CANCELLED", "A_NEW_STATE"])
def test_what_somebody_ended_does_not_go_on(state: str) -> None:
    assert verdict(state, has_results=True) == Verdict(frozenset(MISSING), goes_on=False)


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED"])
def test_of_a_runner_that_ended_the_job_decides(state: str) -> None:
    assert verdict(state) == Verdict(frozenset(), goes_on=False)


def test_the_output_may_tell_more_than_the_state() -> None:
    failed, killed = ElementState("FAILED", "NonZeroExitCode"), ElementState("CANCELLED", "None")
    memory = "slurmstepd: error: Step 2.batch exceeded memory limit"
    assert better_told(failed, memory, time_was_up=False).state == "OUT_OF_MEMORY"
    assert better_told(failed, "", time_was_up=True).state == "TIMEOUT"
    requeued = (
        "slurmstepd: error: *** JOB 6 ON node CANCELLED AT 2026-11-29T11:27:21 DUE TO JOB REQUEUE "
        "***\nunit_runner: interrupted by a signal."
    )
    assert better_told(failed, requeued, time_was_up=False).state == "LAUNCH_FAILED"
    assert better_told(failed, "", time_was_up=False) is failed
    assert better_told(killed, memory, time_was_up=True) is killed
    refused = better_told(killed, "", time_was_up=False, was_refused=True)
    assert refused.state == "LAUNCH_FAILED"
