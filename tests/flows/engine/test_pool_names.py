"""The work pool that a resource is."""

import pytest

from flows.engine.pool_names import pool_name


@pytest.mark.parametrize(
    ("resource", "taken", "pool"),
    [
        ("lab", {"other"}, "lab"),
        ("lab", {"lab"}, "lab-2"),
        ("lab", {"lab", "lab-2"}, "lab-3"),
        ("R&D / <new> 50%", set(), "R-D - -new- 50-"),
        ("a/b", {"a-b"}, "a-b-2"),
        ("Prefect", set(), "fractal-Prefect"),
    ],
)
def test_a_work_pool_has_the_name_of_its_resource_as_far_as_prefect_takes_it(
    resource: str, taken: set[str], pool: str
) -> None:
    assert pool_name(resource, taken) == pool
