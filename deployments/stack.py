"""The embedded stack: PostgreSQL, a Prefect server, a worker and the REST API on this machine."""

import asyncio
import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import migrations
from deployments.initialise import Initialised, default_resource, initialise
from deployments.postgres import Databases, embedded_postgres
from deployments.services import (
    Service,
    answers,
    end_leftovers,
    python_module,
    remember,
    usable_port,
    wait_until,
)
from fractal_models.database import open_database

_START_SECONDS = 120.0


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

    `leftovers` names the services of an earlier start that was killed, which were ended first.
    """

    data_dir: Path
    api_url: str
    prefect_url: str
    prefect_auth: str
    initialised: Initialised
    environment: dict[str, str]
    databases: Databases
    services: list[Service]
    leftovers: list[str]

    def check(self) -> None:
        """Raises PostgresError or ServiceError if a part has ended."""
        self.databases.check()
        for service in self.services:
            service.check()


@contextmanager
def running_stack(options: StackOptions) -> Iterator[Stack]:
    """The whole stack, healthy, for the life of a block; then ended in reverse order.

    Raises:
        StackError, ServiceError, PostgresError, InitialisationError: it cannot be started.
    """
    data_dir = options.data_dir.expanduser().absolute()
    with _locked(data_dir):
        leftovers = end_leftovers(data_dir / "services.json")
        port = usable_port(options.host, options.port, "--port")
        prefect_port = usable_port("127.0.0.1", options.prefect_port, "--prefect-port")
        secret = _secrets(data_dir / "secrets.json")
        with embedded_postgres(data_dir / "postgres") as databases:
            resource = options.resource or default_resource(data_dir)
            initialised = asyncio.run(_prepare(databases, options, resource, data_dir))
            prefect_url = f"http://127.0.0.1:{prefect_port}"
            environment = _environment(databases, prefect_url, secret, data_dir)
            services = [
                _prefect_server(prefect_port, databases, environment, secret, data_dir),
                _service("worker", data_dir, environment, "--resource", initialised.resource_name),
                _service("api", data_dir, environment, "--host", options.host, "--port", str(port)),
            ]
            stack = Stack(
                data_dir=data_dir,
                api_url=f"http://{options.host}:{port}",
                prefect_url=prefect_url,
                prefect_auth=secret["prefect_auth"],
                initialised=initialised,
                environment=environment,
                databases=databases,
                services=services,
                leftovers=leftovers,
            )
            try:
                _start(stack)
                yield stack
            finally:
                for service in reversed(services):
                    service.stop()
                (data_dir / "services.json").unlink(missing_ok=True)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """The data directory, made if need be, and used by nobody else."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
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


def _secrets(path: Path) -> dict[str, str]:
    """The secrets of this data directory, made at its first start, readable by the owner only."""
    if not path.exists():
        made = {
            "jwt_secret": secrets.token_urlsafe(32),
            "prefect_auth": f"fractal:{secrets.token_urlsafe(16)}",
        }
        partial = path.with_name(f"{path.name}.partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(made))
        partial.replace(path)
    try:
        found: dict[str, str] = json.loads(path.read_text())
        return {name: found[name] for name in ("jwt_secret", "prefect_auth")}
    except (ValueError, KeyError) as error:
        raise StackError(f"{path} is damaged: delete it, and new secrets are made.") from error


async def _prepare(
    databases: Databases, options: StackOptions, resource: dict[str, Any], data_dir: Path
) -> Initialised:
    await migrations.upgrade(databases.fractal)
    async with open_database(databases.fractal) as sessions, sessions() as session:
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
    databases: Databases, prefect_url: str, secret: dict[str, str], data_dir: Path
) -> dict[str, str]:
    return {
        "FRACTAL_DATABASE_URL": databases.fractal.render_as_string(hide_password=False),
        "FRACTAL_JWT_SECRET": secret["jwt_secret"],
        "FRACTAL_DATA_DIR": str(data_dir),
        "PREFECT_API_URL": f"{prefect_url}/api",
        "PREFECT_API_AUTH_STRING": secret["prefect_auth"],
        "PREFECT_HOME": str(data_dir / "prefect"),
    }


def _prefect_server(
    port: int,
    databases: Databases,
    environment: dict[str, str],
    secret: dict[str, str],
    data_dir: Path,
) -> Service:
    """The Prefect server; as `prefect server start` does it, but without a process in between."""
    database_url = databases.prefect.render_as_string(hide_password=False)
    own = {
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_API_AUTH_STRING": secret["prefect_auth"],
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    command = python_module(
        "uvicorn",
        "--factory",
        "prefect.server.api.server:create_app",
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
    )
    return Service("prefect", command, {**environment, **own}, data_dir / "logs" / "prefect.log")


def _service(name: str, data_dir: Path, environment: dict[str, str], *arguments: str) -> Service:
    command = python_module("deployments.cli", name, *arguments)
    return Service(name, command, environment, data_dir / "logs" / f"{name}.log")


def _start(stack: Stack) -> None:
    """Start all services at once (each waits for what it needs) until all are healthy."""
    for service in stack.services:
        service.start()
        remember(stack.services, stack.data_dir / "services.json")
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
    pool = stack.initialised.resource_name
    response = httpx.post(
        f"{stack.prefect_url}/api/work_pools/{pool}/workers/filter", json={}, auth=auth
    )
    return response.is_success and any(w["status"] == "ONLINE" for w in response.json())
