"""The flow `reset-tasks`: makes the environment of a task group anew, with other choices."""

from functools import partial

from flows.activities.activity import activity_flow, execute
from flows.activities.collect import recorded, told
from flows.activities.environment import TaskEnvironment
from flows.activities.package_tasks import renew_commands
from fractal_models.schemas.task import TaskGroupOverridesPip


@activity_flow("reset-tasks")
async def reset_tasks(
    activity_id: int,
    overrides: TaskGroupOverridesPip | None = None,
    use_pixi_lockfile: bool = False,
) -> None:
    """Install the package of an inactive task group anew, and activate the group.

    The tasks stay the same, but get the commands of the new installation.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `reset`.
        overrides: what is installed otherwise than before; nothing of a pixi project.
        use_pixi_lockfile: install the versions of the lock file of a pixi project.
    """
    await execute(
        activity_id, partial(_reset, overrides=overrides, use_lock_file=use_pixi_lockfile)
    )


async def _reset(
    environment: TaskEnvironment, *, overrides: TaskGroupOverridesPip | None, use_lock_file: bool
) -> list[str]:
    group = environment.group
    if overrides is not None:
        group.sqlmodel_update(overrides.changes())
    log = await environment.make(use_lock_file=use_lock_file)
    renew_commands(group.task_list, await recorded(environment))
    group.active = True
    return [*log, *told(group)]
