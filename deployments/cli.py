"""The command line `fractal-prefect`."""

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from deployments import administration_commands, database_commands, job_commands, upkeep_commands
from deployments.prefect_settings import OF_WORKERS
from deployments.secrecy import keep_secrets
from fractal_models.errors import FractalError
from fractal_models.passwords import require_password
from fractal_models.variables import API_SECRETS, SettingsError, default_data_dir

if TYPE_CHECKING:
    from deployments.stack import Stack
    from fractal_models.settings import PrefectSettings, Settings

# Each command imports what it needs itself: importing Prefect takes seconds, and Prefect reads its
# settings from the environment when it is imported.

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(database_commands.app, name="db")
app.add_typer(administration_commands.app)
app.add_typer(upkeep_commands.app)
app.add_typer(job_commands.app)

JsonFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A JSON file.")]
_DATA_DIR = default_data_dir()
AdminEmail = Annotated[str, typer.Option(help="Email of the first administrator.")]
# Not the password itself as an option: everybody on the machine can read the arguments of programs.
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        allow_dash=True,
        help="File with the password of the first administrator, - for standard input; or set "
        "FRACTAL_ADMIN_PASSWORD. Default: a random one.",
    ),
]


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Tell the version, and end.")] = False,
) -> None:
    """Fractal, with Prefect as its engine."""
    if version:
        typer.echo(metadata.version("fractal-prefect"))
        raise typer.Exit


def main() -> None:
    """Run the command line. An error that a user can mend is shown without a traceback."""
    try:
        app()
    except FractalError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Folder of everything.")] = _DATA_DIR,
    host: Annotated[str, typer.Option(help="Address of the REST API.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the REST API; 0 takes a free one.")] = 8000,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect; 0 takes a free one.")] = 4200,
    admin_email: AdminEmail = "admin@example.org",
    admin_password_file: PasswordFile = None,
    resource: JsonFile = None,
    profile: JsonFile = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that serve the REST API.")
    ] = max(1, min((os.cpu_count() or 1) // 2, 4)),  # Prefect, workers and units need some, too
    logs: Annotated[bool, typer.Option(help="Show what the services log.")] = False,
) -> None:
    """Start everything on this machine, until Ctrl-C: database, Prefect, a worker, the REST API."""
    from deployments.stack import StackOptions, running_stack

    options = StackOptions(
        data_dir=data_dir,
        host=host,
        port=port,
        prefect_port=prefect_port,
        admin_email=admin_email,
        admin_password=_admin_password(admin_password_file),
        resource=_read_json(resource),
        profile=_read_json(profile),
        api_workers=workers,
    )
    keep_secrets()
    _end_as_by_ctrl_c()
    typer.echo(f"Starting in {data_dir.expanduser().absolute()} ...")
    began = time.monotonic()
    try:
        with running_stack(options, partial(_tell_since, began)) as stack:
            typer.echo(f"Ready after {time.monotonic() - began:.1f} s.\n\n{describe(stack)}\n")
            try:
                _watch(stack, logs)
            finally:
                typer.echo("\nStopping ...")
                stack.services.stop()
                _tell_left_jobs(stack)
    except KeyboardInterrupt:
        typer.echo("Stopped.")


def _tell_since(began: float, line: str) -> None:
    typer.echo(f"{time.monotonic() - began:5.1f} s  {line}")


def describe(stack: "Stack") -> str:
    """Where a stack runs and how to log in. A password is shown only if it was generated."""
    made = stack.initialised
    facts = [
        ("REST API", f"{stack.api_url}   (documentation: {stack.api_url}/docs)"),
        ("Prefect UI", f"{stack.prefect_url}   (log in with: {stack.prefect_auth})"),
        ("Admin", made.admin_email),
        ("Password", _first_password(stack)),
        ("Jobs run as", stack.prepared.jobs_run_as),
        ("Data", str(stack.data_dir)),
        ("Logs", f"{stack.data_dir / 'logs'}   (--logs shows them here)"),
        ("Kept", made.kept and f"{', '.join(made.kept)}: there before, with other values"),
        ("Ended", stack.leftovers and f"{', '.join(stack.leftovers)}: left by a start before"),
    ]
    lines = [f"{name + ':':<12}{fact}" for name, fact in facts if fact]
    lines += [f"Going on: {job}" for job in stack.prepared.going_on]
    return "\n".join([*lines, "", "Ctrl-C stops everything."])


def _first_password(stack: "Stack") -> str | None:
    """The generated password of the admin, or where it is kept; None once it was changed."""
    made, kept = stack.initialised, f"in {stack.data_dir / 'secrets.json'}"
    if not made.has_first_password:
        return None
    return f"{stack.first_password}   (kept {kept})" if made.admin_is_new else kept


def _watch(stack: "Stack", logs: bool) -> None:
    """Keep the stack alive."""
    while True:
        if logs:
            for service in stack.services:
                for line in service.new_lines():
                    typer.echo(line)
        for line in stack.keep_alive():
            typer.echo(line)
        time.sleep(0.5)


def _tell_left_jobs(stack: "Stack") -> None:
    if stack.postgres.ended() is not None:
        return
    for job in stack.open_jobs():
        units = "; its units go on running now" if job.has_running_units() else ""
        typer.echo(f"Left: {job} goes on at the next start{units}.")


@app.command()
def demo(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of everything; default: one for temporary files.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path(
        "demo-output/contact_sheet.png"
    ),
    wells: Annotated[int, typer.Option(min=1, max=24, help="Wells of the plate.")] = 4,
    keep: Annotated[bool, typer.Option(help="Keep everything running at the end.")] = False,
) -> None:
    """Project, segment and measure a plate of real images, on a stack of its own."""
    from deployments.demo.run import run_demo

    _end_as_by_ctrl_c()
    folder = data_dir or Path(tempfile.gettempdir(), f"fractal-prefect-demo-{os.getuid()}")
    run_demo(folder, output, wells, keep)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Default: FRACTAL_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: FRACTAL_PORT.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes; default: FRACTAL_API_WORKERS.")
    ] = None,
) -> None:
    """Serve the REST API."""
    from deployments import http_server
    from deployments.services import usable_port

    settings = _settings()
    settings.require_jwt_secret()
    keep_secrets()
    host = host or settings.host
    port = usable_port(host, settings.port if port is None else port, "--port")
    workers = workers or settings.api_workers
    settings = settings.model_copy(update={"host": host, "port": port, "api_workers": workers})
    asyncio.run(_require_database(settings))
    http_server.serve(settings)


@app.command()
def worker(
    resource: Annotated[
        str | None, typer.Option(help="Name of the resource to run jobs on; default: all.")
    ] = None,
    work_pool: Annotated[
        str | None, typer.Option(help="Its work pool, which stays when it is renamed.")
    ] = None,
    leash: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the jobs of a resource; or of all, also of those made later, in a process for each."""
    if leash:
        _end_with_standard_input()
    keep_secrets(unneeded=API_SECRETS)
    settings = _settings()
    asyncio.run(_require_database(settings))
    if resource is None and work_pool is None:
        from deployments.workers import serve_all

        _run_until_signalled(serve_all(settings.async_database_url, typer.echo))
        return
    from deployments.maintenance import find_resource, find_resource_of
    from deployments.worker import serve

    by_pool = partial(find_resource_of, work_pool=work_pool or "")
    by_name = partial(find_resource, name=resource or "")
    _run_until_signalled(serve(settings, by_pool if resource is None else by_name))


@app.command()
def pause(
    resource: Annotated[str, typer.Option(help="Name of the resource.")],
    wait: Annotated[bool, typer.Option(help="Return when no process executes a job.")] = True,
) -> None:
    """Have the jobs of a resource pause after the workflow task they run, and let none begin."""
    from deployments.maintenance import pause_resource

    settings = _settings()
    asyncio.run(_require_database(settings))
    _run_until_signalled(pause_resource(settings, resource, typer.echo, wait=wait))


@app.command(name="continue")
def continue_(resource: Annotated[str, typer.Option(help="Name of the resource.")]) -> None:
    """Let the jobs of a resource go on that were paused with it, and others begin."""
    from deployments.maintenance import continue_resource

    settings = _settings()
    asyncio.run(_require_database(settings))
    asyncio.run(continue_resource(settings, resource, typer.echo))


@app.command()
def notify(
    email: Annotated[
        list[str] | None, typer.Option(help="Send mail to this address; may be given repeatedly.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Post JSON to this URL.")] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(help="Of what to tell; may be given repeatedly. Default: fractal.job.failed."),
    ] = None,
    resource: Annotated[str | None, typer.Option(help="Only of jobs on this resource.")] = None,
    project: Annotated[int | None, typer.Option(help="Only of the project with this id.")] = None,
    user: Annotated[str | None, typer.Option(help="Only of this user's jobs: an email.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Default: fractal-email, fractal-webhook.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what is set up.")] = False,
    remove: Annotated[str | None, typer.Option(help="Remove the one of this name.")] = None,
) -> None:
    """Have Prefect tell people of jobs that fail, by mail or a webhook; the same name updates.

    The SMTP server is read from FRACTAL_SMTP_HOST, _PORT, _SECURITY, _USER, _PASSWORD and _FROM.
    """
    from fractal_models.settings import PrefectSettings, read_settings

    settings = read_settings(PrefectSettings)
    _tell_prefect(settings)
    from deployments import notifications

    if [bool(email), bool(webhook), list_, bool(remove)].count(True) != 1:
        raise SettingsError("Give one of --email, --webhook, --list and --remove.")
    if list_:
        typer.echo("\n".join(asyncio.run(notifications.read_all(settings))) or "None.")
    elif remove:
        asyncio.run(notifications.remove(settings, remove))
        typer.echo(f"{remove} was removed.")
    else:
        subject = notifications.Subject(event or ["fractal.job.failed"], resource, project, user)
        block = notifications.block_for(email or [], webhook)
        name = name or ("fractal-email" if email else "fractal-webhook")
        made = asyncio.run(notifications.set_up(settings, name, subject, block))
        how = "updated" if made.updated else "made"
        typer.echo(f"{made.name} was {how}: it tells of {subject}.\nSee it in {made.url}")


@app.command()
def init(
    admin_email: AdminEmail,
    admin_password_file: PasswordFile = None,
    resource: JsonFile = None,
    profile: JsonFile = None,
) -> None:
    """Make the first administrator, the default group, and a resource with its profile."""
    import migrations
    from deployments.initialise import initialise
    from fractal_models.database import open_database
    from fractal_models.settings import DatabaseSettings, read_settings

    settings = read_settings(DatabaseSettings)
    admin_password = _admin_password(admin_password_file)
    made_up = secrets.token_urlsafe(12)

    async def run() -> None:
        await migrations.require_newest(settings.async_database_url)
        async with (
            open_database(settings.async_database_url) as sessions,
            sessions() as session,
        ):
            made = await initialise(
                session,
                group_name=settings.default_group,
                admin_email=admin_email,
                admin_password=admin_password,
                made_up_password=made_up,
                project_dir=settings.data_dir.expanduser().absolute() / "projects",
                resource=_read_json(resource),
                profile=_read_json(profile),
            )
            typer.echo(f"Administrator: {made.admin_email}")
            if made.has_first_password:  # told before it counts
                typer.echo(f"Password:      {made_up}   (shown only now: keep it)")
                sys.stdout.flush()
            await session.commit()
        if made.kept:
            typer.echo(f"Kept:          {', '.join(made.kept)}: there before, with other values")

    asyncio.run(run())


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="Default: standard output.")] = None,
) -> None:
    """Write the OpenAPI document of the REST API."""
    from api.app import create_app
    from fractal_models.settings import Settings

    placeholders = Settings(
        database_url="postgresql://localhost/none",
        prefect_api_url="http://127.0.0.1/api",
        jwt_secret="not-a-secret-only-a-document",
    )
    text = json.dumps(create_app(placeholders).openapi(), indent=2)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise SettingsError(f"{output} cannot be written: {error.strerror}") from error


def _settings() -> "Settings":
    """The settings; also sets the environment variables from which Prefect reads its own."""
    from fractal_models.settings import get_settings

    settings = get_settings()
    _tell_prefect(settings)
    for name, value in OF_WORKERS.items():
        os.environ.setdefault(name, value)
    return settings


def _tell_prefect(settings: "PrefectSettings") -> None:
    """Set the environment variables from which Prefect reads its settings."""
    os.environ["PREFECT_API_URL"] = settings.prefect_api_url
    if settings.prefect_auth_string is not None:
        os.environ["PREFECT_API_AUTH_STRING"] = settings.prefect_auth_string.get_secret_value()


async def _require_database(settings: "Settings") -> None:
    """Wait for the database, which may be restarting, and check that it has the newest schema."""
    import migrations

    await migrations.wait_for_database(settings.async_database_url, typer.echo)
    await migrations.require_newest(settings.async_database_url)


def _read_json(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is not a JSON object.")
    return content


def _admin_password(file: Path | None) -> str | None:
    """The first administrator's password, from a file or a variable; None if not given."""
    given = os.environ.pop("FRACTAL_ADMIN_PASSWORD", None)  # hidden from child processes
    if file is not None:
        try:
            given = _first_line(sys.stdin if str(file) == "-" else file.open())
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"{file} cannot be read: {error}") from error
    if not given and file is None:
        return None
    return require_password(given or "")


def _first_line(file: TextIO) -> str:
    return file.readline().rstrip("\n")


def _end_as_by_ctrl_c() -> None:
    """Make SIGTERM and a closed terminal act like Ctrl-C, so that child processes end too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _end_with_standard_input() -> None:
    """End like a crash when the process that started this one has died: it will start another."""

    def follow() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def _run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, or until SIGTERM or Ctrl-C cancels it."""

    async def run() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            typer.echo("Stopped.")

    asyncio.run(run())


if __name__ == "__main__":
    main()
