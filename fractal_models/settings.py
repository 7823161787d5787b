"""All configuration of the platform, read here from `FRACTAL_*` environment variables."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fractal_models.variables import SettingsError, default_data_dir

_MIN_SECRET_LENGTH = 16
_OF_POSTGRESQL = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile")
_FROM_ENVIRONMENT = SettingsConfigDict(
    env_prefix="FRACTAL_", env_ignore_empty=True, populate_by_name=True
)


def _postgresql(value: str) -> str:
    try:
        scheme = make_url(value).get_backend_name()
    except ArgumentError as error:
        raise ValueError("it is not a database URL") from error
    if scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{scheme} is not supported")
    return value


class DatabaseSettings(BaseSettings):
    """The settings needed to prepare the database: enough for `db upgrade` and `init`.

    Every field is the environment variable `FRACTAL_<NAME>`.
    """

    model_config = _FROM_ENVIRONMENT

    database_url: str = Field(
        description="PostgreSQL database of the Fractal schema, postgresql://user:password@host/name"
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder of the embedded stack and of default locations",
    )
    default_group: str = Field(
        default="All", min_length=1, description="User group that every new user joins"
    )

    _is_postgresql = field_validator("database_url")(_postgresql)

    @property
    def async_database_url(self) -> URL:
        """The database URL with SQLAlchemy's asyncpg driver."""
        return make_url(self.database_url).set(drivername="postgresql+asyncpg")


class PrefectDatabaseSettings(BaseSettings):
    """The database of Prefect's server, which only `tidy`, `backup` and `restore` use."""

    model_config = _FROM_ENVIRONMENT

    prefect_database_url: str = Field(
        validation_alias=AliasChoices(
            "FRACTAL_PREFECT_DATABASE_URL",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL",
            "PREFECT_API_DATABASE_CONNECTION_URL",
        ),
        description="PostgreSQL database of Prefect's server, "
        "postgresql://user:password@host/name; PREFECT_SERVER_DATABASE_CONNECTION_URL serves too",
    )

    _is_postgresql = field_validator("prefect_database_url")(_postgresql)

    @property
    def url(self) -> URL:
        """The database URL as PostgreSQL's own programs read it, not only Prefect's driver."""
        url = make_url(self.prefect_database_url)
        query = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
        return url.set(query={name: query[name] for name in _OF_POSTGRESQL if name in query})


class PrefectSettings(BaseSettings):
    """The settings needed to call Prefect."""

    model_config = _FROM_ENVIRONMENT

    prefect_api_url: str = Field(
        validation_alias=AliasChoices("FRACTAL_PREFECT_API_URL", "PREFECT_API_URL"),
        description="URL of the Prefect API, http://host:port/api; PREFECT_API_URL serves too",
    )
    prefect_auth_string: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("FRACTAL_PREFECT_AUTH_STRING", "PREFECT_API_AUTH_STRING"),
        description="user:password of the Prefect API; PREFECT_API_AUTH_STRING serves too",
    )
    prefect_ui_url: str | None = Field(
        default=None, description="Where people open the Prefect UI; default: beside the API"
    )

    @field_validator("prefect_api_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("it does not begin with http:// or https://")
        return value

    @property
    def ui_url(self) -> str:
        """The URL at which people open the Prefect UI, without a slash at the end."""
        return (
            self.prefect_ui_url or self.prefect_api_url.rstrip("/").removesuffix("/api")
        ).rstrip("/")


def mail_address(value: str) -> str:
    """Return a mail address unchanged if it is valid.

    Raises:
        ValueError: it is not a mail address.
    """
    if not re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", value):
        raise ValueError(f"{value!r} is not a mail address")
    return value


class SmtpSettings(BaseSettings):
    """The server through which Prefect sends mails; read only when notifications are set up."""

    model_config = _FROM_ENVIRONMENT

    smtp_host: str = Field(description="Host name of the SMTP server, as Prefect reaches it")
    smtp_security: Literal["starttls", "ssl", "none"] = Field(
        default="starttls", description="How the connection is encrypted: starttls, ssl or none"
    )
    smtp_port: int | None = Field(
        default=None,
        gt=0,
        le=65_535,
        description="Its port; default: that of FRACTAL_SMTP_SECURITY",
    )
    smtp_user: str | None = Field(default=None, description="User name, if it wants a login")
    smtp_password: SecretStr | None = Field(
        default=None, description="Password, if it wants a login"
    )
    smtp_from: Annotated[str, AfterValidator(mail_address)] = Field(
        description="Address that mails come from"
    )


class OAuthSettings(BaseSettings):
    """The OAuth provider with which users log in; none unless name, id and secret are set."""

    model_config = _FROM_ENVIRONMENT

    oauth_client_name: (
        Annotated[str, StringConstraints(to_lower=True, pattern=r"^[a-zA-Z0-9_-]+$")] | None
    ) = Field(
        default=None,
        description="github, google or a name of your own for any other OpenID Connect provider",
    )
    oauth_client_id: str | None = Field(
        default=None, description="The id that the OAuth provider gave for this installation"
    )
    oauth_client_secret: SecretStr | None = Field(
        default=None, description="The secret that the OAuth provider gave with the id"
    )
    oauth_oidc_config_endpoint: str | None = Field(
        default=None,
        description="URL of .well-known/openid-configuration of a provider of your own name",
    )
    oauth_redirect_url: str | None = Field(
        default=None,
        description="Where the provider sends users back to, as it is registered there; "
        "default: /auth/<name>/callback/ of the REST API",
    )
    oauth_email_claim: str = Field(
        default="email",
        min_length=1,
        description="The OpenID claim that holds a user's email; if it is another, set "
        "FRACTAL_OAUTH_TRUST_EMAILS too",
    )
    oauth_trust_emails: bool = Field(
        default=False,
        description="true if the provider itself gives users their emails, and does not say of "
        "each that it is verified",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> "OAuthSettings":
        needed = ["oauth_client_name", "oauth_client_id", "oauth_client_secret"]
        if self.oauth_client_name not in ("github", "google", None):
            needed.append("oauth_oidc_config_endpoint")
        missing = [f"FRACTAL_{name.upper()}" for name in needed if getattr(self, name) is None]
        if missing and any(getattr(self, name) is not None for name in needed):
            raise ValueError(f"For login by OAuth, set {' and '.join(missing)} too.")
        if self.oauth_email_claim != "email" and not self.oauth_trust_emails:
            raise ValueError("FRACTAL_OAUTH_EMAIL_CLAIM needs FRACTAL_OAUTH_TRUST_EMAILS=true.")
        return self


class Settings(OAuthSettings, PrefectSettings, DatabaseSettings):
    """The settings needed to run the platform. The secrets of logins are for the REST API alone."""

    max_restarts: int = Field(
        default=3,
        ge=0,
        description="How often in a row a job that makes no progress is started again, "
        "and an activity of a task group",
    )
    max_running_jobs: int | None = Field(
        default=None,
        ge=1,
        description="How many jobs run at once on a resource; default: as the machine bears",
    )
    max_running_activities: int | None = Field(
        default=None,
        ge=1,
        description="How many task groups are collected or changed at once on a resource; "
        "default: as the machine bears",
    )
    max_running_jobs_per_user: int | None = Field(
        default=None,
        ge=1,
        description="How many jobs of one user a worker lets run at once; default: no limit",
    )
    ssh_known_hosts: Path = Field(
        default=Path("~/.ssh/known_hosts"),
        description="File with the keys of the hosts that clusters are reached through by SSH",
    )
    max_json_mb: int = Field(
        default=16, ge=1, description="MiB that a request to the REST API may have"
    )
    max_upload_mb: int = Field(
        default=200,
        ge=1,
        description="MiB that a request may have which brings a file",
    )
    max_import_mb: int = Field(
        default=1000,
        ge=1,
        description="MiB that a request may have which imports a dataset; "
        "a million images have 150 and more",
    )
    statement_seconds: int = Field(
        default=30,
        ge=1,
        description="How long PostgreSQL may take for a statement of the REST API; ten times as "
        "long to import or export a dataset",
    )
    stop_seconds: float = Field(
        default=150.0,
        ge=1.0,
        description="How long a job that is to stop may take to end its units and record them, "
        "before its process is killed",
    )
    max_output_mb: int = Field(
        default=256,
        ge=1,
        description="Largest output (--out-json, MiB) that the units of one phase of a task may "
        "write, taken together",
    )
    warm_units: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether imports are made once for many units: where that is safe (auto), or "
        "never (off)",
    )
    max_unpacked_mb: int = Field(
        default=2000, ge=1, description="MiB that the archive of a pixi project may have unpacked"
    )
    slurm_patience_seconds: float = Field(
        default=60.0,
        ge=1,
        description="Seconds before a SLURM job is doubted of which the cluster does not tell",
    )
    failed_folder_days: float = Field(
        default=30.0,
        ge=0,
        description="Days for which the folder of a failed job is kept on a cluster",
    )
    jwt_secret: SecretStr | None = Field(
        default=None,
        description=f"Secret that signs login tokens, {_MIN_SECRET_LENGTH} characters or more",
    )
    jwt_lifetime_seconds: int = Field(
        default=86_400, gt=0, description="Seconds for which a login token is valid"
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="With this token, /metrics and /api/health/ can be read without a login, "
        f"{_MIN_SECRET_LENGTH} characters or more",
    )
    contact: str | None = Field(
        default=None,
        description="Where users ask an administrator: a mail address or the URL of a page",
    )
    host: str = Field(default="127.0.0.1", description="Address that the REST API binds to")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port of the REST API")
    api_workers: int = Field(
        default=1, ge=1, le=64, description="How many processes serve the REST API"
    )

    @field_validator("jwt_secret", "metrics_token")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_SECRET_LENGTH:
            raise ValueError(f"it has fewer than {_MIN_SECRET_LENGTH} characters")
        return value

    def require_jwt_secret(self) -> SecretStr:
        """The secret that signs login tokens; the REST API cannot run without it.

        Raises:
            SettingsError: it is not set.
        """
        if self.jwt_secret is None:
            raise SettingsError(_not_set(type(self), "jwt_secret"))
        return self.jwt_secret


def without_secrets(settings: BaseSettings, only: Iterable[str]) -> dict[str, Any]:
    """The values of settings, by variable. Secrets are stars; URLs have no password or query."""
    values = settings.model_dump(mode="json", include=set(only))
    return {f"FRACTAL_{name.upper()}": _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        return re.sub(r"(?<=://).*@|[?#].*", "", value)
    return value


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """The settings of this kind, from the environment.

    Raises:
        SettingsError: a variable is unset or invalid.
    """
    try:
        return kind()
    except ValidationError as error:
        raise SettingsError(_describe(kind, error)) from None


@lru_cache
def get_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable is unset or invalid.
    """
    return read_settings(Settings)


def _describe(kind: type[BaseSettings], error: ValidationError) -> str:
    """One line per wrong setting: its variable, what is wrong, what it is for."""
    lines = []
    for problem in error.errors(include_url=False):
        wrong = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:  # several settings do not go together
            lines.append(wrong)
            continue
        name = str(problem["loc"][0]).removeprefix("FRACTAL_").lower()
        if problem["type"] == "missing":
            lines.append(_not_set(kind, name))
        else:
            lines.append(f"FRACTAL_{name.upper()} is wrong: {wrong}. {_purpose(kind, name)}")
    return "\n".join(lines)


def _not_set(kind: type[BaseSettings], name: str) -> str:
    return f"FRACTAL_{name.upper()} is not set. {_purpose(kind, name)}"


def _purpose(kind: type[BaseSettings], name: str) -> str:
    return f"Set it to: {kind.model_fields[name].description}."
