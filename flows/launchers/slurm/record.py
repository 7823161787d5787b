"""Looks up a single SLURM job that `squeue` does not list."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from flows.launchers.slurm.queue import ElementState
from flows.process.transport import AnswerError, Completed, Transport, TransportError
from flows.reports.text import printable

_IN_ENGLISH = ("env", "LC_ALL=C")
# The state of a job whose end SLURM has forgotten: it ended minutes ago, or the controller was
# killed.
FORGOTTEN = ElementState("FORGOTTEN", "SLURM does not know it any more")
_NO_SUCH_JOB = "Invalid job id specified"
_NO_ACCOUNTING = "accounting storage is disabled"
_NOT_FOUND = 127  # the exit code of `env` if there is no such command
_RECORD = re.compile(
    r"JobId=\d{1,10} .*?\bJobState=(?P<state>[A-Z_]{2,30})\b Reason=(?P<reason>\S*)"
)
_CANCELLED_ON_A_NODE = re.compile(
    r"\bArrayTaskId=(\d{1,9}) .*\bJobState=CANCELLED .* NodeList=(?!\(null\))\S"
)


async def look_up(
    transport: Transport, name: str, token: str, home: PurePosixPath, chosen: Sequence[str] = ()
) -> ElementState | None:
    """The state of an array element, found by its SLURM name (as 12_3); None if it cannot be told.

    `token` is the comment of the array, `home` the folder below which it was submitted, `chosen`
    are options that choose a cluster. The end of an element is also looked for in accounting, if
    the site has it. An element that SLURM does not know has the state FORGOTTEN; while accounting
    does not answer, that cannot be told.
    """
    found = await recorded(transport, name, token, chosen)
    if found is not FORGOTTEN:
        return found
    columns = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State,WorkDir")
    answer = await _ask(transport, "sacct", *chosen, f"--jobs={name}", *columns)
    return None if answer is None else state_in_accounting(answer, name, home)


async def recorded(
    transport: Transport, name: str, token: str, chosen: Sequence[str] = ()
) -> ElementState | None:
    """As `look_up`, of elements, or whole arrays, that SLURM's controller remembers."""
    answer = await _ask(transport, "scontrol", *chosen, "show", "job", "--oneliner", name)
    return None if answer is None else state_in_record(answer, token)


def state_in_record(answer: Completed, token: str) -> ElementState | None:
    """The state of an element in an answer of `scontrol show job`; None if it is not there.

    Our token is in a record's comment and in the name of its script. A whole record without the
    token belongs to another job that was given the same id.
    """
    *lines, rest = answer.stdout.decode(errors="replace").split("\n")
    for line in (*lines, rest):
        if token in line and (record := _RECORD.search(line)) is not None:
            return ElementState(record["state"], printable(record["reason"]))
    if any(" WorkDir=" in line and _RECORD.search(line) for line in lines):
        return FORGOTTEN
    said = answer.stderr.decode(errors="replace")
    return FORGOTTEN if answer.exit_code != 0 and _NO_SUCH_JOB in said else None


async def cancelled_on_nodes(
    transport: Transport, array: int, token: str, chosen: Sequence[str] = ()
) -> set[int]:
    """The indexes of an array's elements that were cancelled when they had a node already.

    None of them if the controller does not tell.
    """
    answer = await _ask(transport, "scontrol", *chosen, "show", "job", "--oneliner", str(array))
    return set() if answer is None else cancelled_in_record(answer, token)


def cancelled_in_record(answer: Completed, token: str) -> set[int]:
    """As `cancelled_on_nodes`, in an answer of `scontrol show job`."""
    lines = answer.stdout.decode(errors="replace").splitlines()
    found = (_CANCELLED_ON_A_NODE.search(line) for line in lines if token in line)
    return {int(each[1]) for each in found if each is not None}


def state_in_accounting(answer: Completed, name: str, home: PurePosixPath) -> ElementState | None:
    """The state in which an element ended, from an answer of `sacct`; None if that is away.

    If accounting does not tell, or there is none, the element is FORGOTTEN. A state in which the
    element would live is ignored: accounting says forever that a job runs if the controller lost
    it, or that it is CANCELLED, but not by whom. So is a job that did not work below `home`, which
    was given the same id.
    """
    line = re.compile(
        rf"^\s*{name}\|(?!CANCELLED\|)(?P<state>[A-Z_]{{2,30}})(?: by \d+)?\|(?P<place>.*)$", re.M
    )
    for found in line.finditer(answer.stdout.decode(errors="replace")):
        how = ElementState(found["state"], "as accounting tells")
        if not how.is_alive and PurePosixPath(found["place"].rstrip()).is_relative_to(home):
            return how
    is_away = answer.exit_code not in (0, _NOT_FOUND) and _NO_ACCOUNTING not in answer.words
    return None if is_away else FORGOTTEN


async def _ask(transport: Transport, *command: str) -> Completed | None:
    try:
        return await transport.run((*_IN_ENGLISH, *command))
    except (TransportError, AnswerError):
        return None
