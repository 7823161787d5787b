from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.units.plan import (
    PlanError,
    PlannedUnit,
    TaskType,
    UnitPlan,
    plan_compute_phase,
    plan_first_phase,
    processed,
    with_memory,
)
from fractal_models.images import ParallelizationItem

ARGS_NON_PARALLEL = {"plate": "p"}
ARGS_PARALLEL = {"level": 2}


def plan(task_type: TaskType, **changed: Any) -> UnitPlan:
    given_to_plan: dict[str, Any] = {
        "zarr_urls": ["/zarr/a", "/zarr/b"],
        "zarr_dir": "/zarr",
        "args_non_parallel": ARGS_NON_PARALLEL,
        "args_parallel": ARGS_PARALLEL,
        "command_non_parallel": "python 'non parallel.py'",
        "command_parallel": "python par.py",
        "type_filters": {"is_3D": True},
        "attribute_filters": {"well": ["A01"]},
    }
    return plan_first_phase(task_type, **{**given_to_plan, **changed})


ALL_URLS = ["/zarr/a", "/zarr/b"]


@pytest.mark.parametrize(
    ("task_type", "expected"),
    [
        (
            "parallel",
            UnitPlan(
                "parallel",
                ["python", "par.py"],
                ARGS_PARALLEL,
                [
                    PlannedUnit(0, "par-000000", {"zarr_url": "/zarr/a"}, ["/zarr/a"]),
                    PlannedUnit(1, "par-000001", {"zarr_url": "/zarr/b"}, ["/zarr/b"]),
                ],
            ),
        ),
        (
            "non_parallel",
            UnitPlan(
                "non_parallel",
                ["python", "non parallel.py"],
                ARGS_NON_PARALLEL,
                [
                    PlannedUnit(
                        0, "nonpar-000000", {"zarr_dir": "/zarr", "zarr_urls": ALL_URLS}, ALL_URLS
                    )
                ],
            ),
        ),
        (
            "compound",
            UnitPlan(
                "init",
                ["python", "non parallel.py"],
                ARGS_NON_PARALLEL,
                [
                    PlannedUnit(
                        0, "init-000000", {"zarr_dir": "/zarr", "zarr_urls": ALL_URLS}, ALL_URLS
                    )
                ],
            ),
        ),
        (
            "converter_non_parallel",
            UnitPlan(
                "non_parallel",
                ["python", "non parallel.py"],
                ARGS_NON_PARALLEL,
                [PlannedUnit(0, "nonpar-000000", {"zarr_dir": "/zarr"}, [])],
            ),
        ),
        (
            "converter_compound",
            UnitPlan(
                "init",
                ["python", "non parallel.py"],
                ARGS_NON_PARALLEL,
                [PlannedUnit(0, "init-000000", {"zarr_dir": "/zarr"}, [])],
            ),
        ),
    ],
)
def test_the_first_phase_of_each_task_type(task_type: TaskType, expected: UnitPlan) -> None:
    assert plan(task_type) == expected


def test_the_second_phase_has_a_unit_per_item() -> None:
    items = [
        ParallelizationItem(zarr_url="/zarr/a", init_args={"cycle": 1}),
        ParallelizationItem(zarr_url="/zarr/a", init_args={"cycle": 2}),
        ParallelizationItem(zarr_url="/zarr/b"),
    ]
    planned = plan_compute_phase(items, args_parallel=ARGS_PARALLEL, command_parallel="par")
    assert planned == UnitPlan(
        "parallel",
        ["par"],
        ARGS_PARALLEL,
        [
            PlannedUnit(
                0, "par-000000", {"zarr_url": "/zarr/a", "init_args": {"cycle": 1}}, ["/zarr/a"]
            ),
            PlannedUnit(
                1, "par-000001", {"zarr_url": "/zarr/a", "init_args": {"cycle": 2}}, ["/zarr/a"]
            ),
            PlannedUnit(2, "par-000002", {"zarr_url": "/zarr/b", "init_args": {}}, ["/zarr/b"]),
        ],
    )


def test_equal_items_of_a_parallelization_list_are_one_unit() -> None:
    all_args = [
        {},
        {"a": [1, {"b": 2.0, "c": None}]},
        {"a": [1.0, {"c": None, "b": 2}]},
        {"a": [True, {"b": 2, "c": None}]},
        {"a": [{"b": 2, "c": None}, 1]},
        {},
    ]
    items = [ParallelizationItem(zarr_url="/a", init_args=args) for args in all_args]
    items.append(ParallelizationItem(zarr_url="/b"))
    planned = plan_compute_phase(items, args_parallel=None, command_parallel="par")
    assert [(unit.index, unit.args["zarr_url"]) for unit in planned.units] == [
        *((index, "/a") for index in range(4)),
        (4, "/b"),
    ]
    assert [unit.args["init_args"] for unit in planned.units[:4]] == [*all_args[:2], *all_args[3:5]]


def test_an_empty_parallelization_list_plans_no_unit() -> None:
    assert plan_compute_phase([], args_parallel=None, command_parallel="par").units == []


@pytest.mark.parametrize("task_type", ["parallel", "non_parallel", "compound"])
def test_no_image_is_an_error_that_names_the_filters(task_type: TaskType) -> None:
    with pytest.raises(PlanError, match=r"'is_3D': True.*'well': \['A01'\]"):
        plan(task_type, zarr_urls=[])


@pytest.mark.parametrize("task_type", ["converter_non_parallel", "converter_compound"])
def test_a_converter_needs_no_image(task_type: TaskType) -> None:
    assert plan(task_type, zarr_urls=[]) == plan(task_type)


@pytest.mark.parametrize(
    ("task_type", "changed", "told"),
    [
        ("parallel", {"args_parallel": {"zarr_url": "/x"}}, "args_parallel sets zarr_url,"),
        ("compound", {"args_parallel": {"zarr_url": "/x"}}, "args_parallel sets zarr_url,"),
        ("converter_compound", {"args_parallel": {"init_args": {}}}, "sets init_args,"),
        (
            "non_parallel",
            {"args_non_parallel": {"zarr_urls": [], "zarr_dir": "/x"}},
            "args_non_parallel sets zarr_dir, zarr_urls,",
        ),
        ("compound", {"args_non_parallel": {"zarr_urls": []}}, "sets zarr_urls,"),
        ("converter_non_parallel", {"args_non_parallel": {"zarr_dir": None}}, "sets zarr_dir,"),
        ("parallel", {"command_parallel": None}, "no command_parallel"),
        ("parallel", {"command_parallel": "  "}, "no command_parallel"),
        ("compound", {"command_parallel": None}, "no command_parallel"),
        ("compound", {"command_non_parallel": None}, "no command_non_parallel"),
        ("non_parallel", {"command_non_parallel": "python 'x"}, "No closing quotation"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused_before_it_starts(
    task_type: TaskType, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        plan(task_type, **changed)


@pytest.mark.parametrize(
    ("task_type", "changed"),
    [
        ("parallel", {"args_non_parallel": {"zarr_dir": "/x"}, "command_non_parallel": None}),
        ("non_parallel", {"args_parallel": {"zarr_url": "/x"}, "command_parallel": None}),
        ("converter_non_parallel", {"args_parallel": None, "command_parallel": None}),
    ],
)
def test_arguments_and_command_of_a_phase_a_task_lacks_do_not_matter(
    task_type: TaskType, changed: dict[str, Any]
) -> None:
    assert plan(task_type, **changed) == plan(task_type)


def test_missing_arguments_are_none() -> None:
    assert plan("parallel", args_parallel=None).common_args == {}


def test_a_plan_does_not_change_with_what_it_was_made_from() -> None:
    args, urls = {"level": 2}, ["/zarr/a"]
    planned = plan("non_parallel", args_non_parallel=args, zarr_urls=urls)
    args["level"] = 3
    urls.append("/zarr/b")
    assert planned.common_args == {"level": 2}
    assert planned.units[0].zarr_urls == planned.units[0].args["zarr_urls"] == ["/zarr/a"]


@given(st.lists(st.sampled_from(["/a", "/b", "/c"]), min_size=1, max_size=30))
def test_units_are_named_in_their_order_and_cover_the_images(urls: list[str]) -> None:
    units = plan("parallel", zarr_urls=urls).units
    assert [unit.index for unit in units] == list(range(len(urls)))
    assert [unit.args["zarr_url"] for unit in units] == urls
    unit_names = [unit.name for unit in units]
    assert unit_names == sorted(set(unit_names))


@pytest.mark.parametrize(
    ("succeeded", "expected"),
    [
        ([0, 1, 2, 3], ["/a", "/b", "/c"]),  # also one that no unit is on
        ([0, 1, 2], ["/a"]),  # nobody knows of the others
        ([1, 3], ["/b"]),  # /a has another unit, which failed or never ran
        ([], []),
    ],
)
def test_images_are_processed_if_all_units_on_them_succeeded(
    succeeded: list[int], expected: list[str]
) -> None:
    inputs = [{"zarr_url": url} for url in ("/a", "/b", "/c")]
    on = ["/a", "/a", "/new", "/b"]
    units = [PlannedUnit(index, f"par-{index}", {}, [url]) for index, url in enumerate(on)]
    assert [image["zarr_url"] for image in processed(inputs, units, succeeded)] == expected


def test_other_memory_is_for_units_for_which_nobody_has_chosen_it() -> None:
    own = {"meta_parallel": {"mem": "4G", "time": "5"}, "meta_non_parallel": None}
    chosen = {"task": own, "meta_parallel": {"mem": "5G"}, "meta_non_parallel": {"time": "9"}}
    assert with_memory(chosen, "auto") == {
        **chosen,
        "meta_non_parallel": {"time": "9", "mem": "auto"},
    }
    as_it_is = {"task": own, "meta_parallel": None, "meta_non_parallel": None}
    assert with_memory(as_it_is, "auto") == {
        "task": own,
        "meta_parallel": {"mem": "auto", "time": "5"},
        "meta_non_parallel": {"mem": "auto"},
    }
    assert as_it_is["meta_parallel"] is None
