"""How much units ask of SLURM where that is left to what earlier ones needed (`mem: auto`). Pure.

Who writes a task guesses its memory for the largest images there may be. What its units really
needed is known after the first job. Where they then need more after all, it is asked for: memory
if a SLURM job ran out of memory, time if it ran out of time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flows.launchers.slurm.script import SlurmRequest
from flows.reports.quantities import count, memory
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, mebibytes, slurm_seconds

AUTO = "auto"

# How many times the highest peak is asked for; more, while few units have been measured.
_MARGIN, _MARGIN_OF_FEW, _FEW_UNITS = 1.25, 1.5, 20
# In MiB: what the runner and a warm process need beside each unit, what is asked for at least, and
# in which steps.
_BESIDE, _FLOOR, _STEP = 64, 200, 50
_MOST_DOUBLINGS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """The highest peak memory (KiB) of so many units of a task version that were done."""

    highest_kb: float
    num_units: int


@dataclass(frozen=True, slots=True)
class RightSize:
    """A `meta` in which the memory is a number, and in words where that comes from."""

    meta: dict[str, Any]
    told: str


def is_auto(
    config: JobRunnerConfigSLURM, meta: Mapping[str, Any], manifest: Mapping[str, Any]
) -> bool:
    """Whether the memory of units is left to what earlier ones needed.

    The `meta` of a workflow task says so; or its resource does, and `meta` has only what the
    task's own `manifest` says. A number that somebody chose counts.
    """
    said = meta.get("mem")
    return said == AUTO or (config.mem == AUTO and said == manifest.get("mem"))


def right_size(
    config: JobRunnerConfigSLURM,
    meta: Mapping[str, Any],
    manifest: Mapping[str, Any],
    measured: Measured | None,
) -> RightSize:
    """The `meta` of units whose memory is `auto`; without measures, with the task's own memory."""
    others = {name: value for name, value in meta.items() if name != "mem"}
    if measured is None:
        own = manifest.get("mem")
        known = {} if own in (None, AUTO) else {"mem": own}
        told = "mem is auto, and nothing is known yet of what these units need"
        return RightSize({**others, **known}, told)
    at_once = meta.get("parallel_tasks_per_job") or 1  # which share the memory of a SLURM job
    mem = min(enough_for(measured), mebibytes(config.batching_config.max_mem_per_job) // at_once)
    needed = f"{count(measured.num_units, 'unit')} before needed at most"
    told = f"mem is auto: {needed} {memory(measured.highest_kb)}"
    return RightSize({**others, "mem": mem}, told)


def enough_for(measured: Measured) -> int:
    """The memory (MiB) to ask for each unit of a task version."""
    margin = _MARGIN if measured.num_units >= _FEW_UNITS else _MARGIN_OF_FEW
    enough = measured.highest_kb * margin / 1024 + _BESIDE
    return max(_FLOOR, math.ceil(enough / _STEP) * _STEP)


@dataclass(frozen=True, slots=True)
class Growth:
    """How often the memory and the time of units were doubled, since they ran out of them."""

    mem: int = 0
    time: int = 0

    def after(self, state: str) -> "Growth | None":
        """The next one, after a SLURM job ended in this state; None if more of it is no help."""
        grown = {
            "OUT_OF_MEMORY": replace(self, mem=self.mem + 1),
            "TIMEOUT": replace(self, time=self.time + 1),
        }.get(state)
        return None if grown is None or max(grown.mem, grown.time) > _MOST_DOUBLINGS else grown


def grown_request(request: SlurmRequest, growth: Growth, most_mb: int) -> SlurmRequest:
    """A request for units that need more; of memory not more than `most_mb` (MiB) for each."""
    mem = max(request.mem, min(request.mem << growth.mem, most_mb))
    if request.time is None or not growth.time:
        return replace(request, mem=mem)
    minutes = math.ceil(slurm_seconds(request.time) / 60) << growth.time
    return replace(request, mem=mem, time=str(minutes))
