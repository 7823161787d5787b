"""The plan of a job as Markdown, for the Prefect UI and the command line."""

from flows.reports.markdown import bullets, escaped, table
from flows.reports.quantities import count, duration, memory
from fractal_models.schemas.plan import Amount, JobPlan, PhasePlan, TaskPlan

_HEAD = (
    *("Workflow task", "Images", "Units", "Batches", "Each unit asks for"),
    *("Earlier units needed", "Wall time", "CPU time"),
)


def plan_as_markdown(plan: JobPlan) -> str:
    """What is wrong, a table with a row per phase of each workflow task, and what that takes."""
    errors = sum(finding.level == "error" for finding in plan.findings)
    warnings = len(plan.findings) - errors
    parts = [
        f"**{count(errors, 'error')}, {count(warnings, 'warning')}.** On resource "
        f"{escaped(plan.resource)}: {count(len(plan.tasks), 'workflow task')}."
    ]
    if plan.findings:
        parts.append(bullets(f"**{each.level}**: {escaped(each.told)}" for each in plan.findings))
    if plan.tasks:
        parts.append(table(_HEAD, [row for task in plan.tasks for row in _rows(task)]))
        parts.append(_total(plan))
    return "\n\n".join(parts)


def _total(plan: JobPlan) -> str:
    if plan.wall_seconds is None:
        return "How long it takes is not known: some tasks have not run yet, or on unknown images."
    cpu = "" if plan.cpu_seconds is None else f", and {_range(plan.cpu_seconds)} of CPU time"
    return f"It may take {_range(plan.wall_seconds)}{cpu}, by what earlier units needed."


def _rows(task: TaskPlan) -> list[tuple[str, ...]]:
    """A row per phase; the images are in the first."""
    title = escaped(f"{task.order} {task.name}")
    if not task.phases:
        return [(title, escaped(task.images_told), *[""] * (len(_HEAD) - 2))]
    several = len(task.phases) > 1
    return [
        (
            f"{title}, {phase.component}" if several else title,
            escaped(task.images_told) if phase is task.phases[0] else "",
            *_cells(phase),
        )
        for phase in task.phases
    ]


def _cells(phase: PhasePlan) -> tuple[str, ...]:
    about = "about " if phase.units_are_estimated else ""
    units = "unknown" if phase.units is None else f"{about}{phase.units}"
    if phase.units_at_once is not None:
        units += f", {phase.units_at_once} at once"
    return (
        units,
        "unknown" if phase.batches is None else str(phase.batches),
        escaped(_asked(phase)) or "-",
        "-" if phase.measured_memory_mb is None else _memory(phase.measured_memory_mb),
        "-" if phase.wall_seconds is None else _range(phase.wall_seconds),
        "-" if phase.cpu_seconds is None else _range(phase.cpu_seconds),
    )


def _asked(phase: PhasePlan) -> str:
    told = [
        phase.cpus and count(phase.cpus, "CPU"),
        phase.memory_mb and memory(phase.memory_mb * 1024),
        phase.time and f"time {phase.time}",
        phase.partition and f"partition {phase.partition}",
    ]
    return ", ".join(each for each in told if each)


def _memory(amount: Amount) -> str:
    return f"{memory(amount.median * 1024)} (most up to {memory(amount.high * 1024)})"


def _range(amount: Amount) -> str:
    """A duration with its range: '3 min (2 min to 5 min)'."""
    low, median, high = (duration(each) for each in (amount.low, amount.median, amount.high))
    return median if low == high else f"{median} ({low} to {high})"
