"""What tables compute from their columns."""

from typing import Any

import pytest

from fractal_models.tables import Resource, TaskGroupV2


def task_group(**fields: Any) -> TaskGroupV2:
    return TaskGroupV2(
        **{"user_id": 1, "resource_id": 1, "origin": "pypi", "pkg_name": "pkg"} | fields
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"version": "1.2"}, "pkg==1.2"),
        ({"version": "1.2", "pip_extras": "a,b"}, "pkg[a,b]==1.2"),
        ({"archive_path": "/x/pkg-1.2.whl"}, "/x/pkg-1.2.whl"),
        ({"archive_path": "/x/pkg-1.2.whl", "version": "1.2"}, "/x/pkg-1.2.whl"),
        ({"archive_path": "/x/pkg-1.2.whl", "pip_extras": "a"}, "/x/pkg-1.2.whl[a]"),
    ],
)
def test_what_pip_is_asked_to_install(fields: dict[str, Any], expected: str) -> None:
    assert task_group(**fields).pip_install_string == expected


def test_a_group_without_archive_and_version_cannot_be_installed() -> None:
    with pytest.raises(ValueError, match="pkg has neither an archive nor a version"):
        _ = task_group().pip_install_string


@pytest.mark.parametrize("when", ["pre", "post"])
@pytest.mark.parametrize(
    ("pins", "expected"), [({}, ""), ({"a": "1"}, "a==1"), ({"a": "1", "b": "2"}, "a==1 b==2")]
)
def test_pinned_versions_as_pip_takes_them(when: str, pins: dict[str, str], expected: str) -> None:
    name = f"pinned_package_versions_{when}"
    assert getattr(task_group(**{name: pins}), f"{name}_string") == expected


@pytest.mark.parametrize(
    "name",
    [
        "pip_install_string",
        "pinned_package_versions_pre_string",
        "pinned_package_versions_post_string",
    ],
)
def test_pip_installs_no_pixi_group(name: str) -> None:
    group = task_group(origin="pixi", version="1", archive_path="/x/pkg.tar.gz")
    with pytest.raises(ValueError, match="pixi"):
        getattr(group, name)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "--no-cache-dir"),
        ({"pip_cache_dir": None}, "--no-cache-dir"),
        ({"pip_cache_dir": "/cache"}, "--cache-dir /cache"),
    ],
)
def test_the_cache_that_pip_uses(config: dict[str, Any], expected: str) -> None:
    resource = Resource(type="local", name="here", tasks_python_config=config)
    assert resource.pip_cache_dir_arg == expected
