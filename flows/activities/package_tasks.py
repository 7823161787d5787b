"""The tasks of a package, as described by its manifest."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from pydantic import ValidationError

from fractal_models.errors import RefusedError
from fractal_models.exact_json import JsonError, loads
from fractal_models.schemas.manifest import Manifest, TaskManifest
from fractal_models.schemas.task import task_type_of
from fractal_models.tables import TaskV2

MANIFEST = "__FRACTAL_MANIFEST__.json"


class PackageError(RefusedError):
    """A package cannot be used for Fractal tasks; the message says why."""


def read_manifest(text: str, path: str) -> Manifest:
    """Read a manifest; `path` is named in errors.

    Raises:
        PackageError: the text is not a valid manifest.
    """
    try:
        return Manifest.model_validate(loads(text))
    except JsonError as error:
        raise PackageError(f"The manifest {path} is invalid: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise PackageError(f"The manifest {path} is invalid: {problems}") from None


def executables_of(manifest: Manifest, root: PurePosixPath) -> list[str]:
    """The files that the tasks of a manifest execute; `root` is the package's folder."""
    return [
        str(root / executable)
        for task in manifest.task_list
        for executable in (task.executable_non_parallel, task.executable_parallel)
        if executable is not None
    ]


def tasks_of(
    manifest: Manifest, python: str, root: PurePosixPath, version: str, *, files: Collection[str]
) -> list[TaskV2]:
    """The tasks of a manifest, with commands for this interpreter and package folder.

    `files` are those files of `executables_of` that exist.

    Raises:
        PackageError: the executable of a task does not exist.
    """
    return [_task(manifest, entry, python, root, version, files) for entry in manifest.task_list]


def renew_commands(tasks: Sequence[TaskV2], found: Sequence[TaskV2]) -> None:
    """Replace the commands of tasks by those of the tasks with the same names in `found`.

    Raises:
        PackageError: a task is not in `found`, or has another type there.
    """
    by_name = {task.name: task for task in found}
    for task in tasks:
        now = by_name.get(task.name)
        if now is None or now.type != task.type:
            raise PackageError(
                f"The package has no {task.type} task {task.name!r} any more: collect it as a new "
                "version."
            )
        task.command_non_parallel = now.command_non_parallel
        task.command_parallel = now.command_parallel


def _task(
    manifest: Manifest,
    entry: TaskManifest,
    python: str,
    root: PurePosixPath,
    version: str,
    files: Collection[str],
) -> TaskV2:
    def command(executable: str | None) -> str | None:
        if executable is None:
            return None
        path = str(root / executable)
        if path not in files:
            raise PackageError(f"The executable {path} of task {entry.name!r} does not exist.")
        return shlex.join([python, path])

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
