"""The server: is it there, which is it, and how is it configured?"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from api.services import SettingsDep, Superuser
from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.settings import (
    OAuthSettings,
    Settings,
    SmtpSettings,
    read_settings,
    without_secrets,
)
from fractal_models.variables import SettingsError

router = APIRouter(prefix="/api", tags=["Server"])

_DATABASE, _OAUTH = {"database_url"}, OAuthSettings.model_fields.keys()


class Alive(BaseModel):
    """`version` is that of the REST contract, which clients compare with their own."""

    alive: bool = True
    version: str = CONTRACT_VERSION
    fractal_prefect_version: str


@router.get("/alive/")
async def alive() -> Alive:
    """Answers as soon as requests are served."""
    return Alive(fractal_prefect_version=_own_version())


@cache
def _own_version() -> str:
    try:
        return version("fractal-prefect")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


@router.get("/settings/app/")
async def read_app_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    """What the other three do not tell."""
    return without_secrets(settings, Settings.model_fields.keys() - _DATABASE - _OAUTH)


@router.get("/settings/database/")
async def read_database_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    return without_secrets(settings, _DATABASE)


@router.get("/settings/email/")
async def read_email_settings(_: Superuser) -> dict[str, Any]:
    """The mail server that the API's environment names: nothing, if only `notify` was given it."""
    try:
        return without_secrets(read_settings(SmtpSettings), SmtpSettings.model_fields)
    except SettingsError:
        return {}


@router.get("/settings/oauth/")
async def read_oauth_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    return without_secrets(settings, _OAUTH)
