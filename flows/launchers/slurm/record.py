"""Looks up a single SLURM job that `squeue` does not list."""

import re
from collections.abc import Sequence

from flows.launchers.slurm.queue import ElementState
from flows.process.transport import AnswerError, Completed, Transport, TransportError
from flows.reports.text import printable

_IN_ENGLISH = ("env", "LC_ALL=C")
# The state of a job whose end SLURM has forgotten: it ended minutes ago, or the controller was
# killed.
FORGOTTEN = ElementState("FORGOTTEN", "SLURM does not know it any more")
_NO_SUCH_JOB = "Invalid job id specified"
_RECORD = re.compile(
    r"JobId=\d{1,10} .*?\bJobState=(?P<state>[A-Z_]{2,30})\b Reason=(?P<reason>\S*)"
)


async def look_up(
    transport: Transport, name: str, token: str, chosen: Sequence[str] = ()
) -> ElementState | None:
    """The state of an array element, found by its SLURM name (as 12_3); None if it cannot be told.

    `token` is the comment of the array, `chosen` are options that choose a cluster. The end of an
    element is also looked for in accounting, if the site has it. An element that SLURM does not
    know has the state FORGOTTEN.
    """
    answer = await _ask(transport, "scontrol", *chosen, "show", "job", "--oneliner", name)
    found = None if answer is None else state_in_record(answer, token)
    if found is not FORGOTTEN:
        return found
    columns = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    answer = await _ask(transport, "sacct", *chosen, f"--jobs={name}", *columns)
    return (answer and state_in_accounting(answer, name)) or FORGOTTEN


def state_in_record(answer: Completed, token: str) -> ElementState | None:
    """The state of an element in an answer of `scontrol show job`; None if it is not there.

    Our token is in a record's comment and in the name of its script. A record without the token
    belongs to another job that was given the same id.
    """
    others = False
    for line in answer.stdout.decode(errors="replace").split("\n"):
        if (record := _RECORD.search(line)) is not None:
            if token in line:
                return ElementState(record["state"], printable(record["reason"]))
            others = others or (" Command=" in line and " StdOut=" in line)  # to its end
    said = answer.stderr.decode(errors="replace")
    return FORGOTTEN if others or (answer.exit_code != 0 and _NO_SUCH_JOB in said) else None


def state_in_accounting(answer: Completed, name: str) -> ElementState | None:
    """The state in which an element ended, from an answer of `sacct`; None if that does not tell.

    A state in which the element would live is ignored: accounting says forever that a job runs if
    the controller lost it.
    """
    line = re.compile(rf"^\s*{name}\|(?P<state>[A-Z_]{{2,30}})(?: by \d+)?\s*$", re.MULTILINE)
    found = line.search(answer.stdout.decode(errors="replace"))
    how = ElementState(found["state"], "as accounting tells") if found else None
    return None if how is None or how.is_alive else how


async def _ask(transport: Transport, *command: str) -> Completed | None:
    try:
        return await transport.run((*_IN_ENGLISH, *command))
    except (TransportError, AnswerError):
        return None
