"""Commands with which administrators look after an installation through its database alone."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

from fractal_models.variables import SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlmodel.ext.asyncio.session import AsyncSession

    from fractal_models.schemas.usage import UsageBy
    from fractal_models.settings import DatabaseSettings

Content = TypeVar("Content")

app = typer.Typer()
users = typer.Typer(help="Users.", no_args_is_help=True)
app.add_typer(users, name="user")

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of `fractal-prefect up`; default: FRACTAL_DATABASE_URL, if set."),
]
TasksFile = Annotated[
    Path | None, typer.Option(help='A JSON file: [["package", "version", "task"], ...]')
]


@app.command()
def recent(
    minutes: Annotated[int, typer.Option(help="How long ago what is shown may have ended.")] = 20,
    data_dir: DataDir = None,
) -> None:
    """Show the jobs and activities of task groups that go on, or have ended lately."""
    from deployments.recent import recent_activities, recent_jobs, report

    async def read(session: "AsyncSession") -> None:
        jobs = await recent_jobs(session, minutes)
        typer.echo(report(jobs, await recent_activities(session, minutes), minutes))

    with_session(data_dir, read)


@app.command()
def submissions_enable(data_dir: DataDir = None) -> None:
    """Let all resources take new jobs again."""
    _set_submissions(data_dir, prevented=False)


@app.command()
def submissions_disable(data_dir: DataDir = None) -> None:
    """Let no resource take new jobs (prevent_new_submissions)."""
    _set_submissions(data_dir, prevented=True)


@app.command()
def sync_core_tasks(
    resources_and_groups: Annotated[
        Path,
        typer.Option(
            help='Where core tasks may be, a JSON file: [{"resource_id": 1, "user_group_id": 1}]'
        ),
    ],
    base: TasksFile = None,
    add: TasksFile = None,
    remove: TasksFile = None,
    data_dir: DataDir = None,
) -> None:
    """Make just those tasks core that --base or --add names, and --remove does not."""
    from fractal_models.core_tasks import NamedTask, Place, count_core_tasks, replace_core_tasks

    places = _read(resources_and_groups, list[Place])
    in_base, added, removed = (
        set() if file is None else _read(file, set[NamedTask]) for file in (base, add, remove)
    )

    async def sync(session: "AsyncSession") -> None:
        typer.echo(f"Core tasks before: {await count_core_tasks(session)}")
        await replace_core_tasks(session, (in_base | added) - removed, places)
        await session.commit()
        typer.echo(f"Core tasks now:    {await count_core_tasks(session)}")

    with_session(data_dir, sync)


@app.command()
def usage(
    by: Annotated[
        list[str], typer.Option(help="Sum up by user, group, project, resource, month.")
    ] = ["user"],  # noqa: B006  # Typer copies it
    since: Annotated[
        datetime | None, typer.Option(help="Only what began then or later, in UTC.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only what began before, in UTC.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the CPU, GPU and GB hours that were reserved for units, and used."""
    from flows.records.allocations import usage as read_usage
    from flows.reports.usage import usage_csv, usage_table

    chosen = _chosen_by(by)

    async def read(session: "AsyncSession") -> None:
        rows = await read_usage(session, chosen, _utc(since), _utc(until))
        shown = usage_csv if csv else usage_table
        typer.echo(shown(rows, chosen).rstrip("\n"))

    with_session(data_dir, read)


def _chosen_by(names: list[str]) -> "list[UsageBy]":
    from pydantic import TypeAdapter, ValidationError

    from fractal_models.schemas.usage import UsageBy

    try:
        return TypeAdapter(list[UsageBy]).validate_python(list(dict.fromkeys(names)))
    except ValidationError:
        known = ", ".join(get_args(UsageBy))
        raise SettingsError(f"--by is one of {known}: not {', '.join(names)}.") from None


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


@users.command()
def set_password(
    email: Annotated[str, typer.Argument(help="Whose.")], data_dir: DataDir = None
) -> None:
    """Set a user's password: asks for it, or reads the first line of standard input."""
    from deployments.passwords import set_password_of

    if sys.stdin.isatty():
        password = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    with _database(data_dir) as settings:
        asyncio.run(set_password_of(settings, email, password))
    typer.echo(f"{email} has a new password.")


def _set_submissions(data_dir: Path | None, *, prevented: bool) -> None:
    from sqlmodel import col, update

    from fractal_models.tables import Resource

    async def change(session: "AsyncSession") -> None:
        every = update(Resource).values(prevent_new_submissions=prevented)
        names = sorted(await session.scalars(every.returning(col(Resource.name))))
        await session.commit()
        takes = "takes no" if prevented else "takes"
        typer.echo("\n".join(f"Resource {name!r} {takes} new jobs." for name in names) or "None.")

    with_session(data_dir, change)


def with_session(data_dir: Path | None, work: "Callable[[AsyncSession], Awaitable[None]]") -> None:
    """Work on the database, if it has the newest schema."""
    import migrations
    from fractal_models.database import open_database

    async def run(url: "URL") -> None:
        await migrations.require_newest(url)
        async with open_database(url) as sessions, sessions() as session:
            await work(session)

    with _database(data_dir) as settings:
        asyncio.run(run(settings.async_database_url))


@contextmanager
def _database(data_dir: Path | None) -> "Iterator[DatabaseSettings]":
    """How to reach the database of an installation, which runs at least for this block."""
    from fractal_models.settings import DatabaseSettings, read_settings

    if data_dir is None and "FRACTAL_DATABASE_URL" in os.environ:
        yield read_settings(DatabaseSettings)
        return
    from deployments.data_dir import chosen_data_dir
    from deployments.stack import reached_postgres

    with reached_postgres(chosen_data_dir(data_dir)) as postgres:
        url = postgres.fractal.render_as_string(hide_password=False)
        yield DatabaseSettings(database_url=url)


def _read(file: Path, kind: type[Content]) -> Content:
    """What a JSON file has."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{file} is wrong{place and f' in {place}'}: {first['msg']}") from error
