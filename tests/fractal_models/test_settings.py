"""Settings: what is read from the environment, and what is said when it is missing or wrong."""

import pytest

from fractal_models.settings import (
    DatabaseSettings,
    PrefectSettings,
    Settings,
    SmtpSettings,
    get_settings,
    read_settings,
)
from fractal_models.variables import SettingsError

GOOD = {
    "FRACTAL_DATABASE_URL": "postgresql://fractal@localhost/fractal",
    "PREFECT_API_URL": "http://127.0.0.1:4200/api",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a good installation and no others."""
    for kind in (Settings, SmtpSettings):
        for name in kind.model_fields:
            monkeypatch.delenv(f"FRACTAL_{name.upper()}", raising=False)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    return monkeypatch


def test_a_database_and_a_prefect_are_all_that_a_worker_needs() -> None:
    settings = read_settings(Settings)
    assert settings.prefect_api_url == "http://127.0.0.1:4200/api"
    assert settings.jwt_secret is None
    assert settings.prefect_auth_string is None


def test_a_database_is_all_that_its_upgrade_needs(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("PREFECT_API_URL")
    settings = read_settings(DatabaseSettings)
    assert settings.default_group == "All"
    with pytest.raises(SettingsError, match="FRACTAL_PREFECT_API_URL is not set"):
        read_settings(Settings)


def test_the_fractal_names_of_shared_variables_win(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FRACTAL_PREFECT_API_URL", "https://prefect.example.org/api")
    environment.setenv("PREFECT_API_AUTH_STRING", "user:password")
    settings = read_settings(Settings)
    assert settings.prefect_api_url == "https://prefect.example.org/api"
    assert settings.prefect_auth_string is not None
    assert settings.prefect_auth_string.get_secret_value() == "user:password"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_database_is_reached_through_asyncpg(
    environment: pytest.MonkeyPatch, scheme: str
) -> None:
    environment.setenv("FRACTAL_DATABASE_URL", f"{scheme}://me:secret@db.example.org:5433/fractal")
    url = read_settings(Settings).async_database_url
    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "me",
        "secret",
        "db.example.org",
        5433,
        "fractal",
    )


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FRACTAL_DATABASE_URL", None, ["is not set", "postgresql://user:password@host/name"]),
        ("FRACTAL_DATABASE_URL", "", ["is not set"]),
        ("FRACTAL_DATABASE_URL", "sqlite:///fractal.db", ["sqlite is not supported"]),
        ("FRACTAL_DATABASE_URL", "localhost", ["not a database URL"]),
        ("PREFECT_API_URL", "127.0.0.1:4200/api", ["http:// or https://", "http://host:port/api"]),
        ("FRACTAL_PREFECT_API_URL", "ftp://host/api", ["http:// or https://"]),
        ("FRACTAL_JWT_SECRET", "too-short", ["fewer than 16 characters", "signs login tokens"]),
        ("FRACTAL_JWT_LIFETIME_SECONDS", "0", ["greater than 0", "login token"]),
        ("FRACTAL_PORT", "http", ["valid integer", "Port of the REST API"]),
        ("FRACTAL_PORT", "70000", ["65535"]),
    ],
)
def test_a_wrong_setting_is_named_with_how_to_mend_it(
    environment: pytest.MonkeyPatch, variable: str, value: str | None, told: list[str]
) -> None:
    if value is None:
        environment.delenv(variable)
    else:
        environment.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        get_settings()
    message = str(error.value)
    assert message.startswith(f"FRACTAL_{variable.removeprefix('FRACTAL_')} is ")
    assert variable in message
    assert "\n" not in message
    for words in told:
        assert words in message


def test_all_wrong_settings_are_told_at_once(environment: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        environment.delenv(name)
    environment.setenv("FRACTAL_PORT", "-1")
    with pytest.raises(SettingsError) as error:
        get_settings()
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "FRACTAL_DATABASE_URL",
        "FRACTAL_PREFECT_API_URL",
        "FRACTAL_PORT",
    ]


def test_secrets_are_not_told(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FRACTAL_DATABASE_URL", "mysql://user:db-password@host/name")
    environment.setenv("FRACTAL_JWT_SECRET", "jwt-secret")
    with pytest.raises(SettingsError) as error:
        get_settings()
    assert "db-password" not in str(error.value)
    assert "jwt-secret" not in str(error.value)


def test_only_the_rest_api_needs_the_secret(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="FRACTAL_JWT_SECRET is not set"):
        read_settings(Settings).require_jwt_secret()
    environment.setenv("FRACTAL_JWT_SECRET", "sixteen-letters.")
    assert read_settings(Settings).require_jwt_secret().get_secret_value() == "sixteen-letters."


@pytest.mark.parametrize(
    ("api", "ui", "expected"),
    [
        ("http://127.0.0.1:4200/api", None, "http://127.0.0.1:4200"),
        ("https://example.org/prefect/api/", None, "https://example.org/prefect"),
        (
            "http://127.0.0.1:4200/api",
            "https://prefect.example.org/",
            "https://prefect.example.org",
        ),
    ],
)
def test_the_prefect_ui_is_beside_the_api_unless_told_otherwise(
    environment: pytest.MonkeyPatch, api: str, ui: str | None, expected: str
) -> None:
    environment.setenv("PREFECT_API_URL", api)
    if ui is not None:
        environment.setenv("FRACTAL_PREFECT_UI_URL", ui)
    assert read_settings(PrefectSettings).ui_url == expected


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FRACTAL_SMTP_FROM", "fractal", "'fractal' is not a mail address"),
        ("FRACTAL_SMTP_SECURITY", "tls", "'starttls', 'ssl' or 'none'"),
        ("FRACTAL_SMTP_PORT", "0", "greater than 0"),
    ],
)
def test_a_wrong_setting_of_the_mail_server_is_told(
    environment: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    environment.setenv("FRACTAL_SMTP_HOST", "smtp.example.org")
    environment.setenv("FRACTAL_SMTP_FROM", "fractal@example.org")
    assert read_settings(SmtpSettings).smtp_security == "starttls"
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        read_settings(SmtpSettings)
    assert str(error.value).startswith(f"{name} is wrong: ")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"CLIENT_NAME": "github", "CLIENT_ID": "x"}, "set FRACTAL_OAUTH_CLIENT_SECRET too"),
        (
            {"CLIENT_NAME": "lab", "CLIENT_ID": "x", "CLIENT_SECRET": "y"},
            "set FRACTAL_OAUTH_OIDC_CONFIG_ENDPOINT too",
        ),
        ({"CLIENT_SECRET": "y"}, "FRACTAL_OAUTH_CLIENT_NAME and FRACTAL_OAUTH_CLIENT_ID"),
        ({"EMAIL_CLAIM": "mail"}, "needs FRACTAL_OAUTH_TRUST_EMAILS=true"),
        ({"CLIENT_NAME": "a/b"}, "FRACTAL_OAUTH_CLIENT_NAME is wrong"),
    ],
)
def test_a_login_by_oauth_is_configured_as_a_whole(
    environment: pytest.MonkeyPatch, given: dict[str, str], told: str
) -> None:
    for name, value in given.items():
        environment.setenv(f"FRACTAL_OAUTH_{name}", value)

    with pytest.raises(SettingsError, match=told):
        read_settings(Settings)


def test_a_provider_that_is_known_needs_no_addresses(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"NAME": "GitHub", "ID": "x", "SECRET": "y"}.items():
        environment.setenv(f"FRACTAL_OAUTH_CLIENT_{name}", value)

    assert read_settings(Settings).oauth_client_name == "github"
