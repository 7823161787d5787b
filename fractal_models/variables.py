"""Which environment variables are secrets, where data are by default, and the error of settings.

Reading settings imports much (`fractal_models/settings.py`): a process that reads none need not.
"""

import os
from pathlib import Path

from fractal_models.errors import FractalError

# Variables with secrets: each process gets only those that it needs. API_SECRETS are for the REST
# API alone: whoever has the first can act as any of its users.
API_SECRETS = ("FRACTAL_JWT_SECRET", "FRACTAL_OAUTH_CLIENT_SECRET", "FRACTAL_METRICS_TOKEN")
SECRETS = (
    *API_SECRETS,
    "FRACTAL_ADMIN_PASSWORD",
    "FRACTAL_DATABASE_URL",
    "FRACTAL_PREFECT_DATABASE_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "FRACTAL_SMTP_PASSWORD",
    "FRACTAL_PREFECT_AUTH_STRING",
    "PREFECT_API_AUTH_STRING",
)


class SettingsError(FractalError):
    """A setting is missing or wrong; the message names each one and how to set it."""


def default_data_dir() -> Path:
    """The default folder of the embedded stack: in the user's home.

    For root it is elsewhere, because PostgreSQL cannot enter root's home, unless it is there
    already.
    """
    home = Path("~/.fractal-prefect").expanduser()
    return home if os.geteuid() != 0 or home.exists() else Path("/var/lib/fractal-prefect")
