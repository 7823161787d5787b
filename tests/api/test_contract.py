"""The API against the REST contract."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fractal_models.schemas.base import CONTRACT_VERSION


@pytest.fixture(scope="module")
def gap(contract: Path) -> Any:
    """The contract's own comparison."""
    spec = importlib.util.spec_from_file_location("gap", contract / "gap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_operation_has_the_parameters_and_fields_of_the_contract(
    contract: Path, ours: dict[str, Any], tmp_path: Path
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(ours))

    command = [sys.executable, str(contract / "gap.py"), str(document), "--list"]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)

    assert compared.stdout.split("\n")[-2] == "145 of 145 operations, 0 gaps", compared.stdout
    assert compared.returncode == 0


def test_successes_have_the_status_of_the_contract(gap: Any, ours: dict[str, Any]) -> None:
    def successes(operation: Any) -> set[str]:
        return {status for status in operation["responses"] if status.startswith("2")}

    theirs = json.loads(gap.CONTRACT.read_text())
    here = {key: operation for key, _, operation in gap.operations(ours)}
    different = {
        path: (successes(operation), successes(here[key]))
        for key, path, operation in gap.operations(theirs)
        if successes(operation) != successes(here[key])
    }

    # The contract's document says 200 here, its server and its clients mean 202, and 204.
    lifecycle = {
        f"{area}/v2/task-group/{{task_group_id}}/{action}/"
        for area in ("/api", "/admin")
        for action in ("deactivate", "reactivate")
    }
    lifecycle |= {f"/admin/v2/task-group/{{task_group_id}}/reset/{how}/" for how in ("pip", "pixi")}
    others = {"/api/v2/task/collect/pip/", "/auth/token/logout/"}
    assert set(different) == {*others, *lifecycle}


def test_operations_have_names_of_their_own_and_tags(ours: dict[str, Any]) -> None:
    operations = [each for path in ours["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]

    assert len(names) == len(set(names))
    assert all(operation["tags"] for operation in operations)


async def test_the_server_says_which_contract_it_serves(anonymous: Any, gap: Any) -> None:
    alive = (await anonymous.get("/api/alive/")).json()

    assert alive["alive"] is True
    assert alive["version"] == CONTRACT_VERSION
    assert CONTRACT_VERSION in gap.CONTRACT.name
    assert alive["fractal_prefect_version"]
