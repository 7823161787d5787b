"""The embedded stack: PostgreSQL, a Prefect server, a worker and the REST API on this machine."""

import asyncio
import fcntl
import json
import os
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

import migrations
from deployments.initialise import Initialised, default_resource, initialise
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
    wait_until,
)
from fractal_models.database import open_database
from fractal_models.private_files import open_private, private_folder
from fractal_models.settings import API_SECRETS

_START_SECONDS = 120.0
# A part that dies so often in so short a time is not started again.
_DEATHS, _DEATHS_SECONDS = 3, 60.0


class StackError(Exception):
    """The stack cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class StackOptions:
    """What `fractal-prefect up` can be told. Port 0 takes a free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    prefect_port: int = 4200
    admin_email: str = "admin@example.org"
    admin_password: str | None = None
    resource: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None


@dataclass(frozen=True)
class Stack:
    """A running stack: where it is, how to get in, and what it consists of.

    `leftovers` names the services of an earlier start that was killed, which were ended first;
    `going_on` are the jobs that an earlier start left.
    """

    data_dir: Path
    api_url: str
    prefect_url: str
    prefect_auth: str
    initialised: Initialised
    environment: dict[str, str]
    postgres: EmbeddedPostgres
    services: list[Service]
    leftovers: list[str]
    going_on: list[OpenJob]
    _deaths: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_DEATHS)), repr=False
    )

    @property
    def parts(self) -> dict[str, Part]:
        """All parts by name, each after those that it needs."""
        return {part.name: part for part in (self.postgres, *self.services)}

    def check(self) -> None:
        """Raises ServiceError if a part has ended."""
        for part in self.parts.values():
            part.check()

    def keep_alive(self) -> list[str]:
        """Start the parts again that have ended, for whatever reason; a line on each.

        Raises:
            ServiceError: a part dies again and again, or PostgreSQL cannot be started.
        """
        return [
            self._revive(part, how)
            for part in self.parts.values()
            if (how := part.ended()) is not None
        ]

    def start(self, name: str) -> None:
        """Start a part that has ended."""
        self.parts[name].start()
        remember(self.services, self.data_dir / "services.json")

    def stop_services(self) -> None:
        """End all parts but PostgreSQL, each before those that it needs."""
        for service in reversed(self.services):
            service.stop()
        (self.data_dir / "services.json").unlink(missing_ok=True)

    def open_jobs(self) -> list[OpenJob]:
        """The jobs that have not ended, as PostgreSQL has them now."""
        return asyncio.run(read_open_jobs(self.postgres.fractal))

    def _revive(self, part: Part, how: str) -> str:
        deaths = self._deaths[part.name]
        deaths.append(time.monotonic())
        if len(deaths) == _DEATHS and deaths[-1] - deaths[0] < _DEATHS_SECONDS:
            part.check()
        self.start(part.name)
        moment = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        return f"{moment} {part.name} ended {how} and was started again. Its log: {part.log}"


@contextmanager
def running_stack(options: StackOptions) -> Iterator[Stack]:
    """The whole stack, healthy, for the life of a block; then ended in reverse order.

    Raises:
        StackError, ServiceError, InitialisationError: it cannot be started.
    """
    data_dir = options.data_dir.expanduser().absolute()
    with _locked(data_dir):
        leftovers = end_leftovers(data_dir / "services.json")
        port = usable_port(options.host, options.port, "--port")
        prefect_port = usable_port("127.0.0.1", options.prefect_port, "--prefect-port")
        secret = _secrets(data_dir / "secrets.json")
        with embedded_postgres(data_dir / "postgres") as postgres:
            resource = options.resource or default_resource(data_dir)
            initialised = asyncio.run(_prepare(postgres, options, resource, data_dir))
            prefect_url = f"http://127.0.0.1:{prefect_port}"
            environment = _environment(postgres, prefect_url, secret, data_dir)
            services = [
                _prefect_server(prefect_port, postgres, environment, data_dir),
                _service("worker", data_dir, environment, "--resource", initialised.resource_name),
                _api(data_dir, environment, secret, "--host", options.host, "--port", str(port)),
            ]
            stack = Stack(
                data_dir=data_dir,
                api_url=f"http://{options.host}:{port}",
                prefect_url=prefect_url,
                prefect_auth=secret["prefect_auth"],
                initialised=initialised,
                environment=environment,
                postgres=postgres,
                services=services,
                leftovers=leftovers,
                going_on=asyncio.run(read_open_jobs(postgres.fractal)),
            )
            try:
                _start(stack)
                yield stack
            finally:
                stack.stop_services()


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """The data directory, made if need be, and used by nobody else."""
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
    """Make a data directory: private, but that root's has parts of other OS users, as PostgreSQL.

    Raises:
        StackError: it is in a folder where anybody may make it, and somebody else did.
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
    """The secrets of this data directory, made at its first start, readable by the owner only."""
    if not path.exists():
        made = {
            "jwt_secret": secrets.token_urlsafe(32),
            "prefect_auth": f"fractal:{secrets.token_urlsafe(16)}",
        }
        partial = path.with_name(f"{path.name}.partial")
        with open_private(partial, "w") as file:
            json.dump(made, file)
        partial.replace(path)
    try:
        found: dict[str, str] = json.loads(path.read_text())
        return {name: found[name] for name in ("jwt_secret", "prefect_auth")}
    except (ValueError, KeyError) as error:
        raise StackError(f"{path} is damaged: delete it, and new secrets are made.") from error


async def _prepare(
    postgres: EmbeddedPostgres, options: StackOptions, resource: dict[str, Any], data_dir: Path
) -> Initialised:
    await migrations.upgrade(postgres.fractal)
    async with open_database(postgres.fractal) as sessions, sessions() as session:
        return await initialise(
            session,
            group_name="All",
            admin_email=options.admin_email,
            admin_password=options.admin_password,
            project_dir=data_dir / "projects",
            resource=resource,
            profile=options.profile,
        )


def _environment(
    postgres: EmbeddedPostgres, prefect_url: str, secret: dict[str, str], data_dir: Path
) -> dict[str, str]:
    """What the worker needs; the REST API needs more, the Prefect server less."""
    return {
        "FRACTAL_DATABASE_URL": postgres.fractal.render_as_string(hide_password=False),
        "FRACTAL_DATA_DIR": str(data_dir),
        "PREFECT_API_URL": f"{prefect_url}/api",
        "PREFECT_API_AUTH_STRING": secret["prefect_auth"],
        "PREFECT_HOME": str(data_dir / "prefect"),
    }


def _prefect_server(
    port: int, postgres: EmbeddedPostgres, environment: dict[str, str], data_dir: Path
) -> Service:
    """The Prefect server; as `prefect server start` does it, but without a process in between."""
    database_url = postgres.prefect.render_as_string(hide_password=False)
    own = {
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
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


def _start(stack: Stack) -> None:
    """Start all services at once (each waits for what it needs) until all are healthy."""
    for service in stack.services:
        stack.start(service.name)
    user, password = stack.prefect_auth.split(":", 1)
    auth = (user, password)
    wait_until(
        lambda: (
            answers(f"{stack.prefect_url}/api/health", auth)
            and answers(f"{stack.api_url}/api/alive/")
            and _worker_is_online(stack, auth)
        ),
        stack.services,
        _START_SECONDS,
    )


def _worker_is_online(stack: Stack, auth: tuple[str, str]) -> bool:
    """Whether the worker has given a sign of life since it was started.

    Prefect takes a worker of an earlier start, of the same name, for online a while longer.
    """
    pool = stack.initialised.resource_name
    response = httpx.post(
        f"{stack.prefect_url}/api/work_pools/{pool}/workers/filter", json={}, auth=auth
    )
    (started,) = (service.started for service in stack.services if service.name == "worker")
    return response.is_success and any(
        datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() >= started
        for worker in response.json()
    )
