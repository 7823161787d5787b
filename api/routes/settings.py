"""How the server is configured, without its secrets; by environment variable."""

from typing import Any

from fastapi import APIRouter

from api.dependencies import SettingsDep, Superuser
from fractal_models.settings import (
    OAuthSettings,
    Settings,
    SettingsError,
    SmtpSettings,
    read_settings,
    without_secrets,
)

router = APIRouter(prefix="/api/settings", tags=["Server"])

_DATABASE, _OAUTH = {"database_url"}, OAuthSettings.model_fields.keys()


@router.get("/app/")
async def read_app_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    """What the other three do not tell."""
    return without_secrets(settings, Settings.model_fields.keys() - _DATABASE - _OAUTH)


@router.get("/database/")
async def read_database_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    return without_secrets(settings, _DATABASE)


@router.get("/email/")
async def read_email_settings(_: Superuser) -> dict[str, Any]:
    """The mail server that the API's environment names: nothing, if only `notify` was given it."""
    try:
        return without_secrets(read_settings(SmtpSettings), SmtpSettings.model_fields)
    except SettingsError:
        return {}


@router.get("/oauth/")
async def read_oauth_settings(_: Superuser, settings: SettingsDep) -> dict[str, Any]:
    return without_secrets(settings, _OAUTH)
