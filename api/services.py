"""What endpoints work with: a session, the settings, Prefect, and the user who asks."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import BEARER, COOKIE, UserManager, active_user
from api.errors import not_logged_in
from api.gone_clients import reads_only
from api.oauth_provider import OAuthProvider
from flows.activities.begin import Lifecycle
from flows.engine.client import Engine
from flows.monitoring.folders import Folders
from flows.monitoring.request_times import RequestTimes
from fractal_models.database import allow_seconds, one_moment
from fractal_models.errors import NotFoundError
from fractal_models.rights import (
    require_no_guest,
    require_profile,
    require_superuser,
    require_verified,
)
from fractal_models.settings import Settings
from fractal_models.tables import UserOAuth

# Fractal's clients give up after 5 s. What a request can do without Prefect waits less for it: a
# worker makes up for it later.
_SECONDS_FOR_PREFECT, _SECONDS_IF_SPARED = 3.0, 1.2
_PATIENCE = 10  # how many times longer a statement on a whole image list may take


@dataclass(frozen=True, slots=True)
class Services:
    """What the application opened at its start."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    engine: Engine
    oauth: OAuthProvider
    times: RequestTimes
    folders: Folders
    # At most so many jobs ask for their flow run at once: Prefect, one process, answers others too.
    handing_over: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


async def _settings(services: ServicesDep) -> Settings:
    return services.settings


async def _engine(services: ServicesDep) -> Engine:
    return services.engine.within(_SECONDS_FOR_PREFECT)


async def _spared_engine(services: ServicesDep) -> Engine:
    return services.engine.within(_SECONDS_IF_SPARED)


async def _session(request: Request, services: ServicesDep) -> AsyncIterator[AsyncSession]:
    async with services.sessions() as session:
        if reads_only(request.scope):  # without transaction: that is two round trips less
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


async def _oauth_provider(client_name: str, services: ServicesDep) -> OAuthProvider:
    if client_name != services.oauth.name:
        raise NotFoundError("Login by", client_name)
    return services.oauth


SettingsDep = Annotated[Settings, Depends(_settings)]
EngineDep = Annotated[Engine, Depends(_engine)]
SparedEngineDep = Annotated[Engine, Depends(_spared_engine)]
# Closed before the answer is sent: a slow download holds no connection.
SessionDep = Annotated[AsyncSession, Depends(_session, scope="function")]
OAuthProviderDep = Annotated[OAuthProvider, Depends(_oauth_provider)]


async def _patient_session(session: SessionDep, settings: SettingsDep) -> AsyncSession:
    await allow_seconds(session, _PATIENCE * settings.statement_seconds)
    return session


async def _snapshot(session: SessionDep, settings: SettingsDep) -> AsyncSession:
    await one_moment(session)
    return await _patient_session(session, settings)


# Their statements may take longer: they write a whole image list, or read it as it is at a moment.
PatientSessionDep = Annotated[AsyncSession, Depends(_patient_session)]
SnapshotDep = Annotated[AsyncSession, Depends(_snapshot)]


# --- users -------------------------------------------------------------------------------------


async def _user_manager(session: SessionDep, settings: SettingsDep) -> UserManager:
    return UserManager(session, settings)


UserManagerDep = Annotated[UserManager, Depends(_user_manager)]
Token = Annotated[str | None, Depends(BEARER)]
Cookie = Annotated[str | None, Depends(COOKIE)]


async def _current_user(
    token: Token, cookie: Cookie, session: SessionDep, settings: SettingsDep
) -> UserOAuth:
    user = await active_user(token or cookie, session, settings)
    if user is None:
        raise not_logged_in()
    return user


CurrentUser = Annotated[UserOAuth, Depends(_current_user)]


async def _superuser(user: CurrentUser) -> UserOAuth:
    require_superuser(user)
    return user


async def _verified_user(user: CurrentUser) -> UserOAuth:
    """Below `/api/v2/`, users are verified and have a profile."""
    require_verified(user)
    require_profile(user)
    return user


Superuser = Annotated[UserOAuth, Depends(_superuser)]
VerifiedUser = Annotated[UserOAuth, Depends(_verified_user)]


async def _contributor(user: VerifiedUser) -> UserOAuth:
    require_no_guest(user)
    return user


Contributor = Annotated[UserOAuth, Depends(_contributor)]


async def _lifecycle(session: SessionDep, engine: EngineDep, user: CurrentUser) -> Lifecycle:
    return Lifecycle(session, engine, user)


LifecycleDep = Annotated[Lifecycle, Depends(_lifecycle)]
