"""A site of a cluster that lies: what commands print comes changed, late, again, or not at all.

It stands before a transport to a real cluster. The commands are carried out as they are given; only
what is heard of them is not what they said. It takes down what was truly submitted.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from hypothesis import strategies as st

from flows.process.transport import Completed, Transport, TransportError
from tests.cluster import Cluster

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel", "sacct", "python")
KINDS = (
    *("banner", "warning", "nothing", "drop", "repeat", "reorder", "garble", "cut", "stale"),
    *("late", "lost", "not run"),
)
BANNERS = (
    b"Welcome to the cluster!\n",
    b"*** Maintenance | Monday | 08:00 ***\n42\n",
    b"CLUSTER: other\n",
    b"\xff\xfe\x00 no UTF-8, no line end",
    b"quota: 12|0|RUNNING|None|.\n",
    b"Submitted batch job of nobody\n",
    b"             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)\n",
)


@dataclass(frozen=True)
class Lie:
    """A way in which an answer is not heard as it was given; `seed` says where and how much."""

    kind: str
    seed: int

    def __repr__(self) -> str:
        return f"{self.kind}:{self.seed}"


# How many of the first calls of a program are lied about at most; later the truth is heard. Without
# an end to it, or with more of `sbatch` than are tried, no work could go well.
MOST_LIES = {"sbatch": 3, "squeue": 40, "scontrol": 8, "scancel": 5, "sacct": 5, "python": 12}


def _spells(most: int) -> st.SearchStrategy[list[Lie | None]]:
    """Spells of the same lie, or of the truth."""
    lie = st.builds(Lie, st.sampled_from(KINDS), st.integers(min_value=0, max_value=9999))
    spell = st.tuples(st.one_of(lie, lie, lie, st.none()), st.integers(1, max(1, most // 2)))
    return st.lists(spell, min_size=3, max_size=6).map(
        lambda spells: [lie for lie, times in spells for _ in range(times)][:most]
    )


LIES = st.fixed_dictionaries({program: _spells(most) for program, most in MOST_LIES.items()})


@dataclass
class Submitted:
    """What a real `sbatch` was given: parts of a batch's folder, and the array that they became."""

    folder: Path
    parts: dict[int, int]  # by the index in the array
    token: str
    job_id: int | None = None

    def is_void(self, index: int) -> bool:
        """Whether an element ends as soon as it begins."""
        return (self.folder / f"{self.parts[index]:06d}" / f"{self.token}.void").exists()


class LyingSite:
    """What is heard of a cluster, and what is true of it. `wrongs` are rules that were broken."""

    def __init__(self, cluster: Cluster, lies: Mapping[str, Sequence[Lie | None]]) -> None:
        self.cluster = cluster
        self.lies: dict[str, Iterator[Lie | None]] = {p: iter(lies[p]) for p in PROGRAMS}
        self.last: dict[str, Completed] = {}
        self.submitted: list[Submitted] = []
        self.wrongs: list[str] = []
        self.calls: dict[str, int] = defaultdict(int)
        self.told = 0
        self.is_stopped = False

    async def truth(self) -> dict[tuple[int, int], str]:
        """The states of all elements of arrays that live, by the array's id and the index in it."""
        lines = await self.cluster.squeue("--array", "--format=%F|%K|%T")
        found = [line.split("|") for line in lines]
        return {
            (int(array), int(index)): state
            for array, index, state in found
            if index.isdigit() and state != "COMPLETING"
        }

    async def look_at_cancelling(self, names: Sequence[str]) -> None:
        """What lives and goes well is cancelled only if the batch is stopped."""
        if self.is_stopped:
            return
        for job_id, index in await self.truth():
            part = next((s for s in self.submitted if s.job_id == job_id), None)
            if part is None or part.is_void(index):
                continue
            if {str(job_id), f"{job_id}_{index}"} & set(names):
                self.wrongs.append(f"{job_id}_{index} was cancelled while it lived")

    async def look_at_submission(self, script: Path) -> Submitted:
        """Take down what is submitted; nothing of it may run yet, or may do so later."""
        text = await self.cluster.run("cat", str(script))
        (indexes,) = re.findall(r"--array=(\S+)", text)
        offset = re.search(r"SLURM_ARRAY_TASK_ID \+ (\d+)", text)
        first = int(offset[1]) if offset else 0
        given = Submitted(script.parent, {n: n + first for n in numbers(indexes)}, script.stem)
        living = await self.truth()
        for before in self.submitted:
            for (job_id, index), state in living.items():
                part = before.parts.get(index)
                if job_id != before.job_id or part not in given.parts.values():
                    continue
                if not before.is_void(index):
                    self.wrongs.append(
                        f"{job_id}_{index} was {state} when its part {part} was submitted again"
                    )
        self.submitted.append(given)
        return given


def numbers(indexes: str) -> list[int]:
    """Those of an array, as 0-2,5."""
    found = []
    for each in indexes.split(","):
        first, _, last = each.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


class LyingTransport:
    """A transport of the site; `killed_at` is the number of the call at which our process dies."""

    def __init__(self, site: LyingSite, transport: Transport, killed_at: int | None = None) -> None:
        self.site = site
        self.real = transport
        self.place = transport.place
        self.killed_at = killed_at

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """See `Transport.run`."""
        site = self.site
        program = next((p for p in PROGRAMS if p in command), "python")
        site.calls[program] += 1
        if self.killed_at is not None and sum(site.calls.values()) == self.killed_at:
            raise KilledError
        lie = next(site.lies[program], None)
        site.told += lie is not None
        if lie is not None and lie.kind == "not run":
            raise TransportError("the connection was lost before")
        given = await site.look_at_submission(Path(command[-1])) if program == "sbatch" else None
        if program == "scancel":
            await site.look_at_cancelling(command)
        answer = await self.real.run(command, stdin, seconds=seconds)
        if given is not None and (found := re.search(rb"batch job (\d+)", answer.stdout)):
            given.job_id = int(found[1])
        before = site.last.get(program)
        site.last[program] = answer
        return answer if lie is None else await heard(answer, lie, before)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self.real.close()


class KilledError(Exception):
    """Our process died."""


async def heard(answer: Completed, lie: Lie, before: Completed | None) -> Completed:
    """What is heard instead of an answer; `before` is what the program answered before."""
    random = Random(lie.seed)
    content = answer.stdout
    lines = content.splitlines(keepends=True)
    match lie.kind:
        case "lost":
            raise TransportError("the connection was lost after")
        case "late":
            await asyncio.sleep(random.uniform(0.0, 0.5))
        case "warning":
            return replace(answer, stderr=random.choice(BANNERS) + answer.stderr)
        case "banner":
            banner = random.choice(BANNERS)
            content = random.choice([banner + content, content + banner, banner + content + banner])
        case "nothing":
            content = b""
        case "drop" if lines:
            del lines[random.randrange(len(lines))]
            content = b"".join(lines)
        case "repeat":
            content = content * 2 if random.random() < 0.5 else b"".join(lines + lines[:1])
        case "reorder":
            random.shuffle(lines)
            content = b"".join(lines)
        case "garble" if content:
            changed = bytearray(content)
            for _ in range(random.randint(1, 5)):
                changed[random.randrange(len(changed))] = random.randrange(256)
            content = bytes(changed)
        case "cut":
            content = content[: random.randrange(len(content) + 1)]
        case "stale":
            content = before.stdout if before is not None else b""
    return replace(answer, stdout=content)
