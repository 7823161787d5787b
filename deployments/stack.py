"""The embedded stack: PostgreSQL, a Prefect server, a worker and the REST API on this machine."""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request

from deployments.data_dir import DataDirError, locked, read_secrets
from deployments.fork_server import ForkServer, ForkServerGoneError
from deployments.postgres import EmbeddedPostgres, embedded_postgres
from deployments.prefect_settings import LOG_FORMAT, OF_WORKERS
from deployments.prepared import Initialised, Prepared
from deployments.services import (
    Part,
    Service,
    Services,
    answer,
    answers,
    end_leftovers,
    python_module,
    usable_port,
    wait_for,
    without_secrets,
)
from deployments.supervision import Supervisor
from fractal_models.errors import FractalError
from fractal_models.private_files import open_private
from fractal_models.variables import API_SECRETS

if TYPE_CHECKING:
    from deployments.open_jobs import OpenJob

# A part fails to start if it shows no sign of life for this long, or ends this often, before all
# are healthy.
_QUIET_SECONDS = 120.0
_TRIES = 4
_LOOK_SECONDS = 1.0
# What the Prefect server imports, and what the other services import beside that. All are forked
# from one process when it has imported all. The tables of Prefect are made meanwhile.
_OF_PREFECT = ("deployments.preload_prefect",)
_OF_FRACTAL = ("deployments.preload", "deployments.preparation", "api.app")
_SERVICES_FILE = "services.json"
_BLOCK_TYPES = "prefect/block-types-registered"
_TITLES = {"prefect": "Prefect", "worker": "The worker", "api": "The REST API"}


class PreparationError(FractalError):
    """The database, or what it is to have, cannot be prepared; the message says why."""


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

    `leftovers` names services of an earlier, killed start that were ended first.
    """

    data_dir: Path
    api_url: str
    prefect_url: str
    prefect_auth: str
    first_password: str
    environment: dict[str, str]
    postgres: EmbeddedPostgres
    services: Services
    leftovers: list[str]
    prepared: Prepared

    @property
    def initialised(self) -> Initialised:
        """Who and what exists."""
        return self.prepared.initialised

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
        if name == self.postgres.name:
            self.postgres.start()
        else:
            self.services.start(name)

    def open_jobs(self) -> "list[OpenJob]":
        """The jobs that have not ended, according to PostgreSQL now."""
        from deployments.open_jobs import read_open_jobs

        return asyncio.run(read_open_jobs(self.postgres.fractal))


@contextmanager
def running_stack(
    options: StackOptions, tell: Callable[[str], object] = lambda _: None
) -> Iterator[Stack]:
    """Run the whole stack during a block, once it is healthy; then end it in reverse order.

    `tell` gets lines about what happens until the stack is healthy.

    Raises:
        DataDirError, ServiceError, PreparationError: the stack cannot be started.
    """
    data_dir = options.data_dir.expanduser().absolute()
    with locked(data_dir):
        leftovers = end_leftovers(data_dir / _SERVICES_FILE)
        port = usable_port(options.host, options.port, "--port")
        prefect_port = usable_port("127.0.0.1", options.prefect_port, "--prefect-port")
        secret = read_secrets(data_dir / "secrets.json")
        prefect = _prefect_settings(prefect_port, secret, data_dir)
        with (
            _fork_server(prefect, data_dir) as fork_server,
            _running_postgres(data_dir, tell) as postgres,
        ):
            environment = {**prefect, **_environment(postgres, data_dir)}
            prefect_server = _prefect_server(prefect_port, postgres, environment, data_dir)
            worker = _service("worker", data_dir, environment)
            api = _api(
                *(data_dir, environment, secret, "--host", options.host),
                *("--port", str(port), "--workers", str(options.api_workers)),
            )
            services = [
                replace(each, fork_server=fork_server) for each in (prefect_server, worker, api)
            ]
            running = Services(services, data_dir / _SERVICES_FILE)
            tables = _instead_of(services[0], "prefect tables", "deployments.prefect_tables")
            block_types = _instead_of(
                services[0], "block types", "deployments.block_types", str(data_dir / _BLOCK_TYPES)
            )
            try:
                running.remember()  # of a service, only after it has been forked
                _await_imports(fork_server)
                tables.start()
                with suppress(ForkServerGoneError):  # then all are started
                    fork_server.learn(_OF_FRACTAL)
                with _preparation(postgres, options, secret, data_dir, fork_server) as answer:
                    if tables.wait() != 0:
                        tables.check()
                    running.start("prefect")  # which has all in memory that was imported before
                    prepared = answer()
                tell("The databases are up to date.")
                stack = Stack(
                    data_dir=data_dir,
                    api_url=f"http://{options.host}:{port}",
                    prefect_url=f"http://127.0.0.1:{prefect_port}",
                    prefect_auth=secret["prefect_auth"],
                    first_password=secret["admin_password"],
                    environment=environment,
                    postgres=postgres,
                    services=running,
                    leftovers=leftovers,
                    prepared=prepared,
                )
                _start(stack, tell)
                block_types.start()
                yield stack
            finally:
                tables.kill()
                block_types.kill()
                running.stop()


@contextmanager
def _running_postgres(data_dir: Path, tell: Callable[[str], object]) -> Iterator[EmbeddedPostgres]:
    with embedded_postgres(data_dir / "postgres") as postgres:
        tell("PostgreSQL runs.")
        yield postgres


@contextmanager
def _preparation(
    postgres: EmbeddedPostgres,
    options: StackOptions,
    secret: dict[str, str],
    data_dir: Path,
    fork_server: ForkServer,
) -> Iterator[Callable[[], Prepared]]:
    """Have a process make what the services find, of which this one keeps no memory.

    Gives a function that waits for it and tells what is there.

    Raises:
        PreparationError, ServiceError: it cannot be made.
    """
    _await_imports(fork_server)
    asked = {
        "database": postgres.address("fractal"),
        "data_dir": str(data_dir),
        "admin_email": options.admin_email,
        "admin_password": options.admin_password,
        "made_up_password": secret["admin_password"],
        "resource": options.resource,
        "profile": options.profile,
    }
    with tempfile.TemporaryDirectory(dir=data_dir) as folder:
        answer = Path(folder, "prepared.json")
        service = Service(
            "preparation",
            python_module("deployments.preparation", str(answer)),
            {},
            data_dir / "logs" / "preparation.log",
            leash=True,
            fork_server=fork_server,
        )
        try:
            service.start()
            service.tell(json.dumps(asked))
            yield partial(_answer, service, answer)
        finally:
            service.kill()


def _answer(service: Service, answer: Path) -> Prepared:
    service.wait()
    if (error := answer.with_suffix(".error")).exists():
        raise PreparationError(error.read_text())
    if not answer.exists():
        service.check()
    return Prepared.read(answer.read_text())


@contextmanager
def reached_postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    """The server of a data directory. If it does not run, it runs for this block.

    Raises:
        DataDirError, PostgresError: there is no installation, or it is being started or stopped.
    """
    if not (folder / "postgres").is_dir():
        raise DataDirError(f"There is no installation in {folder}: choose another with --data-dir.")
    postgres = EmbeddedPostgres(folder / "postgres")
    if postgres.pid is not None:
        postgres.start()  # which takes it over, and leaves it running
        yield postgres
        return
    with locked(folder), embedded_postgres(folder / "postgres") as started:
        yield started


def _prefect_settings(port: int, secret: dict[str, str], data_dir: Path) -> dict[str, str]:
    """The variables from which all services read how to reach Prefect, and workers how to work."""
    of_workers = {name: os.environ.get(name, value) for name, value in OF_WORKERS.items()}
    return of_workers | {
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
        "FRACTAL_DATABASE_URL": postgres.address("fractal"),
        "FRACTAL_DATA_DIR": str(data_dir),
    }


@contextmanager
def _fork_server(prefect: dict[str, str], data_dir: Path) -> Iterator[ForkServer]:
    """A process from which services are forked; it imports while we go on."""
    environment = {**without_secrets(), **LOG_FORMAT, **prefect}
    with open_private(data_dir / "logs" / "fork_server.log", "ab") as log:
        server = ForkServer.start(_OF_PREFECT, environment, log)
    try:
        yield server
    finally:
        server.kill()


def _prefect_server(
    port: int, postgres: EmbeddedPostgres, environment: dict[str, str], data_dir: Path
) -> Service:
    """The Prefect server, as `prefect server start` runs it, but without a process in between."""
    own = {
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres.address("prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
        # The defaults are 5 and 10 s. A busy machine exceeds them, and then the server ends.
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Others do this instead: see `_instead_of`.
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        # Otherwise it imports all that has block types, just to see whether they have changed.
        "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
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


def _instead_of(server: Service, name: str, module: str, *arguments: str) -> Service:
    """A process that does for Prefect's server what that would do before it answers."""
    command = python_module(module, *arguments)
    assert server.log is not None
    log = server.log.with_name(f"{name.replace(' ', '_')}.log")
    return replace(server, name=name, command=command, log=log)


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
    """Start all services, and wait until all are healthy. Each waits itself for what it needs."""
    for service in stack.services:
        if service.process is None:
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
        tell(f"{_TITLES[name]} is ready.")


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
    asked = Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    if (told := answer(asked, auth)) is None:
        return False
    (started,) = (service.started for service in stack.services if service.name == "worker")
    return any(
        datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() >= started
        for worker in json.loads(told)
    )
