"""The flows `deactivate-tasks` and `reactivate-tasks`: remove environments, and make them again."""

from flows.activities.activity import activity_flow, execute
from flows.activities.environment import TaskEnvironment


@activity_flow("deactivate-tasks")
async def deactivate_tasks(activity_id: int) -> None:
    """Remove the environment of a task group that is already inactive.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `deactivate`.
    """
    await execute(activity_id, _deactivate)


@activity_flow("reactivate-tasks")
async def reactivate_tasks(activity_id: int) -> None:
    """Make the environment of a task group again, and activate it. Its tasks are as they were.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `reactivate`.
    """
    await execute(activity_id, _reactivate)


async def _deactivate(environment: TaskEnvironment) -> list[str]:
    group = environment.group
    await environment.remove()
    return [
        f"{group.venv_path} is removed, with {group.venv_file_number} files of "
        f"{group.venv_size_in_kB} KiB."
    ]


async def _reactivate(environment: TaskEnvironment) -> list[str]:
    log = await environment.make_again()
    environment.group.active = True
    return log
