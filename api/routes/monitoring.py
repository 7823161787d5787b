"""For those who watch an installation: metrics, and whether all its parts are well."""

from secrets import compare_digest
from typing import Annotated

from fastapi import APIRouter, Depends, Response, status
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr

from api.auth import active_user
from api.errors import not_logged_in
from api.services import Cookie, ServicesDep, Token
from flows.monitoring.health import Health, health_of
from flows.monitoring.metrics import metrics_text
from flows.monitoring.observation import Observation, observe
from fractal_models.rights import require_superuser


async def _observed(services: ServicesDep, token: Token, cookie: Cookie) -> Observation:
    """What there is to see, for who has the token for it, or is an administrator."""
    if not _is_secret(token, services.settings.metrics_token):
        async with services.sessions() as session:
            if (user := await active_user(token or cookie, session, services.settings)) is None:
                raise not_logged_in()
            require_superuser(user)
    return await observe(services.sessions, services.engine, services.folders)


def _is_secret(token: str | None, secret: SecretStr | None) -> bool:
    if token is None or secret is None:
        return False
    return compare_digest(token.encode(), secret.get_secret_value().encode())


Observed = Annotated[Observation, Depends(_observed)]

# Not among the operations for clients: neither has a place in their contract.
router = APIRouter(tags=["Server"], include_in_schema=False)


@router.get("/metrics")
async def read_metrics(seen: Observed, services: ServicesDep) -> Response:
    """The metrics of the installation, and of the requests to this API."""
    return Response(metrics_text(seen, services.times.collector()), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/health/")
async def read_health(seen: Observed, response: Response) -> Health:
    """How all parts are; with status 503 if one is not well."""
    health = health_of(seen)
    if not health.ok:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health
