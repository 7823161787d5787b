"""Commands that keep an installation small, and keep it at all: `tidy`, `backup`, `restore`."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fractal_models.settings import SettingsError, default_data_dir

_DATA_DIR = default_data_dir()
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
        bool, typer.Option("--delete-task-groups", help="Also those that nothing uses.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of `fractal-prefect up`; default: what the settings name."),
    ] = None,
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
    data_dir: Annotated[
        Path, typer.Option(help="Folder of `fractal-prefect up`, which may run.")
    ] = _DATA_DIR,
    job_folders: Annotated[bool, typer.Option(help="Also what is in the folders of jobs.")] = False,
) -> None:
    """Write databases, secrets and task environments of an `up` into a file."""
    from deployments.backup import back_up

    back_up(data_dir, file, typer.echo, job_folders=job_folders)
    typer.echo(f"{file} is a backup of {data_dir}: {file.stat().st_size / 1e6:,.0f} MB.")


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What `backup` has written.")]) -> None:
    """Make the folder of an `up` anew, where it was; nothing may be there."""
    from deployments.backup import restore as restore_from

    data_dir = restore_from(file, typer.echo)
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
