"""What SLURM knows of one element of an array, in whatever surroundings a site prints it."""

from pathlib import PurePosixPath

import pytest

from flows.launchers.slurm.queue import ElementState
from flows.launchers.slurm.record import (
    FORGOTTEN,
    cancelled_in_record,
    state_in_accounting,
    state_in_record,
)
from flows.process.transport import Completed

TOKEN = f"fractal-{'a' * 32}"
RECORD = (
    "JobId=5 ArrayJobId=2 ArrayTaskId=1 JobName=fractal UserId=user01(1004) Priority=1 "
    "JobState={state} Reason={reason} Dependency=(null) Command=/jobs/{token}.sh WorkDir=/ "
    "Comment={comment} StdErr=/dev/null StdIn=/dev/null StdOut=/dev/null Power= \n"
)
# Of a job without a script, as of `salloc`.
INTERACTIVE = (
    RECORD.format(state="RUNNING", reason="None", token="x", comment="").partition(" Comment=")[0]
    + " Power= \n"
)


def record(
    state: str = "RUNNING", reason: str = "None", token: str = TOKEN, comment: str = TOKEN
) -> str:
    return RECORD.format(state=state, reason=reason, token=token, comment=comment)


def ended(stdout: str | bytes, stderr: str = "", exit_code: int = 0) -> Completed:
    content = stdout.encode() if isinstance(stdout, str) else stdout
    return Completed(("scontrol",), exit_code, content, stderr.encode())


RUNNING = ElementState("RUNNING", "None")
NOTE = "*** Maintenance on Monday | see https://example.org ***\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ended(record()), RUNNING),
        (ended(NOTE + record() + NOTE), RUNNING),
        (ended(record(comment="changed by the site")), RUNNING),
        (ended(record(token="x")), RUNNING),
        (ended(record("TIMEOUT", "TimeLimit")), ElementState("TIMEOUT", "TimeLimit")),
        (ended(record(token="x", comment="x")), FORGOTTEN),  # of another job with this id
        (ended(record(token="x", comment="x")[:150]), None),
        (ended(INTERACTIVE), FORGOTTEN),
        (ended(INTERACTIVE.rstrip("\n")), None),  # perhaps cut, before our comment
        (ended(b"\xff\xfe" + record().encode()), RUNNING),
        (ended("", "slurm_load_jobs error: Invalid job id specified\n", 1), FORGOTTEN),
        (ended(NOTE, f"{NOTE}slurm_load_jobs error: Invalid job id specified\n", 1), FORGOTTEN),
        (ended("", "slurm_load_jobs error: Unable to contact slurm controller\n", 1), None),
        (ended(""), None),
        (ended(NOTE), None),
        (ended(record()[:90]), None),
    ],
)
def test_a_record_is_read_and_nothing_else_believed(
    answer: Completed, expected: ElementState | None
) -> None:
    assert state_in_record(answer, TOKEN) == expected


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ("12_3|TIMEOUT|/jobs/7/batches/parallel\n", "TIMEOUT"),
        (f"{NOTE}12_3|CANCELLED by 1004|/jobs/7/a|b\n{NOTE}", "CANCELLED"),
        ("12_3.batch|COMPLETED|\n12_3|NODE_FAIL|/jobs/7/a\n", "NODE_FAIL"),
        ("12_33|COMPLETED|/jobs/7/a\n", "FORGOTTEN"),
        ("12_3|RUNNING|/jobs/7/a\n", "FORGOTTEN"),  # as of a job that a controller lost
        ("12_3|CANCELLED|/jobs/7/a\n", "FORGOTTEN"),  # the same
        ("12_3|COMPLETED|/home/ann\n", "FORGOTTEN"),  # of another job with this id
        ("12_3|COMPLETED|/jobs/77/a\n", "FORGOTTEN"),
        ("12_3|COMPLETED\n", "FORGOTTEN"),
        ("12_3||/jobs/7/a\n", "FORGOTTEN"),
        ("", "FORGOTTEN"),
    ],
)
def test_accounting_tells_only_of_ends(lines: str, state: str) -> None:
    how = state_in_accounting(ended(lines), "12_3", PurePosixPath("/jobs/7"))
    assert how is not None
    assert how.state == state


@pytest.mark.parametrize(
    ("stderr", "exit_code", "is_away"),
    [
        ("sacct: error: Problem talking to the database: Connection refused\n", 1, True),
        ("Slurm accounting storage is disabled\n", 1, False),
        ("env: 'sacct': No such file or directory\n", 127, False),
    ],
)
def test_accounting_that_is_away_is_another_thing_than_none(
    stderr: str, exit_code: int, is_away: bool
) -> None:
    how = state_in_accounting(ended("", stderr, exit_code), "12_3", PurePosixPath("/jobs/7"))
    assert how is (None if is_away else FORGOTTEN)


def test_what_was_cancelled_on_a_node_is_told_from_what_waited() -> None:
    lines = "".join(
        f"JobId={number} ArrayJobId=2 ArrayTaskId={index} UserId=user01(1004) JobState={state} "
        f"ReqNodeList=(null) ExcNodeList=(null) NodeList={node} NumNodes=1 Comment={token} \n"
        for number, index, state, node, token in [
            (3, "0", "CANCELLED", "vm BatchHost=vm", TOKEN),
            (4, "1", "CANCELLED", "", TOKEN),
            (5, "2", "RUNNING", "vm BatchHost=vm", TOKEN),
            (6, "3", "CANCELLED", "(null)", TOKEN),
            (7, "4", "CANCELLED", "vm BatchHost=vm", "of others"),
            (2, "5-9", "CANCELLED", "", TOKEN),
        ]
    )
    assert cancelled_in_record(ended(NOTE + lines), TOKEN) == {0}
