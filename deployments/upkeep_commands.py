"""Commands that keep an installation small, and keep it at all: `tidy`, `backup`, `restore`."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from deployments.administration_commands import DataDir
from fractal_models.variables import SettingsError

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

app = typer.Typer()


@app.command()
def tidy(
    older_than: Annotated[
        str, typer.Option(help="How long ago it must have ended: 90d, or 12h, 30m, 8w.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    delete_task_groups: Annotated[
        bool,
        typer.Option("--delete-task-groups", help="Delete task groups that nothing uses, too."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Remove what jobs have left that ended long ago: in Prefect, in folders, in logs.

    Data and the rows of jobs, history and accounting stay, and all that an open job needs.
    """
    from deployments.installation import reached_installation

    age = _duration(older_than)
    with reached_installation(data_dir) as installation:
        from deployments.tidying.tidy import Request
        from deployments.tidying.tidy import tidy as tidy_up

        request = Request(
            installation, older_than=age, dry_run=dry_run, delete_task_groups=delete_task_groups
        )
        asyncio.run(tidy_up(request, typer.echo))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; it has secrets.")],
    data_dir: DataDir = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of your settings, as /etc/fractal-prefect."
        ),
    ] = None,
    job_folders: Annotated[
        bool, typer.Option("--job-folders", help="Also what is in the folders of jobs.")
    ] = False,
) -> None:
    """Write databases, secrets or settings, and task environments into a file; all may run."""
    from deployments.backups.backup import back_up
    from deployments.installation import reached_installation

    with reached_installation(data_dir) as installation:
        back_up(installation, file, typer.echo, settings=settings, job_folders=job_folders)
        typer.echo(f"{file} is a backup: {file.stat().st_size / 1e6:,.0f} MB.")


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What `backup` has written.")]) -> None:
    """Make the folder of an `up` anew, where it was; or fill the databases of the settings."""
    from deployments.backups.backup import read_about, restore_into, restore_up
    from deployments.installation import installation_of_settings

    about = read_about(file)
    if about.data_dir is None:
        restore_into(file, about, installation_of_settings(), typer.echo)
        typer.echo("Start all parts, and their jobs go on.")
    else:
        data_dir = restore_up(file, about, typer.echo)
        typer.echo(f"Start it, and its jobs go on: fractal-prefect up --data-dir {data_dir}")


def _duration(text: str) -> timedelta:
    """How long that is.

    Raises:
        SettingsError: it is not a number with a unit.
    """
    if (found := re.fullmatch(r"(\d{1,6})([mhdw])", text)) is None or not int(found[1]):
        raise SettingsError(
            f"--older-than {text} is not understood: give a number with m, h, d or w, as 90d."
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
