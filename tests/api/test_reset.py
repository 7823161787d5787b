"""Resets of task groups: who may, and what is refused. There is no Prefect here."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fractal_models.tables import TaskGroupV2

NewGroup = Callable[..., Awaitable[TaskGroupV2]]


def url(group: TaskGroupV2, how: str = "pip") -> str:
    return f"/admin/v2/task-group/{group.id}/reset/{how}/"


@pytest.mark.parametrize(
    ("how", "fields", "overrides", "told"),
    [
        ("pip", {"active": True}, {}, "deactivate it first"),
        ("pip", {"origin": "pixi"}, {}, "of origin 'pixi'"),
        ("pip", {"origin": "other"}, {}, "of origin 'other'"),
        ("pixi", {"origin": "pypi"}, {}, "of origin 'pypi'"),
        ("pixi", {"origin": "pixi"}, {}, "has no pixi"),
        ("pip", {}, {"python_version": "3.9"}, "no Python 3.9"),
        ("pip", {}, {"python_version": "2.7"}, "3.9"),
        ("pip", {}, {"pip_extras": "a; rm -rf /"}, "pattern"),
        ("pip", {}, {"pinned_package_versions_pre": '{"a": "1; rm -rf /"}'}, "pattern"),
        ("pip", {}, {"pinned_package_versions_post": '{"a b": "1"}'}, "pattern"),
        ("pip", {}, {"pinned_package_versions_post": {"a": "1"}}, "JSON"),
        ("pip", {}, {"version": "2"}, "Extra inputs"),
        ("pixi", {}, {"use_pixi_lockfile": "maybe"}, "boolean"),
        ("pip", {"archive_path": "/no/a-1-py3-none-any.whl"}, {}, "/no/a-1-py3-none-any.whl"),
    ],
)
async def test_what_is_not_possible_is_refused(
    how: str,
    fields: dict[str, Any],
    overrides: dict[str, Any],
    told: str,
    admin: Any,
    new_group: NewGroup,
) -> None:
    group = await new_group(**{"active": False, **fields})

    answer = await admin.post(url(group, how), json=overrides)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


async def test_without_prefect_a_group_stays_as_it_is(
    admin: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group(active=False, env_info=None)  # never recorded: it is made anew

    answer = await admin.post(url(group), json={"pinned_package_versions_pre": '{"a": "1"}'})

    assert answer.status_code == 503
    await session.refresh(group)
    assert (group.active, group.pinned_package_versions_pre) == (False, {})


async def test_only_administrators_may(owner: Any, new_group: NewGroup) -> None:
    group = await new_group(active=False)
    for how in ("pip", "pixi"):
        assert (await owner.post(url(group, how), json={})).status_code == 403
