"""The commands that make the environment of a pixi project, and the files that they need."""

import shlex
from collections.abc import Sequence
from typing import Any

from flows.activities.commands import compile_commands
from flows.activities.package_tasks import PackageError
from fractal_models.schemas.pixi import PixiSlurmConfig, TasksPixiSettings
from fractal_models.tables import Resource, TaskGroupV2


def pixi_version_of(resource: Resource, version: str | None) -> str:
    """The version of pixi to use on a resource: the given one, or else its default.

    Raises:
        PackageError: the resource does not have this version.
    """
    config = resource.tasks_pixi_config
    if not config:
        raise PackageError(
            f"Resource {resource.name!r} has no pixi: an administrator can set its "
            "tasks_pixi_config."
        )
    found = str(version or config["default_version"])
    if found not in config["versions"]:
        raise PackageError(
            f"Resource {resource.name!r} has no pixi {found}; it has "
            f"{', '.join(config['versions'])}."
        )
    return found


def manifests(group: TaskGroupV2) -> list[str]:
    """The files that can describe a project; the first one that exists is used."""
    return [f"{group.venv_path}/pixi.toml", f"{group.venv_path}/pyproject.toml"]


def lock_file(group: TaskGroupV2) -> str:
    """The file with the exact versions of all packages."""
    return f"{group.venv_path}/pixi.lock"


def wrapper(group: TaskGroupV2) -> str:
    """The script that is used as interpreter: it activates the environment first."""
    return f"{group.venv_path}/.fractal/python"


def wrapper_text(group: TaskGroupV2) -> str:
    """The content of that script."""
    return f"""\
#!/bin/bash
source {shlex.quote(_activation(group))} || exit
export PYTHONNOUSERSITE=1
exec "$CONDA_PREFIX/bin/python" "$@"
"""


def make_pixi_commands(
    group: TaskGroupV2, resource: Resource, manifest: str, cache_dir: str | None, *, frozen: bool
) -> list[str]:
    """The shell commands that make a project's environment from its manifest.

    With `frozen`, its versions come from the lock file; otherwise the lock file is renewed.
    Everybody may read and run the environment, and only its owner may change it.

    Raises:
        PackageError: the resource does not have the group's version of pixi.
    """
    version = pixi_version_of(resource, group.pixi_version)
    config = TasksPixiSettings.model_validate(resource.tasks_pixi_config)
    home = config.versions[version]
    pixi = shlex.quote(f"{home}/bin/pixi")
    project = f"--environment {shlex.quote(config.DEFAULT_ENVIRONMENT)} " + (
        f"--manifest-path {shlex.quote(manifest)}"
    )
    install = (
        f"{pixi} install --concurrent-solves {config.PIXI_CONCURRENT_SOLVES} "
        f"--concurrent-downloads {config.PIXI_CONCURRENT_DOWNLOADS} "
        f"{'--frozen ' if frozen else ''}{project}"
    )
    compile_all = compile_commands(wrapper(group), str(group.venv_path))
    if resource.type == "slurm_ssh" and config.SLURM_CONFIG is not None:
        install = _on_a_node([install], config.SLURM_CONFIG)
        compile_all = [_on_a_node(compile_all, config.SLURM_CONFIG)]
    environment: dict[str, Any] = {
        "PIXI_HOME": home,
        "PIXI_CACHE_DIR": cache_dir or f"{home}/cache",
        "RATTLER_AUTH_FILE": f"{home}/credentials.json",
        "TOKIO_WORKER_THREADS": config.TOKIO_WORKER_THREADS,
    }
    activation, script = shlex.quote(_activation(group)), shlex.quote(wrapper(group))
    return [
        "umask 022",
        *(f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()),
        install,
        f"{pixi} shell-hook --shell bash --frozen {project} > {activation}",
        f"chmod u+x {script}",
        *compile_all,
        f"chmod -R go+rX,go-w {shlex.quote(str(group.venv_path))}",
        f"{script} --version",
    ]


def _activation(group: TaskGroupV2) -> str:
    return f"{group.venv_path}/.fractal/activate.sh"


def _on_a_node(commands: Sequence[str], config: PixiSlurmConfig) -> str:
    """The command to run commands on a node of the cluster: login nodes may be too small."""
    script = "\n".join(["set -e", *config.preamble, *commands])
    return f"srun {shlex.join(config.options())} bash -c {shlex.quote(script)}"
