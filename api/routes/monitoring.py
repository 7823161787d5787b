"""For those who watch an installation: metrics, and whether all its parts are well."""

from secrets import compare_digest
from typing import Annotated

from fastapi import APIRouter, Depends, Response, status
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, SecretStr

from api.auth import active_user
from api.errors import not_logged_in
from api.services import Cookie, ServicesDep, Token
from flows.monitoring.metrics import metrics_text
from flows.monitoring.observation import Observation, observe
from fractal_models.rights import require_superuser

_LONGEST_SILENCE = 60.0  # seconds
_LEAST_FREE = 0.05  # of a file system


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


class Part(BaseModel):
    """A part of the installation; `state` says how it is, for people."""

    name: str
    ok: bool
    state: str


class Health(BaseModel):
    ok: bool
    parts: list[Part]


@router.get("/api/health/")
async def read_health(seen: Observed, response: Response) -> Health:
    """How all parts are; with status 503 if one is not well."""
    parts = [
        Part(name="database", ok=seen.facts is not None, state=_answers(seen.facts is not None)),
        Part(name="prefect", ok=seen.prefect_answers, state=_answers(seen.prefect_answers)),
        *_workers(seen),
        *_folders(seen),
    ]
    health = Health(ok=all(part.ok for part in parts), parts=parts)
    if not health.ok:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health


def _answers(does: bool) -> str:
    return "answers" if does else "does not answer"


def _workers(seen: Observation) -> list[Part]:
    if seen.facts is None:
        return []
    known = {each.resource for each in seen.facts.silences}
    never = [each.resource for each in seen.facts.open_jobs if each.resource not in known]
    return [
        *(
            Part(
                name=f"{each.part} of {each.resource}",
                ok=each.seconds < _LONGEST_SILENCE,
                state=f"did its work {max(0.0, each.seconds):.0f} s ago",
            )
            for each in seen.facts.silences
        ),
        *(Part(name=f"worker of {name}", ok=False, state="has never run") for name in never),
    ]


def _folders(seen: Observation) -> list[Part]:
    return [
        Part(name=folder, ok=False, state="cannot be reached")
        if space is None
        else Part(
            name=folder,
            ok=space.free >= _LEAST_FREE * space.size,
            state=f"{space.free / 2**30:.1f} of {space.size / 2**30:.1f} GiB are free",
        )
        for folder, space in seen.spaces.items()
    ]
