"""The commands `fractal-prefect db`."""

import asyncio
import os
from typing import Annotated

import typer

app = typer.Typer(help="The Fractal database.", no_args_is_help=True)

OnlyCheck = Annotated[
    bool, typer.Option("--check", help="Say what would be done and what stands in the way.")
]


@app.command()
def upgrade() -> None:
    """Bring the database to the newest schema."""
    import migrations
    from fractal_models.settings import DatabaseSettings, read_settings

    url = read_settings(DatabaseSettings).async_database_url
    asyncio.run(migrations.require_known(url))
    asyncio.run(migrations.upgrade(url))
    typer.echo("The database is up to date.")


@app.command()
def adopt(check: OnlyCheck = False) -> None:
    """Take over the database of a fractal-server, with all that is in it. Stop that first."""
    from deployments.moving import move
    from fractal_models.settings import DatabaseSettings, PrefectSettings, read_settings

    url = read_settings(DatabaseSettings).async_database_url
    asyncio.run(move.adopt(url, typer.echo, only_check=check))
    if check:
        return
    if not {"PREFECT_API_URL", "FRACTAL_PREFECT_API_URL"} & os.environ.keys():
        typer.echo("PREFECT_API_URL is not set: workers make the work pools when they start.")
        return
    asyncio.run(move.publish_resources(url, read_settings(PrefectSettings), typer.echo))


@app.command(name="return")
def return_(check: OnlyCheck = False) -> None:
    """Give the database back to the fractal-server that it was taken from. Stop all parts first."""
    from deployments.moving import move
    from fractal_models.settings import DatabaseSettings, read_settings

    url = read_settings(DatabaseSettings).async_database_url
    asyncio.run(move.give_back(url, typer.echo, only_check=check))
