from typing import Any

import pytest

from fractal_models.schemas.meta import Retry, retry_of, warm_units_of


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, Retry(max=0, delay_seconds=0, mem_factor=None)),
        ({"retry": {"max": 2}, "cpus_per_task": 4}, Retry(max=2)),
        ({"retry": {"max": 2, "mem_factor": 2}}, Retry(max=2, mem_factor=2.0)),
    ],
)
def test_a_meta_says_how_often_units_run_again(meta: dict[str, Any], expected: Retry) -> None:
    assert retry_of(meta) == expected


@pytest.mark.parametrize(
    ("retry", "told"),
    [
        ({"mem_factor": 0.5}, "retry.mem_factor: Input should be greater than or equal to 1"),
        ({"mem_factor": 17}, "retry.mem_factor: Input should be less than or equal to 16"),
        ({"mem_factor": float("nan")}, "retry.mem_factor: Input should be"),
        ({"max": -1, "times": 2}, "retry.max: .*; retry.times: Extra inputs are not permitted"),
        ([], "retry: Input should be"),
    ],
)
def test_a_wrong_retry_is_refused_by_its_fields(retry: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        retry_of({"retry": retry})


def test_a_meta_says_whether_units_may_be_warm() -> None:
    assert warm_units_of({"cpus_per_task": 4}) == "auto"
    assert warm_units_of({"warm_units": "off"}) == "off"
    for wrong in ("Off", False, None, []):
        with pytest.raises(ValueError, match=r'warm_units is .*: write "auto" or "off"'):
            warm_units_of({"warm_units": wrong})
