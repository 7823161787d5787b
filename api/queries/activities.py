"""Activities of task groups: what is written of those that begin."""

from typing import Literal

from fractal_models.tables import TaskGroupActivityV2, TaskGroupV2

Action = Literal["collect", "deactivate", "reactivate"]


def new_activity(group: TaskGroupV2, user_id: int, action: Action) -> TaskGroupActivityV2:
    """An activity that is about to begin."""
    return TaskGroupActivityV2(
        user_id=user_id,
        taskgroupv2_id=group.id,
        pkg_name=group.pkg_name,
        version=str(group.version),
        status="pending",
        action=action,
    )
