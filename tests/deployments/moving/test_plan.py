"""What a move would do, and what stands in its way: sentences from facts."""

from dataclasses import replace

import pytest

from deployments.moving.database import ImageList, OpenActivity, OpenJob, Space
from deployments.moving.plan import Facts, plan_of_adoption, plan_of_return, wrong_version

GIB = 1 << 30
FACTS = Facts(
    others=(),
    jobs=(),
    activities=(),
    lists=(ImageList(7, 1000), ImageList(8, 500)),
    rows={"projectv2": 3, "jobv2": 20, "historyunit": 0},
    space=Space(used=GIB, free=100 * GIB),
)
JOB = OpenJob(5, "ann@example.org", 7)
ACTIVITY = OpenActivity(6, "collect", "package", "1.0")


def test_what_would_be_moved_is_told_with_time_and_space() -> None:
    plan = plan_of_adoption(FACTS)

    assert plan.hindrances == []
    assert plan.deeds[0] == "Rows to move: projectv2 3, jobv2 20."
    assert plan.deeds[1] == "Images to move: 1,500, of 2 datasets."
    assert "1 min" in plan.deeds[2]
    assert "(100 GB are free)" in plan.deeds[2]


def test_jobs_that_were_left_are_named_and_ended() -> None:
    plan = plan_of_adoption(replace(FACTS, jobs=(JOB,), activities=(ACTIVITY,)))

    assert plan.hindrances == []
    assert plan.deeds[-2:] == [
        "Job 5 of ann@example.org on dataset 7 is submitted: it is ended as failed.",
        "Activity 6 (collect package 1.0) has not ended: it is ended as failed.",
    ]


def test_jobs_of_fractal_prefect_stand_in_the_way_of_a_return() -> None:
    (hindrance,) = plan_of_return(replace(FACTS, jobs=(JOB,))).hindrances

    assert hindrance.startswith("Job 5 of ann@example.org on dataset 7 is submitted: wait")


def test_images_that_are_twice_in_a_list_are_told() -> None:
    facts = replace(FACTS, lists=(ImageList(7, 10, doubled=2), ImageList(8, 5)))

    assert plan_of_adoption(facts).deeds[-1].startswith("Datasets 7: 2 images in the list a se")


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        ({"others": ["psql at 10.0.0.1 (2)"]}, "Stop them: psql at 10.0.0.1 (2)."),
        ({"space": Space(100 * GIB, 10 * GIB)}, "10 GB are free."),
        ({"unknown_tables": ["a", "b"]}, "schema: a, b."),
        ({"misfits": ["t.c is odd."]}, "t.c is odd."),
        ({"broken": [("t", "a > 0", 1234)]}, "t: 1234 rows against a rule: a > 0."),
        ({"lists": [ImageList(7, 5, unusable=1)]}, "Datasets 7: "),
    ],
)
def test_what_stands_in_the_way_is_named(fact: dict[str, object], told: str) -> None:
    facts = replace(FACTS, **fact)  # type: ignore[arg-type]
    for plan in (plan_of_adoption(facts), plan_of_return(facts)):
        (hindrance,) = plan.hindrances
        assert told in hindrance


def test_images_with_fields_of_their_own_stand_in_the_way() -> None:
    (hindrance,) = plan_of_adoption(replace(FACTS, lists=[ImageList(7, 5, odd=1)])).hindrances

    assert "fields that are not" in hindrance


def test_space_that_cannot_be_seen_is_for_the_administrator_to_see() -> None:
    plan = plan_of_adoption(replace(FACTS, space=Space(100 * GIB, None)))

    assert plan.hindrances == []
    assert "Space: about 400 GB" in plan.deeds[2]


def test_what_fractal_server_has_no_place_for_is_told() -> None:
    emails = [f"{n}@example.org" for n in range(12)]
    facts = replace(FACTS, rows={"schedule": 2}, new_passwords=emails)

    told = plan_of_return(facts).deeds[-2:]

    assert told[0].startswith("2 schedules: kept in fractal_prefect.kept_schedule")
    assert "8@example.org, 9@example.org and 2 more." in told[1]


def test_the_right_version_is_named() -> None:
    assert "2.24.0 to 2.26.0" in wrong_version("0123456789ab")
