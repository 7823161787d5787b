"""The flow `delete-tasks`: deletes a task group, and its folder where its tasks ran."""

from flows.activities.activity import activity_flow, execute
from flows.activities.environment import TaskEnvironment


@activity_flow("delete-tasks")
async def delete_tasks(activity_id: int) -> None:
    """Remove the folder of a task group that is already inactive, then the task group itself.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `delete`.
    """
    await execute(activity_id, _delete)


async def _delete(environment: TaskEnvironment) -> list[str]:
    folder = environment.group.path
    if folder is None:
        return ["It had no folder."]
    await environment.site.remove(folder)
    return [f"{folder} is removed."]
