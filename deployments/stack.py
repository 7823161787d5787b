"""The embedded stack: PostgreSQL, a Prefect server, a worker and the REST API on this machine."""

import asyncio
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import URL

import migrations
from deployments.fork_server import ForkServer, ForkServerGoneError
from deployments.initialise import Initialised, default_profile, default_resource, initialise
from deployments.jobs_user import NoJobsUserError, jobs_user
from deployments.open_jobs import OpenJob, read_open_jobs
from deployments.postgres import EmbeddedPostgres, embedded_postgres
from deployments.services import (
    Part,
    Service,
    answers,
    end_leftovers,
    python_module,
    remember,
    usable_port,
    wait_for,
    without_secrets,
)
from deployments.supervision import Supervisor
from flows.process.accounts import Account
from fractal_models.database import open_database
from fractal_models.errors import FractalError
from fractal_models.private_files import open_private, private_folder
from fractal_models.settings import API_SECRETS

# A part fails to start if it shows no sign of life for this long, or ends this often, before all
# are healthy.
_QUIET_SECONDS = 120.0
_TRIES = 4
_LOOK_SECONDS = 1.0
# What the services import.
_PRELOAD = ("deployments.preload", "prefect.server.api.server", "api.app", "uvicorn", "uvloop")


class StackError(FractalError):
    """The stack cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class StackOptions:
    """The options of `fractal-prefect up`. Port 0 means a free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    prefect_port: int = 4200
    admin_email: str = "admin@example.org"
    admin_password: str | None = None
    resource: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    api_workers: int = 1


@dataclass(frozen=True)
class Stack:
    """A running stack: its addresses, how to log in, and its parts.

    `leftovers` names services of an earlier, killed start that were ended first. `going_on` are the
    jobs that an earlier start left. `jobs_run_as` says as which OS user jobs run, if this process
    runs as root.
    """

    data_dir: Path
    api_url: str
    prefect_url: str
    prefect_auth: str
    initialised: Initialised
    first_password: str
    environment: dict[str, str]
    postgres: EmbeddedPostgres
    services: list[Service]
    fork_server: ForkServer
    leftovers: list[str]
    going_on: list[OpenJob]
    jobs_run_as: str = ""

    @property
    def parts(self) -> dict[str, Part]:
        """All parts by name, each after the parts that it needs."""
        return {part.name: part for part in (self.postgres, *self.services)}

    def check(self) -> None:
        """Raise ServiceError if a part has ended."""
        for part in self.parts.values():
            part.check()

    def keep_alive(self) -> list[str]:
        """Restart parts that have ended, for whatever reason. Returns lines about what happened."""
        return self.supervisor.look(self.parts.values())

    @cached_property
    def supervisor(self) -> Supervisor:
        """The supervisor that restarts the parts."""
        return Supervisor(lambda part: self.start(part.name))

    def start(self, name: str) -> None:
        """Start a part that has ended."""
        self.parts[name].start()
        self.remember()

    def remember(self) -> None:
        """Save which processes are its own, for a start after this one was killed."""
        remember(self.services, self.data_dir / "services.json", self.fork_server.process)

    def stop_services(self) -> None:
        """End all parts except PostgreSQL, each before the parts that it needs."""
        for service in reversed(self.services):
            service.stop()
        (self.data_dir / "services.json").unlink(missing_ok=True)

    def open_jobs(self) -> list[OpenJob]:
        """The jobs that have not ended, according to PostgreSQL now."""
        return asyncio.run(read_open_jobs(self.postgres.fractal))


@contextmanager
def running_stack(
    options: StackOptions, tell: Callable[[str], object] = lambda _: None
) -> Iterator[Stack]:
    """Run the whole stack during a block, once it is healthy; then end it in reverse order.

    `tell` gets lines about what happens until the stack is healthy.

    Raises:
        StackError, ServiceError, InitialisationError: the stack cannot be started.
    """
    data_dir = options.data_dir.expanduser().absolute()
    with _locked(data_dir):
        leftovers = end_leftovers(data_dir / "services.json")
        port = usable_port(options.host, options.port, "--port")
        prefect_port = usable_port("127.0.0.1", options.prefect_port, "--prefect-port")
        secret = _secrets(data_dir / "secrets.json")
        prefect = _prefect_settings(prefect_port, secret, data_dir)
        with (
            _fork_server(prefect, data_dir) as fork_server,
            embedded_postgres(data_dir / "postgres") as postgres,
        ):
            resource = options.resource or default_resource(data_dir)
            profile, why_root = _profile(options, resource)
            initialised = asyncio.run(
                _prepare(postgres, options, resource, profile, secret, data_dir)
            )
            _give_projects(data_dir / "projects", initialised.jobs_user)
            environment = {**prefect, **_environment(postgres, data_dir)}
            services = [
                _prefect_server(prefect_port, postgres, environment, data_dir),
                _service("worker", data_dir, environment),
                _api(
                    *(data_dir, environment, secret, "--host", options.host),
                    *("--port", str(port), "--workers", str(options.api_workers)),
                ),
            ]
            stack = Stack(
                data_dir=data_dir,
                api_url=f"http://{options.host}:{port}",
                prefect_url=f"http://127.0.0.1:{prefect_port}",
                prefect_auth=secret["prefect_auth"],
                initialised=initialised,
                first_password=secret["admin_password"],
                environment=environment,
                postgres=postgres,
                services=[replace(each, fork_server=fork_server) for each in services],
                fork_server=fork_server,
                leftovers=leftovers,
                going_on=asyncio.run(read_open_jobs(postgres.fractal)),
                jobs_run_as=_told(initialised.jobs_user, why_root),
            )
            try:
                _start(stack, tell)
                yield stack
            finally:
                stack.stop_services()


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Make the data directory if necessary, and lock it against other stacks during the block."""
    try:
        make_data_dir(data_dir)
        for name in ("logs", "prefect"):
            private_folder(data_dir / name)
        lock = open_private(data_dir / "lock", "w")
    except OSError as error:
        reason = "it is a file" if data_dir.is_file() else error.strerror
        raise StackError(
            f"The data directory {data_dir} cannot be used: {reason}. "
            "Choose another with --data-dir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"The data directory {data_dir} is in use by a stack that runs: stop that one, "
                "or choose another directory with --data-dir."
            ) from None
        yield


def make_data_dir(data_dir: Path) -> None:
    """Make a data directory: private, except for root, where PostgreSQL's OS user needs it.

    Raises:
        StackError: somebody else made the directory, in a folder where everybody may do so.
    """
    is_root = os.geteuid() == 0
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, parents=True)
    found = data_dir.stat()
    if found.st_uid == os.geteuid() and is_root:
        data_dir.chmod(0o755)
    elif found.st_uid != os.geteuid() and data_dir.parent.stat().st_mode & 0o002:
        raise StackError(
            f"The data directory {data_dir} is another user's, who could read and change all: "
            "choose another with --data-dir."
        )


def _secrets(path: Path) -> dict[str, str]:
    """The secrets of a data directory: generated at its first start, readable only by the owner."""
    made = {
        "jwt_secret": secrets.token_urlsafe(32),
        "prefect_auth": f"fractal:{secrets.token_urlsafe(16)}",
        "admin_password": secrets.token_urlsafe(12),  # saved before the database has it
    }
    try:
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if not all(isinstance(found.get(name, ""), str) for name in made):
            raise ValueError("not all are texts")
    except (ValueError, AttributeError) as error:
        raise StackError(f"{path} is damaged: delete it, and new secrets are made.") from error
    if missing := made.keys() - found.keys():
        found |= {name: made[name] for name in missing}
        draft = path.with_name(f"{path.name}.partial")
        with open_private(draft, "w") as file:
            json.dump(found, file)
        draft.replace(path)
    return {name: found[name] for name in made}


def _profile(options: StackOptions, resource: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The profile, which makes jobs run as an OS user other than root if possible; else why not."""
    if options.profile is not None or resource.get("type") != "local":
        return options.profile, ""
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


async def _prepare(
    postgres: EmbeddedPostgres,
    options: StackOptions,
    resource: dict[str, Any],
    profile: dict[str, Any] | None,
    secret: dict[str, str],
    data_dir: Path,
) -> Initialised:
    await migrations.upgrade(postgres.fractal)
    async with open_database(postgres.fractal) as sessions, sessions() as session:
        made = await initialise(
            session,
            group_name="All",
            admin_email=options.admin_email,
            admin_password=options.admin_password,
            made_up_password=secret["admin_password"],
            project_dir=data_dir / "projects",
            resource=resource,
            profile=profile,
        )
        await session.commit()
    return made


@contextmanager
def reached_database(data_dir: Path) -> Iterator[URL]:
    """The Fractal database of a data directory. If its server does not run, it runs for this block.

    Raises:
        StackError, PostgresError: there is no installation, or it is just being started or stopped.
    """
    folder = data_dir.expanduser().absolute()
    if not (folder / "postgres").is_dir():
        raise StackError(f"There is no installation in {folder}: choose another with --data-dir.")
    postgres = EmbeddedPostgres(folder / "postgres")
    if postgres.pid is not None:
        postgres.start()  # which takes it over, and leaves it running
        yield postgres.fractal
        return
    with _locked(folder), embedded_postgres(folder / "postgres") as started:
        yield started.fractal


def _prefect_settings(port: int, secret: dict[str, str], data_dir: Path) -> dict[str, str]:
    """The variables from which all services read how to reach Prefect."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": secret["prefect_auth"],
        # Two questions less whenever a client is opened: this server has no such protection, and
        # is of the same version.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_HOME": str(data_dir / "prefect"),
    }


def _environment(postgres: EmbeddedPostgres, data_dir: Path) -> dict[str, str]:
    """The environment of the worker; the REST API needs more, the Prefect server less."""
    return {
        "FRACTAL_DATABASE_URL": postgres.fractal.render_as_string(hide_password=False),
        "FRACTAL_DATA_DIR": str(data_dir),
    }


@contextmanager
def _fork_server(prefect: dict[str, str], data_dir: Path) -> Iterator[ForkServer]:
    """The process from which the services are forked; it imports while PostgreSQL starts."""
    with open_private(data_dir / "logs" / "fork_server.log", "ab") as log:
        server = ForkServer.start(_PRELOAD, {**without_secrets(), **prefect}, log)
    try:
        yield server
    finally:
        server.close()


def _prefect_server(
    port: int, postgres: EmbeddedPostgres, environment: dict[str, str], data_dir: Path
) -> Service:
    """The Prefect server, as `prefect server start` runs it, but without a process in between."""
    database_url = postgres.prefect.render_as_string(hide_password=False)
    own = {
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
        # The defaults are 5 and 10 s. A busy machine exceeds them, and then the server ends.
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    command = python_module(
        "uvicorn",
        "--factory",
        "prefect.server.api.server:create_app",
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
    )
    of_prefect = {k: v for k, v in environment.items() if k.startswith("PREFECT_")}
    return Service("prefect", command, {**of_prefect, **own}, data_dir / "logs" / "prefect.log")


def _api(
    data_dir: Path, environment: dict[str, str], secret: dict[str, str], *arguments: str
) -> Service:
    given = {name: os.environ[name] for name in API_SECRETS if name in os.environ}
    own = {**environment, **given, "FRACTAL_JWT_SECRET": secret["jwt_secret"]}
    return _service("api", data_dir, own, *arguments)


def _service(name: str, data_dir: Path, environment: dict[str, str], *arguments: str) -> Service:
    command = python_module("deployments.cli", name, *arguments)
    return Service(name, command, environment, data_dir / "logs" / f"{name}.log")


def _start(stack: Stack, tell: Callable[[str], object]) -> None:
    """Start all services at once, and wait until all are healthy. Each waits for what it needs."""
    stack.remember()  # before there are services, of which each is saved only when it is there
    _await_imports(stack.fork_server)
    for service in stack.services:
        stack.start(service.name)
    user, password = stack.prefect_auth.split(":", 1)
    auth = (user, password)
    healthy: dict[str, Callable[[], bool]] = {
        "prefect": lambda: answers(f"{stack.prefect_url}/api/health", auth),
        "api": lambda: answers(f"{stack.api_url}/api/alive/"),
        "worker": lambda: _worker_is_online(stack, auth),
    }
    for name, is_healthy in healthy.items():
        wait_for(
            stack.parts[name],
            partial(_is_healthy_at_last, stack, is_healthy, tell),
            _QUIET_SECONDS,
            tell,
        )


def _await_imports(server: ForkServer) -> None:
    """Wait until services can be forked: while asking for that, nobody could interrupt us."""
    with suppress(ForkServerGoneError):  # then they are started
        while not server.is_ready(seconds=_LOOK_SECONDS):
            continue


def _is_healthy_at_last(
    stack: Stack, is_healthy: Callable[[], bool], tell: Callable[[str], object]
) -> bool:
    """Whether a service is healthy now. Services that have ended are started again.

    Raises:
        ServiceError: a part has ended too often.
    """
    for line in stack.keep_alive():
        tell(line)
    for name, part in stack.parts.items():
        if stack.supervisor.ends_in_a_row(name) >= _TRIES:
            part.check()
    return is_healthy()


def _worker_is_online(stack: Stack, auth: tuple[str, str]) -> bool:
    """Whether the worker has sent a heartbeat since it was started.

    Prefect still considers a worker of an earlier start, with the same name, online for a while.
    """
    pool = quote(stack.initialised.work_pool or "")
    url = f"{stack.prefect_url}/api/work_pools/{pool}/workers/filter"
    try:
        response = httpx.post(url, json={}, auth=auth)
    except httpx.TransportError:
        return False
    (started,) = (service.started for service in stack.services if service.name == "worker")
    return response.is_success and any(
        datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() >= started
        for worker in response.json()
    )
