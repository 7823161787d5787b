"""The flow `collect-tasks`: installs a task package and reads its tasks from its manifest."""

from pathlib import PurePosixPath

from flows.activities.activity import activity_flow, execute
from flows.activities.commands import venv_python
from flows.activities.environment import Contents, TaskEnvironment
from flows.activities.package_tasks import (
    MANIFEST,
    PackageError,
    executables_of,
    read_manifest,
    tasks_of,
)
from fractal_models.tables import TaskV2


@activity_flow("collect-tasks")
async def collect_tasks(activity_id: int) -> None:
    """Make the environment of a task group, install its package, add its tasks, activate it.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `collect`.
    """
    await execute(activity_id, _collect)


async def _collect(environment: TaskEnvironment) -> list[str]:
    group = environment.group
    log = await environment.make()
    group.env_info = await environment.freeze()
    contents = await environment.contents()
    group.venv_size_in_kB, group.venv_file_number = contents.size_kb, contents.file_number
    group.task_list = await _tasks_in(contents, environment)
    group.active = True
    return [*log, group.env_info]


async def _tasks_in(contents: Contents, environment: TaskEnvironment) -> list[TaskV2]:
    group = environment.group
    if contents.manifest is None:
        raise PackageError(
            f"{group.pkg_name} has no {MANIFEST}: it is not a package of Fractal tasks."
        )
    manifest = read_manifest(contents.text, contents.manifest)
    root = PurePosixPath(contents.manifest).parent
    files = await environment.site.existing(executables_of(manifest, root))
    return tasks_of(manifest, venv_python(group), root, str(group.version), files=files)
