"""As which OS user jobs of a stack run that is root's."""

import os
import stat
from pathlib import Path

import pytest

from deployments.initialise import default_resource
from deployments.jobs_user import NAME, NoJobsUserError, jobs_user
from deployments.preparation import _give_projects, _profile
from flows.process.accounts import Account
from tests.os_user import PYTHON


def test_it_is_made_and_can_run_the_python_of_tasks(os_user: Account) -> None:
    found = jobs_user(PYTHON)

    assert found is not None
    assert (found.name, found.uid != 0) == (NAME, True)


def test_a_python_that_it_cannot_run_is_told(os_user: Account, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    with pytest.raises(NoJobsUserError, match=rf"'{NAME}' cannot run {tmp_path}/python"):
        jobs_user(str(tmp_path / "python"))


def test_the_first_profile_of_roots_stack_names_it(os_user: Account, tmp_path: Path) -> None:
    resource = default_resource(tmp_path)
    resource["tasks_python_config"]["versions"] = dict.fromkeys(
        resource["tasks_python_config"]["versions"], PYTHON
    )
    given = {"name": "mine", "resource_type": "local"}

    profile, _ = _profile(None, resource)
    kept, _ = _profile(given, resource)

    assert profile is not None
    assert profile["username"] == NAME
    assert kept == given


def test_images_are_its_own_and_private(os_user: Account, tmp_path: Path) -> None:
    _give_projects(tmp_path / "projects", os_user.name)

    found = (tmp_path / "projects").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os_user.uid, 0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root has one")
def test_a_stack_that_is_not_roots_has_none() -> None:
    assert jobs_user(PYTHON) is None
