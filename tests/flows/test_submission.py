"""Where a job and what its tasks keep are, on the machine where its units run."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.submission import cache_folder, job_folder_there
from fractal_models.errors import JobRefusedError
from fractal_models.tables import JobV2, Profile, Resource, UserOAuth

NAME = "proj_7_job_000001_20260101_000000"
EXPORTS = {"user_local_exports": {"MODELS": "models"}}


def place_of_job(kind: str, project_dirs: list[str], config: dict[str, Any]) -> str:
    user = UserOAuth(email="me@example.org", hashed_password="", project_dirs=project_dirs)
    job = JobV2(
        id=1,
        project_id=7,
        start_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        user_email=user.email,
        cache_dir=cache_folder(user),
    )
    resource = Resource(type=kind, name="there", jobs_local_dir="/jobs", jobs_runner_config=config)
    return job_folder_there(resource, Profile(jobs_remote_dir="/home/me/jobs"), job)


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("local", f"/jobs/{NAME}"),
        ("slurm_sudo", f"/data/me/fractal/.fractal_cache/{NAME}"),
        ("slurm_ssh", f"/home/me/jobs/{NAME}"),
    ],
)
def test_a_job_has_a_folder_where_its_units_run(kind: str, folder: str) -> None:
    assert place_of_job(kind, ["s3://bucket/me", "/data/me", "/data/more"], EXPORTS) == folder


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        ("slurm_sudo", {}, "keep their files"),
        ("slurm_ssh", EXPORTS, "keep their user_local_exports"),
    ],
)
def test_a_job_without_a_folder_that_it_needs_is_refused(
    kind: str, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(JobRefusedError, match=f"'there' {told}: ask an administrator"):
        place_of_job(kind, ["s3://bucket/me"], config)


@pytest.mark.parametrize(("kind", "config"), [("local", EXPORTS), ("slurm_ssh", {})])
def test_a_job_that_needs_no_such_folder_is_not_refused(kind: str, config: dict[str, Any]) -> None:
    assert place_of_job(kind, [], config).endswith(NAME)
