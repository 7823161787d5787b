"""Which version of a package is installed, asked of the package index."""

import sys

import pytest

from flows.activities import packages
from flows.activities.package_tasks import PackageError
from flows.activities.packages import version_on_index

pytestmark = pytest.mark.pypi


@pytest.mark.parametrize("by", ["uv", "pip"])
@pytest.mark.parametrize(
    ("wanted", "version"),
    [("1.1.1", "1.1.1"), ("v2.0.0", "2.0.0"), ("2.0.0.0", "2.0.0"), ("1.1", "1.1.1")],
)
async def test_a_version_is_found_as_the_index_writes_it(
    wanted: str, version: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "pip":
        monkeypatch.setattr(packages, "find_uv", lambda: None)

    assert await version_on_index("iniconfig", wanted, None, "3.11") == version


@pytest.mark.parametrize(
    ("wanted", "told"), [("77", "==77"), ("1.1.99", "==1.1.99"), ("newest", "not a version")]
)
async def test_an_unknown_version_is_refused(wanted: str, told: str) -> None:
    with pytest.raises(PackageError, match=told):
        await version_on_index("iniconfig", wanted, sys.executable, "3.11")
