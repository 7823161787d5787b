"""All configuration of the platform, read in one place from `FRACTAL_*` environment variables."""

from functools import lru_cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError


class SettingsError(Exception):
    """A setting is missing or wrong; the message names each one and how to set it."""


class Settings(BaseSettings):
    """What an installation can set. Every field is the environment variable `FRACTAL_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="FRACTAL_", env_ignore_empty=True, populate_by_name=True
    )

    database_url: str = Field(
        description="PostgreSQL database of the Fractal schema, postgresql://user:password@host/name"
    )
    prefect_api_url: str = Field(
        pattern="^https?://",
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
    jwt_secret: SecretStr = Field(
        min_length=16, description="Secret that signs login tokens, 16 characters or more"
    )
    jwt_lifetime_seconds: int = Field(
        default=86_400, gt=0, description="Seconds for which a login token is valid"
    )
    data_dir: Path = Field(
        default=Path("~/.fractal-prefect"),
        description="Folder of the embedded stack and of default locations",
    )
    host: str = Field(default="127.0.0.1", description="Address that the REST API binds to")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port of the REST API")
    default_group: str = Field(
        default="All", min_length=1, description="User group that every new user joins"
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        try:
            scheme = make_url(value).get_backend_name()
        except ArgumentError as error:
            raise ValueError("not a database URL, such as postgresql://user@host/name") from error
        if scheme not in ("postgresql", "postgres"):
            raise ValueError(f"{scheme} is not supported, give a postgresql:// URL")
        return value

    @property
    def async_database_url(self) -> URL:
        """The database URL with SQLAlchemy's asyncpg driver."""
        return make_url(self.database_url).set(drivername="postgresql+asyncpg")


@lru_cache
def get_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable is unset or invalid.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(describe(error)) from None


def describe(error: ValidationError) -> str:
    """One line per wrong setting: its variable, what is wrong, what it is for."""
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]).removeprefix("FRACTAL_").lower()
        field = Settings.model_fields.get(name)
        purpose = f" ({field.description})" if field and field.description else ""
        what = "is not set" if problem["type"] == "missing" else f"is wrong: {problem['msg']}"
        lines.append(f"FRACTAL_{name.upper()} {what}{purpose}")
    return "\n".join(lines)
