"""The REST application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api import routing
from api.errors import REFUSALS, add_error_handlers
from api.gone_clients import GoneClients
from api.measured_requests import MeasuredRequests
from api.oauth_provider import OAuthProvider
from api.request_body import RequestBodies
from api.routes import ROUTERS
from api.services import Services
from flows.engine.client import open_engine
from flows.monitoring.folders import Folders
from flows.monitoring.request_times import RequestTimes
from flows.watchers.unattended import UnattendedJobs
from flows.watchers.watcher import Outages
from fractal_models.database import open_database
from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.settings import Settings

_CONNECTIONS, _FEWEST_CONNECTIONS = 15, 8  # of all processes; of each


def create_app(settings: Settings) -> FastAPI:
    """The application. It connects to the database and to Prefect at its start, not before.

    Raises:
        SettingsError: there is no secret to sign login tokens with.
    """
    settings.require_jwt_secret()
    times = RequestTimes()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_database(
                settings.async_database_url, _limits(settings), connections=_connections(settings)
            ) as sessions,
            open_engine(settings) as engine,
        ):
            app.state.services = Services(
                settings, sessions, engine, OAuthProvider(settings), times, Folders()
            )
            looking = asyncio.create_task(UnattendedJobs(sessions, engine).watch(Outages()))
            try:
                yield
            finally:
                looking.cancel()

    app = FastAPI(
        title="Fractal on Prefect",
        version=CONTRACT_VERSION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        responses=REFUSALS,
    )
    app.add_middleware(RequestBodies, settings=settings)
    app.add_middleware(GoneClients)
    app.add_middleware(MeasuredRequests, times=times)
    add_error_handlers(app)
    routing.include(app, ROUTERS)
    return app


def _limits(settings: Settings) -> dict[str, str]:
    """How long PostgreSQL lets a statement take, and a transaction wait for the next one."""
    longest = f"{settings.statement_seconds}s"
    return {"statement_timeout": longest, "idle_in_transaction_session_timeout": longest}


def _connections(settings: Settings) -> int:
    """The connections of one of the processes: PostgreSQL has few, which are shared."""
    return max(_FEWEST_CONNECTIONS, _CONNECTIONS // settings.api_workers)


def _operation_id(route: APIRoute) -> str:
    """The name of the endpoint's function, which no two share."""
    return route.name
