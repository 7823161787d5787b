"""The flow `collect-tasks`: installs a task package and reads its tasks from its manifest."""

from functools import partial
from pathlib import PurePosixPath

from flows.activities.activity import activity_flow, execute
from flows.activities.environment import TaskEnvironment
from flows.activities.package_tasks import (
    MANIFEST,
    PackageError,
    executables_of,
    read_manifest,
    tasks_of,
)
from fractal_models.tables import TaskGroupV2, TaskV2


@activity_flow("collect-tasks")
async def collect_tasks(activity_id: int, use_pixi_lockfile: bool = True) -> None:
    """Make the environment of a task group, install its package, add its tasks, activate it.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `collect`.
        use_pixi_lockfile: install the versions of the lock file of a pixi project.
    """
    await execute(activity_id, partial(_collect, use_lock_file=use_pixi_lockfile))


async def _collect(environment: TaskEnvironment, *, use_lock_file: bool) -> list[str]:
    log = await environment.make(use_lock_file=use_lock_file)
    environment.group.task_list = await recorded(environment)
    environment.group.active = True
    return [*log, *told(environment.group)]


async def recorded(environment: TaskEnvironment) -> list[TaskV2]:
    """Record what a finished environment contains. Returns the tasks of its package.

    Raises:
        PackageError: the package does not describe its tasks, or lacks their files.
    """
    group = environment.group
    group.env_info = await environment.freeze()
    contents = await environment.contents()
    group.venv_size_in_kB, group.venv_file_number = contents.size_kb, contents.file_number
    if contents.manifest is None:
        raise PackageError(
            f"{group.pkg_name} has no {MANIFEST}: it is not a package of Fractal tasks."
        )
    manifest = read_manifest(contents.text, contents.manifest)
    root = PurePosixPath(contents.manifest).parent
    files = await environment.site.existing(executables_of(manifest, root))
    return tasks_of(manifest, environment.python, root, str(group.version), files=files)


def told(group: TaskGroupV2) -> list[str]:
    """The installed versions, for the log.

    Empty for pixi: its lock file is too long, and has the versions for all platforms.
    """
    return [] if group.origin == "pixi" else [str(group.env_info)]
