"""A plan is told in Markdown: what is wrong, a row per phase, and how long it may take."""

from flows.reports.plan import plan_as_markdown
from fractal_models.schemas.plan import Amount, Finding, JobPlan, PhasePlan, TaskPlan

MINUTES = Amount(low=60, median=120, high=300)


def test_a_plan_is_told_by_phase() -> None:
    known = PhasePlan(
        component="parallel",
        units=96,
        batches=4,
        units_at_once=32,
        cpus=2,
        memory_mb=4096,
        time="1:00:00",
        partition="main",
        measured_units=12,
        measured_memory_mb=Amount(low=100, median=200, high=1024),
        wall_seconds=MINUTES,
        cpu_seconds=MINUTES,
    )
    first = PhasePlan(component="init", units=1, batches=1, units_at_once=1)
    second = PhasePlan(component="parallel", units=None, batches=None, units_at_once=None)
    segment = TaskPlan(
        order=0, name="Segment", type="parallel", images=96, images_told="96 of 99", phases=[known]
    )
    register = TaskPlan(
        order=1,
        name="Register",
        type="compound",
        images=None,
        images_told="unknown (made by task 0)",
        phases=[first, second],
    )
    findings = [
        Finding(level="error", task=0, told="Task 0 Segment: its_path is wrong."),
        Finding(level="warning", told="Look."),
    ]
    plan = JobPlan(resource="cluster", tasks=[segment, register], findings=findings)

    assert plan_as_markdown(plan) == "\n".join(
        [
            "**1 error, 1 warning.** On resource cluster: 2 workflow tasks.",
            "",
            "- **error**: Task 0 Segment: its\\_path is wrong.",
            "- **warning**: Look.",
            "",
            "| Workflow task | Images | Units | Batches | Each unit asks for "
            "| Earlier units needed | Wall time | CPU time |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| 0 Segment | 96 of 99 | 96, 32 at once | 4 | 2 CPUs, 4 GB, time 1:00:00, partition "
            "main | 200 MB (most up to 1 GB) | 2 min (1 min to 5 min) | 2 min (1 min to 5 min) |",
            "| 1 Register, init | unknown (made by task 0) | 1, 1 at once | 1 | - | - | - | - |",
            "| 1 Register, parallel |  | unknown | unknown | - | - | - | - |",
            "",
            "How long it takes is not known: some tasks have not run yet, or on unknown images.",
        ]
    )


def test_the_whole_is_told_if_all_of_it_is_known() -> None:
    plan = JobPlan(
        resource="here", tasks=[], findings=[], wall_seconds=MINUTES, cpu_seconds=MINUTES
    )
    assert plan_as_markdown(plan) == "**0 errors, 0 warnings.** On resource here: 0 workflow tasks."
