"""The page on services: what it tells administrators to type and to write, word for word."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest
from prefect.settings import Settings as PrefectSettings
from pydantic import SecretStr
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.settings import Settings
from fractal_models.tables import Resource, UserOAuth
from tests.deployments.conftest import COMMAND

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "services.md").read_text()
INSTALLATION = (ROOT / "docs" / "installation.md").read_text()
UNITS = sorted((ROOT / "deployments" / "systemd").iterdir())
PROGRAM = "/opt/fractal-prefect/bin"


def written_to(path: str) -> str:
    """What the page says that a file has."""
    (found,) = re.findall(rf"`{path}`:\n\n```ini\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def variables_of(*names: str) -> dict[str, str]:
    lines = [written_to(f"/etc/fractal-prefect/{name}").splitlines() for name in names]
    return dict(line.split("=", 1) for part in lines for line in part)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
def test_systemd_understands_all_of_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(
            unit.read_text().replace(PROGRAM, str(Path(COMMAND).parent))
        )

    checked = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_page_names_every_unit() -> None:
    assert all(f"`{unit.stem}`" in PAGE for unit in UNITS)
    assert " ".join(unit.stem for unit in UNITS if "server" in unit.stem) in PAGE


def test_units_read_the_files_of_the_page() -> None:
    read = {
        unit.stem.removeprefix("fractal-prefect-"): re.findall(
            r"^EnvironmentFile=/etc/fractal-prefect/(\S+)$", unit.read_text(), re.MULTILINE
        )
        for unit in UNITS
        if unit.suffix == ".service"
    }
    assert read == {
        "api": ["fractal.env", "api.env"],
        "server": ["prefect.env"],
        "tidy": ["prefect.env", "fractal.env"],
        "worker": ["fractal.env"],
    }


def test_the_settings_of_the_api_are_complete() -> None:
    with patch.dict(os.environ, variables_of("fractal.env", "api.env"), clear=True):
        settings = Settings()
    settings.require_jwt_secret()
    assert settings.api_workers == 2
    assert str(settings.data_dir) == "/var/lib/fractal-prefect"


def test_both_sides_know_the_same_secret_of_prefect() -> None:
    given = variables_of("prefect.env")["PREFECT_SERVER_API_AUTH_STRING"]
    assert variables_of("fractal.env")["PREFECT_API_AUTH_STRING"] == given


def test_prefect_knows_its_settings() -> None:
    given = variables_of("prefect.env")
    with patch.dict(os.environ, given, clear=True):
        server = PrefectSettings().server
    read = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": server.database.connection_url,
        "PREFECT_SERVER_API_AUTH_STRING": server.api.auth_string,
        "PREFECT_SERVER_UI_API_URL": server.ui.api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": server.analytics_enabled,
    }
    assert {name: _plain(value) for name, value in read.items()} == given


def _plain(value: object) -> str:
    secret = value.get_secret_value() if isinstance(value, SecretStr) else value
    return str(secret).lower() if isinstance(secret, bool) else str(secret)


def test_every_variable_is_on_the_page_of_all() -> None:
    given = variables_of("fractal.env", "api.env")
    assert [name for name in given if f"`{name}`" not in INSTALLATION] == []


async def test_the_first_administrator_is_made_by_the_command(
    database: URL, sessions: async_sessionmaker[AsyncSession], tmp_path: Path
) -> None:
    (command,) = re.findall(r"^runuser -u fractal -- (sh .*)$", PAGE, re.MULTILINE)
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    settings = variables_of("fractal.env") | {"FRACTAL_DATABASE_URL": f"'{url}'"}
    file = tmp_path / "fractal.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    described = re.findall(r"^```json\n(.*?)```", INSTALLATION, re.DOTALL | re.MULTILINE)
    resource, profile, *_ = map(json.loads, described)
    (tmp_path / "resource.json").write_text(json.dumps(resource))
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    told = command.replace(PROGRAM, str(Path(COMMAND).parent))
    told = told.replace("/etc/fractal-prefect/fractal.env", str(file))

    done = await asyncio.create_subprocess_shell(told, cwd=tmp_path, stderr=asyncio.subprocess.PIPE)

    _, said = await done.communicate()
    assert done.returncode == 0, said
    async with sessions() as session:
        admin = (await session.exec(select(UserOAuth))).unique().one()
        made = (await session.exec(select(Resource))).one()
    assert (admin.email, admin.is_superuser) == ("admin@example.org", True)
    assert made.name == resource["name"]
