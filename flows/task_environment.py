"""The environment of a task package: how it is installed, and what is found in it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from pydantic import ValidationError

from fractal_models.schemas.manifest import Manifest, TaskManifest
from fractal_models.schemas.task import task_type_of
from fractal_models.tables import Resource, TaskGroupV2, TaskV2

MANIFEST = "__FRACTAL_MANIFEST__.json"

_FIND_MANIFEST = (
    "import importlib.metadata, sys; "
    "found = [f.locate() for f in importlib.metadata.files(sys.argv[1]) or [] "
    f"if f.name == '{MANIFEST}']; "
    "print(found[0] if found else '')"
)


class PackageError(Exception):
    """A package cannot be used for Fractal tasks; the message says why."""


def find_uv() -> str | None:
    """uv, if it is installed beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def install_commands(group: TaskGroupV2, resource: Resource, uv: str | None) -> list[str]:
    """The shell commands that make a task group's environment and install its package.

    Pinned versions are installed before or after the package. With `uv` None, by venv and pip.
    """
    python, venv = interpreter_of(group, resource), str(group.venv_path)
    cache_option, *cache_dir = resource.pip_cache_dir_arg.split(" ", 1)
    if uv is not None:
        cache_option = cache_option.replace("--no-cache-dir", "--no-cache")
        cache = shlex.join([cache_option, *cache_dir])
        make = f"{shlex.quote(uv)} venv --no-project --python {shlex.quote(python)}"
        install = (
            f"{shlex.quote(uv)} pip install {cache} --python {shlex.quote(venv_python(group))}"
        )
    else:
        cache = shlex.join([cache_option, *cache_dir])
        make = f"{shlex.quote(python)} -m venv"
        install = f"{shlex.quote(venv_python(group))} -m pip install --no-input {cache}"
    wanted = [
        group.pinned_package_versions_pre_string,
        shlex.quote(group.pip_install_string),
        group.pinned_package_versions_post_string,
    ]
    return [f"{make} {shlex.quote(venv)}", *(f"{install} {what}" for what in wanted if what)]


def freeze_command(group: TaskGroupV2, uv: str | None) -> list[str]:
    """The command that prints the installed versions."""
    python = venv_python(group)
    return [uv, "pip", "freeze", "--python", python] if uv else [python, "-m", "pip", "freeze"]


def find_manifest_command(group: TaskGroupV2) -> list[str]:
    """The command that prints the path of the package's manifest, or nothing."""
    return [venv_python(group), "-c", _FIND_MANIFEST, group.pkg_name]


def interpreter_of(group: TaskGroupV2, resource: Resource) -> str:
    """The interpreter of the group's Python version, as the resource has it.

    Raises:
        PackageError: the resource has no such version.
    """
    config = resource.tasks_python_config
    version = group.python_version or config["default_version"]
    if version not in config["versions"]:
        raise PackageError(
            f"Resource {resource.name!r} has no Python {version}; "
            f"it has {', '.join(config['versions'])}."
        )
    return str(config["versions"][version])


def venv_python(group: TaskGroupV2) -> str:
    """The interpreter of the group's environment."""
    return f"{group.venv_path}/bin/python"


def read_manifest(path: Path) -> Manifest:
    """The manifest of an installed package.

    Raises:
        PackageError: it is not a valid manifest.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise PackageError(f"The manifest {path} is invalid: {problems}") from None


def tasks_of(manifest: Manifest, python: str, package_root: Path, version: str) -> list[TaskV2]:
    """The tasks of a manifest, with commands for this interpreter and package folder.

    Raises:
        PackageError: a task's executable is not in the package.
    """
    return [_task(manifest, entry, python, package_root, version) for entry in manifest.task_list]


def _task(
    manifest: Manifest, entry: TaskManifest, python: str, package_root: Path, version: str
) -> TaskV2:
    def command(executable: str | None) -> str | None:
        if executable is None:
            return None
        path = package_root / executable
        if not path.is_file():
            raise PackageError(f"The executable {path} of task {entry.name!r} does not exist.")
        return shlex.join([python, str(path)])

    try:
        task_type = task_type_of(
            entry.type, entry.executable_non_parallel, entry.executable_parallel
        )
    except ValueError as error:
        raise PackageError(f"Task {entry.name!r} of the manifest is wrong: {error}") from None
    return TaskV2(
        **entry.model_dump(exclude={"type", "executable_non_parallel", "executable_parallel"}),
        type=task_type,
        command_non_parallel=command(entry.executable_non_parallel),
        command_parallel=command(entry.executable_parallel),
        args_schema_version=manifest.args_schema_version,
        authors=manifest.authors,
        version=version,
    )


def measure(folder: Path) -> tuple[int, int]:
    """The size of a folder in KiB and the number of its files."""
    size = count = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            size += Path(directory, name).lstat().st_size
            count += 1
    return size // 1024, count
