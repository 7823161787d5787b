"""What an embedded stack needs before jobs can run: tables, first data, and an OS user for jobs."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

import migrations
from deployments.initialise import default_profile, default_resource, initialise
from deployments.jobs_user import NoJobsUserError, jobs_user
from deployments.open_jobs import read_open_jobs
from deployments.prepared import Initialised, Prepared
from deployments.secrecy import keep_secrets
from flows.process.accounts import Account
from fractal_models.database import open_database
from fractal_models.errors import FractalError
from fractal_models.private_files import private_folder


def main() -> None:
    """Prepare what standard input asks for; write what is there into a file, or what is wrong."""
    keep_secrets()
    asked, answer = json.load(sys.stdin), Path(sys.argv[1])
    database, data_dir = make_url(asked.pop("database")), Path(asked.pop("data_dir"))
    try:
        prepared = prepare(database, data_dir, **asked)
    except FractalError as error:
        answer.with_suffix(".error").write_text(str(error))
        sys.exit(1)
    answer.write_text(prepared.write())


def prepare(
    database: URL,
    data_dir: Path,
    *,
    admin_email: str,
    admin_password: str | None,
    made_up_password: str,
    resource: dict[str, Any] | None,
    profile: dict[str, Any] | None,
) -> Prepared:
    """Bring the tables up to date, and make what is not there yet: see `initialise`.

    Raises:
        InitialisationError: the resource or the profile is invalid.
    """
    resource = resource or default_resource(data_dir)
    profile, why_root = _profile(profile, resource)

    async def prepared() -> tuple[Initialised, list[str]]:
        await migrations.upgrade(database)
        async with open_database(database) as sessions, sessions() as session:
            made = await initialise(
                session,
                group_name="All",
                admin_email=admin_email,
                admin_password=admin_password,
                made_up_password=made_up_password,
                project_dir=data_dir / "projects",
                resource=resource,
                profile=profile,
            )
            await session.commit()
        return made, list(map(str, await read_open_jobs(database)))

    initialised, going_on = asyncio.run(prepared())
    _give_projects(data_dir / "projects", initialised.jobs_user)
    return Prepared(initialised, going_on, _told(initialised.jobs_user, why_root))


def _profile(
    given: dict[str, Any] | None, resource: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The profile, which makes jobs run as an OS user other than root if possible; else why not."""
    if given is not None or resource.get("type") != "local":
        return given, ""
    try:
        python = resource["tasks_python_config"]
        account = jobs_user(str(python["versions"][python["default_version"]]))
    except NoJobsUserError as error:
        return None, str(error)
    except (KeyError, TypeError):  # the resource is not valid, which will be told
        return None, ""
    return default_profile("local", account.name if account else None), ""


def _give_projects(folder: Path, username: str | None) -> None:
    """Let the OS user of jobs write images to the projects folder, shared with the server."""
    if username is not None and not folder.exists():
        private_folder(folder)
        Account.named(username).give(folder)


def _told(username: str | None, why_root: str) -> str:
    if username is not None or os.geteuid() != 0:
        return username or ""
    return f"root, as {why_root}" if why_root else "root, as their profile names no OS user"


if __name__ == "__main__":
    main()
