"""An installation as commands find it: that of an `up` by its folder, another by its settings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from deployments.data_dir import chosen_data_dir, read_secrets
from deployments.stack import reached_postgres
from fractal_models.settings import (
    PrefectDatabaseSettings,
    Settings,
    get_settings,
    read_settings,
)

# Where an `up` has Prefect unless told otherwise.
_PREFECT_OF_UP = "http://127.0.0.1:4200/api"


@dataclass(frozen=True)
class Installation:
    """Its settings, and the database of its Prefect; of an `up`, also its folder and its logs."""

    settings: Settings
    prefect_database: URL
    data_dir: Path | None = None
    logs: Sequence[Path] = ()


@contextmanager
def reached_installation(data_dir: Path | None) -> Iterator[Installation]:
    """An installation whose databases run at least for this block.

    Without a folder, it is that of the settings or, if there are none, the one in the default
    folder.

    Raises:
        SettingsError, DataDirError, PostgresError: it is not told, or is not there.
    """
    if data_dir is None and "FRACTAL_DATABASE_URL" in os.environ:
        yield installation_of_settings()
        return
    folder = chosen_data_dir(data_dir)
    with reached_postgres(folder) as postgres:
        os.environ["FRACTAL_DATABASE_URL"] = postgres.fractal.render_as_string(hide_password=False)
        os.environ["FRACTAL_DATA_DIR"] = str(folder)
        os.environ.setdefault("PREFECT_API_URL", _PREFECT_OF_UP)
        secret = read_secrets(folder / "secrets.json")
        os.environ.setdefault("PREFECT_API_AUTH_STRING", secret["prefect_auth"])
        logs = [*sorted((folder / "logs").glob("*.log")), postgres.log]
        yield Installation(get_settings(), postgres.prefect, folder, logs)


def installation_of_settings() -> Installation:
    """The one whose databases the settings name.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    return Installation(get_settings(), read_settings(PrefectDatabaseSettings).url)
