"""What the partitions of a cluster offer, as `sinfo` says, and whether a request fits into one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flows.launchers.slurm.queue import choosing
from flows.launchers.slurm.script import SlurmRequest
from flows.process.transport import AnswerError, Transport
from flows.reports.quantities import count, duration, memory
from flows.reports.text import printable
from fractal_models.schemas.slurm import slurm_seconds

_MARK, _END = "fractal-partition|", "|."
_FORMAT = f"--format={_MARK}%P|%a|%l|%m|%c|%G{_END}"
_LINE = re.compile(
    rf"{re.escape(_MARK)}(?P<name>[^|\s*]{{1,200}})(?P<default>\*?)\|(?P<state>[a-z]{{1,20}})"
    rf"\|(?P<limit>[0-9:-]{{1,20}}|infinite|n/a)\|(?P<mem>\d{{1,12}})\+?\|(?P<cpus>\d{{1,9}})\+?"
    rf"\|(?P<gres>[^|]{{0,500}}){re.escape(_END)}"
)
_NO_LIMIT = ("infinite", "n/a")
_LONGEST_ANSWER = 1 << 20
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: its limits, and the most that one of its nodes has; `mem` is in MiB."""

    name: str
    is_default: bool
    is_up: bool
    max_seconds: int | None  # None: there is no limit
    cpus: int
    mem: int
    has_gpus: bool


async def read_partitions(transport: Transport, cluster: str | None) -> dict[str, Partition]:
    """The partitions of a cluster, by name.

    Raises:
        TransportError, CommandError: SLURM does not answer.
    """
    command = (
        "env",
        "LC_ALL=C",
        "sinfo",
        "--all",
        "--noheader",
        "--exact",
        *choosing(cluster),
        _FORMAT,
    )
    answer = (await transport.run(command, seconds=_ASK_SECONDS)).check()
    if len(answer.stdout) > _LONGEST_ANSWER:
        raise AnswerError(f"sinfo lists partitions in {len(answer.stdout)} bytes: too many.")
    return parse_partitions(printable(answer.stdout.decode(errors="replace")))


def parse_partitions(answer: str) -> dict[str, Partition]:
    """The partitions in an answer of `sinfo`, which has a line for each kind of their nodes."""
    found: dict[str, Partition] = {}
    for line in _LINE.finditer(answer):
        node = Partition(
            name=line["name"],
            is_default=bool(line["default"]),
            is_up=line["state"] == "up",
            max_seconds=None if line["limit"] in _NO_LIMIT else slurm_seconds(line["limit"]),
            cpus=int(line["cpus"]),
            mem=int(line["mem"]),
            has_gpus="gpu" in line["gres"],
        )
        other = found.get(node.name, node)
        found[node.name] = replace(
            node,
            cpus=max(node.cpus, other.cpus),
            mem=max(node.mem, other.mem),
            has_gpus=node.has_gpus or other.has_gpus,
        )
    return found


def misfits(
    request: SlurmRequest, parallel_tasks: int, partitions: Mapping[str, Partition]
) -> list[str]:
    """Why SLURM would refuse a job that runs so many units at once, or never begin it: sentences.

    Several partitions may be asked for; it suffices that one of them fits.
    """
    if not partitions:
        return []
    if request.partition is None:
        asked = [each.name for each in partitions.values() if each.is_default]
        if not asked:
            return []  # something else chooses it: extra_lines, a variable, a plugin of SLURM
    else:
        asked = request.partition.split(",")
    if unknown := [name for name in asked if name not in partitions]:
        known = ", ".join(sorted(partitions))
        return [f"There is no partition {', '.join(unknown)}: choose one of {known}."]
    problems = [_misfits(request, parallel_tasks, partitions[name]) for name in asked]
    return [] if not all(problems) else problems[0]


def _misfits(request: SlurmRequest, parallel_tasks: int, partition: Partition) -> list[str]:
    name, found = partition.name, []
    if not partition.is_up:
        found.append(f"Partition {name} is not up: choose another one, or ask its administrators.")
    cpus, mem = request.cpus_per_task * parallel_tasks, request.mem * parallel_tasks
    of_units = f" for {count(parallel_tasks, 'unit')} at once" if parallel_tasks > 1 else ""
    if cpus > partition.cpus:
        found.append(
            f"A SLURM job asks for {cpus} CPUs{of_units}, but the largest node of partition "
            f"{name} has {partition.cpus}: lower cpus_per_task or parallel_tasks_per_job, or "
            "choose another partition."
        )
    if mem > partition.mem:
        found.append(
            f"A SLURM job asks for {memory(mem * 1024)} of memory{of_units}, but the largest node "
            f"of partition {name} has {memory(partition.mem * 1024)}: lower mem or "
            "parallel_tasks_per_job, or choose another partition."
        )
    asked = slurm_seconds(request.time) if request.time else None
    if asked is not None and partition.max_seconds is not None and asked > partition.max_seconds:
        found.append(
            f"A SLURM job asks for {duration(asked)} of time, but partition {name} allows "
            f"{duration(partition.max_seconds)}: lower time, or choose another partition."
        )
    if (request.gpus or "gpu" in (request.gres or "")) and not partition.has_gpus:
        found.append(
            f"A SLURM job asks for a GPU, but partition {name} has none: choose a partition with "
            "GPUs, or leave out gpus, gres and needs_gpu."
        )
    return found
