"""The settings, as administrators see them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from api.auth import login_tokens
from api.services import Services
from fractal_models.settings import (
    DatabaseSettings,
    OAuthSettings,
    PrefectSettings,
    Settings,
    SmtpSettings,
)

PARTS = ("app", "database", "email", "oauth")
SECRET = "the-marker-of-everything-that-is-secret"
SECRETIVE = {
    "database_url": f"postgresql://me:{SECRET}/?#@db.example.org/fractal?password={SECRET}",
    "prefect_api_url": f"https://me:{SECRET}@prefect.example.org/api?key={SECRET}",
    "prefect_ui_url": f"https://{SECRET}@prefect.example.org",
    "prefect_auth_string": f"me:{SECRET}",
    "jwt_secret": SECRET,
    "oauth_client_name": "lab",
    "oauth_client_id": "fractal",
    "oauth_client_secret": SECRET,
    "oauth_oidc_config_endpoint": f"https://me:{SECRET}@login.example.org/config#{SECRET}",
    "contact": f"https://help.example.org/?key={SECRET}",
}
SMTP = {"host": "mail.example.org", "from": "fractal@example.org", "password": SECRET}


@pytest.fixture
async def shown(
    app: FastAPI, settings: Settings, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, Any]]:
    """Each part of the settings, of a server of which everything that is secret is the marker."""
    for name, value in SMTP.items():
        monkeypatch.setenv(f"FRACTAL_SMTP_{name.upper()}", value)
    secretive = Settings.model_validate({**settings.model_dump(), **SECRETIVE})
    services: Services = app.state.services
    app.state.services = replace(services, settings=secretive)
    token = await login_tokens(secretive).write_token(admin.user)
    headers = {"Authorization": f"Bearer {token}"}
    yield {part: await admin.ok("GET", f"/api/settings/{part}/", headers=headers) for part in PARTS}
    app.state.services = services


def test_no_secret_is_shown(shown: dict[str, Any]) -> None:
    assert SECRET not in str(shown)
    assert shown["database"] == {"FRACTAL_DATABASE_URL": "postgresql://db.example.org/fractal"}
    assert shown["oauth"]["FRACTAL_OAUTH_CLIENT_SECRET"] == "**********"
    assert shown["app"]["FRACTAL_PREFECT_API_URL"] == "https://prefect.example.org/api"


def test_every_setting_is_shown_once(shown: dict[str, Any]) -> None:
    names = [name for part in PARTS for name in shown[part]]

    assert len(names) == len(set(names))
    assert set(names) == {
        f"FRACTAL_{name.upper()}" for kind in (Settings, SmtpSettings) for name in kind.model_fields
    }


def test_what_is_called_secret_is_one_for_pydantic_too() -> None:
    """So that none is shown that is added later."""
    kinds = (DatabaseSettings, OAuthSettings, PrefectSettings, Settings, SmtpSettings)
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
    secrets = {name for name in fields if name.endswith(("secret", "password", "auth_string"))}

    assert len(secrets) >= 4
    assert all(SecretStr.__name__ in str(fields[name].annotation) for name in secrets)


async def test_without_a_mail_server_there_is_nothing_to_show_of_it(
    admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRACTAL_SMTP_HOST", raising=False)

    assert await admin.ok("GET", "/api/settings/email/") == {}


@pytest.mark.parametrize("part", PARTS)
async def test_settings_are_for_administrators(part: str, owner: Any, anonymous: Any) -> None:
    assert (await anonymous.get(f"/api/settings/{part}/")).status_code == 401
    assert (await owner.get(f"/api/settings/{part}/")).status_code == 403
