"""The commands that make the environment of a task group, and list what it contains."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flows.activities.package_tasks import MANIFEST, PackageError
from flows.programs import contents
from fractal_models.tables import Resource, TaskGroupV2


def find_uv() -> str | None:
    """The path of uv, if it is installed beside this interpreter or in PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def interpreter_of(resource: Resource, python_version: str | None) -> str:
    """The resource's interpreter for a Python version, or for the default version.

    Raises:
        PackageError: the resource does not have this version.
    """
    config = resource.tasks_python_config
    version = python_version or config["default_version"]
    if version not in config["versions"]:
        raise PackageError(
            f"Resource {resource.name!r} has no Python {version}; "
            f"it has {', '.join(config['versions'])}."
        )
    return str(config["versions"][version])


def venv_python(group: TaskGroupV2) -> str:
    """The interpreter of the task group's environment."""
    return f"{group.venv_path}/bin/python"


def frozen_file(group: TaskGroupV2) -> str:
    """The file with the frozen versions from which the environment is made again."""
    return f"{group.path}/frozen.txt"


def making_lock(group: TaskGroupV2) -> str:
    """The lock of those who make the environment of a task group."""
    return f"{group.path}/.making"


def packages_of(group: TaskGroupV2) -> list[str]:
    """What to install, in this order: pinned versions, the package, more pinned versions."""
    wanted = [
        group.pinned_package_versions_pre_string,
        shlex.quote(group.pip_install_string),
        group.pinned_package_versions_post_string,
    ]
    return [packages for packages in wanted if packages]


def frozen_packages_of(group: TaskGroupV2) -> list[str]:
    """What to install when the environment is made again: exactly the recorded versions."""
    return [f"--no-deps --requirement {shlex.quote(frozen_file(group))}"]


def make_commands(
    group: TaskGroupV2,
    resource: Resource,
    packages: Sequence[str],
    uv: str | None,
    cache: Sequence[str],
) -> list[str]:
    """The shell commands that make a task group's environment anew and install packages.

    Everybody may read and run the environment, and only its owner may change it, whatever the
    umask; so its packages are compiled to bytecode. Without `uv`, venv and pip make it. `cache` has
    pip's options for its cache.

    Raises:
        PackageError: the resource does not have the group's Python version.
    """
    venv = shlex.quote(str(group.venv_path))
    python = shlex.quote(interpreter_of(resource, group.python_version))
    make = f"{shlex.quote(uv)} venv --no-project --python {python}" if uv else f"{python} -m venv"
    install = _install_command(group, uv, cache)
    return [
        "umask 022",
        f"mkdir -p {shlex.quote(str(group.path))}",
        f"rm -rf {venv}",  # what an interruption may have left
        f"{make} {venv}",
        *(f"{install} {each}" for each in packages),
        *([] if uv else compile_commands(venv_python(group), str(group.venv_path))),
        f"chmod -R go+rX,go-w {venv}",  # uv links files, with their modes, from its cache
    ]


def cache_options(resource: Resource, cache_dir: str | None) -> list[str]:
    """pip's options for its cache: the folder `cache_dir` or, if None, the resource's folder.

    If the resource has no cache, there is none in either case.
    """
    if cache_dir is not None and resource.tasks_python_config.get("pip_cache_dir"):
        return ["--cache-dir", cache_dir]
    return resource.pip_cache_dir_arg.split(" ", 1)


def compile_commands(python: str, folder: str) -> list[str]:
    """The shell commands that compile the packages in a folder to bytecode, by all processors.

    Units may not be able, or not be allowed, to save bytecode, and would then compile again each
    time. What is printed ends as with uv: how many files there are now, and how long it took.
    """
    quoted = shlex.quote(folder)
    files = f"find {quoted} -name '*.pyc' | wc -l"
    return [
        "begun=$(date +%s)",
        # Packages may have files of other versions of Python, which do not compile.
        f"{shlex.quote(python)} -I -m compileall -qq -r 99 -j 0 {quoted} || true",
        f'echo "Bytecode compiled $({files}) files in $(($(date +%s) - begun))s"',
    ]


def _install_command(group: TaskGroupV2, uv: str | None, cache: Sequence[str]) -> str:
    python = shlex.quote(venv_python(group))
    if uv is None:
        options = ["--no-input", "--no-compile", "--disable-pip-version-check", *cache]
        return f"{python} -m pip install {shlex.join(options)}"
    options = [
        "--compile-bytecode",
        *(each.replace("--no-cache-dir", "--no-cache") for each in cache),
    ]
    return f"{shlex.quote(uv)} pip install --python {python} {shlex.join(options)}"


def freeze_command(group: TaskGroupV2, uv: str | None) -> list[str]:
    """The command that prints the installed versions."""
    python = venv_python(group)
    if uv is not None:
        return [uv, "pip", "freeze", "--python", python]
    return [python, "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]


def contents_command(python: str, package: str) -> list[str]:
    """The command that prints what an interpreter's environment contains: see `contents`."""
    return [python, "-I", "-c", program(contents), package, MANIFEST]


def program(module: ModuleType) -> str:
    """The source of a module, to be run with `python -c` where environments are."""
    return Path(str(module.__file__)).read_text(encoding="utf-8")
