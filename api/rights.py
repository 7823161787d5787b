"""Rights: what a request names, each with what the user may do with it in its type.

An endpoint that asks for a `WritableProject` is only called if the path names a project in which
the user may write. What a user may not see answers 404, what they may see but not change answers
403. A dependency's `<thing>_id` is a path or a query parameter, as the path has it. All are
coroutines: FastAPI sends plain functions to a thread, which costs more than they do. Those that
others need are made once for each right, as FastAPI calls the same function once per request.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import Depends, Path
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.services import Contributor, SessionDep, SettingsDep, Superuser, VerifiedUser
from flows.activities.new_groups import Owner
from fractal_models import rights
from fractal_models.errors import ForbiddenError, NotFoundError, RefusedError
from fractal_models.groups import default_group
from fractal_models.rights import Right, Row, find
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    JobV2,
    LinkUserProjectV2,
    Profile,
    ProjectV2,
    Resource,
    Schedule,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowTemplate,
    WorkflowV2,
)

# --- projects and what is in them --------------------------------------------------------------


@cache
def _project(needed: Right) -> Callable[..., Awaitable[ProjectV2]]:
    async def project(project_id: int, user: VerifiedUser, session: SessionDep) -> ProjectV2:
        return await rights.project_with_right(session, user, project_id, needed)

    return project


ReadableProject = Annotated[ProjectV2, Depends(_project("r"))]
WritableProject = Annotated[ProjectV2, Depends(_project("w"))]
ExecutableProject = Annotated[ProjectV2, Depends(_project("x"))]
OwnProject = Annotated[ProjectV2, Depends(_project("owner"))]


def _dataset(needed: Right) -> Callable[..., Awaitable[DatasetV2]]:
    async def dataset(
        dataset_id: int,
        project: Annotated[ProjectV2, Depends(_project(needed))],
        session: SessionDep,
    ) -> DatasetV2:
        return await rights.dataset_in(session, project, dataset_id)

    return dataset


ReadableDataset = Annotated[DatasetV2, Depends(_dataset("r"))]
WritableDataset = Annotated[DatasetV2, Depends(_dataset("w"))]
ExecutableDataset = Annotated[DatasetV2, Depends(_dataset("x"))]


@cache
def _workflow(needed: Right) -> Callable[..., Awaitable[WorkflowV2]]:
    async def workflow(
        workflow_id: int,
        project: Annotated[ProjectV2, Depends(_project(needed))],
        session: SessionDep,
    ) -> WorkflowV2:
        return await rights.workflow_in(session, project, workflow_id)

    return workflow


ReadableWorkflow = Annotated[WorkflowV2, Depends(_workflow("r"))]
WritableWorkflow = Annotated[WorkflowV2, Depends(_workflow("w"))]
ExecutableWorkflow = Annotated[WorkflowV2, Depends(_workflow("x"))]


def _workflow_task(needed: Right) -> Callable[..., Awaitable[WorkflowTaskV2]]:
    async def workflow_task(
        workflow_task_id: int, workflow: Annotated[WorkflowV2, Depends(_workflow(needed))]
    ) -> WorkflowTaskV2:
        for workflow_task in workflow.task_list:
            if workflow_task.id == workflow_task_id:
                return workflow_task
        raise NotFoundError("Workflow task", workflow_task_id)

    return workflow_task


ReadableWorkflowTask = Annotated[WorkflowTaskV2, Depends(_workflow_task("r"))]
WritableWorkflowTask = Annotated[WorkflowTaskV2, Depends(_workflow_task("w"))]


def _job(needed: Right) -> Callable[..., Awaitable[JobV2]]:
    async def job(
        job_id: int, project: Annotated[ProjectV2, Depends(_project(needed))], session: SessionDep
    ) -> JobV2:
        return await find(session, JobV2, job_id, JobV2.project_id == project.id)

    return job


ReadableJob = Annotated[JobV2, Depends(_job("r"))]
ExecutableJob = Annotated[JobV2, Depends(_job("x"))]


async def _schedule_in(session: AsyncSession, project: ProjectV2, schedule_id: int) -> Schedule:
    """One whose making has come to its end."""
    is_made = col(Schedule.deployment_id).is_not(None)
    return await find(session, Schedule, schedule_id, Schedule.project_id == project.id, is_made)


async def _readable_schedule(
    schedule_id: int, project: ReadableProject, session: SessionDep
) -> Schedule:
    return await _schedule_in(session, project, schedule_id)


ReadableSchedule = Annotated[Schedule, Depends(_readable_schedule)]


async def _own_schedule(
    schedule_id: int, project: ExecutableProject, user: VerifiedUser, session: SessionDep
) -> Schedule:
    """One that the user owns, or that is in a project which the user owns."""
    schedule = await _schedule_in(session, project, schedule_id)
    if schedule.user_id != user.id:
        link = await session.get_one(LinkUserProjectV2, (schedule.project_id, user.id))
        if not link.is_owner:
            raise ForbiddenError(
                f"Schedule {schedule.id} belongs to another user: only they and the owner of the "
                "project may change it."
            )
    return schedule


OwnSchedule = Annotated[Schedule, Depends(_own_schedule)]


async def _workflowtask_of_history(
    workflowtask_id: int, project: ReadableProject, session: SessionDep
) -> int:
    found = await session.exec(
        select(WorkflowTaskV2.id)
        .join(WorkflowV2, col(WorkflowV2.id) == col(WorkflowTaskV2.workflow_id))
        .where(WorkflowTaskV2.id == workflowtask_id, WorkflowV2.project_id == project.id)
    )
    if found.first() is None:
        raise NotFoundError("Workflow task", workflowtask_id)
    return workflowtask_id


ReadableWorkflowTaskId = Annotated[int, Depends(_workflowtask_of_history)]


async def _history_run(
    history_run_id: int,
    dataset: ReadableDataset,
    workflowtask_id: ReadableWorkflowTaskId,
    session: SessionDep,
) -> HistoryRun:
    of_dataset = HistoryRun.dataset_id == dataset.id
    of_task = HistoryRun.workflowtask_id == workflowtask_id
    return await find(session, HistoryRun, history_run_id, of_dataset, of_task)


ReadableHistoryRun = Annotated[HistoryRun, Depends(_history_run)]


# --- tasks and templates -----------------------------------------------------------------------


async def _readable_task_group(
    task_group_id: int, user: VerifiedUser, session: SessionDep
) -> TaskGroupV2:
    return await find(session, TaskGroupV2, task_group_id, rights.visible_to(user))


ReadableTaskGroup = Annotated[TaskGroupV2, Depends(_readable_task_group)]


async def own_task_group(group: ReadableTaskGroup, user: Contributor) -> TaskGroupV2:
    rights.require_owner(group, user)
    return group


OwnTaskGroup = Annotated[TaskGroupV2, Depends(own_task_group)]


async def _readable_task(task_id: int, user: VerifiedUser, session: SessionDep) -> TaskV2:
    groups = select(TaskGroupV2.id).where(rights.visible_to(user))
    return await find(session, TaskV2, task_id, col(TaskV2.taskgroupv2_id).in_(groups))


ReadableTask = Annotated[TaskV2, Depends(_readable_task)]


async def _own_task(task: ReadableTask, user: Contributor, session: SessionDep) -> TaskV2:
    group = await session.get_one(TaskGroupV2, task.taskgroupv2_id)
    if group.user_id != user.id:
        raise ForbiddenError(f"Task {task.id} belongs to another user.")
    return task


OwnTask = Annotated[TaskV2, Depends(_own_task)]


async def _readable_template(
    template_id: int, user: VerifiedUser, session: SessionDep
) -> WorkflowTemplate:
    is_shared = rights.shared_with(user, WorkflowTemplate)
    return await find(session, WorkflowTemplate, template_id, is_shared)


ReadableTemplate = Annotated[WorkflowTemplate, Depends(_readable_template)]


async def _own_template(template: ReadableTemplate, user: Contributor) -> WorkflowTemplate:
    rights.require_owner(template, user)
    return template


OwnTemplate = Annotated[WorkflowTemplate, Depends(_own_template)]


# --- what administrators name in a path ---------------------------------------------------------


def _any(table: type[Row], parameter: str) -> Callable[..., Awaitable[Row]]:
    """The row whose id is a parameter of the path."""

    async def row(
        row_id: Annotated[int, Path(alias=parameter)], _: Superuser, session: SessionDep
    ) -> Row:
        return await find(session, table, row_id)

    return row


any_task_group = _any(TaskGroupV2, "task_group_id")
AnyTaskGroup = Annotated[TaskGroupV2, Depends(any_task_group)]
AnyJob = Annotated[JobV2, Depends(_any(JobV2, "job_id"))]
AnyResource = Annotated[Resource, Depends(_any(Resource, "resource_id"))]
AnyProfile = Annotated[Profile, Depends(_any(Profile, "profile_id"))]
AnyUser = Annotated[UserOAuth, Depends(_any(UserOAuth, "user_id"))]
AnyGroup = Annotated[UserGroup, Depends(_any(UserGroup, "group_id"))]
AnyProject = Annotated[ProjectV2, Depends(_any(ProjectV2, "project_id"))]


# --- whose something new will be ---------------------------------------------------------------


async def _resource_of_user(user: VerifiedUser, session: SessionDep) -> Resource:
    found = await session.exec(
        select(Resource)
        .join(Profile, col(Profile.resource_id) == col(Resource.id))
        .where(Profile.id == user.profile_id)
    )
    return found.one()


UserResource = Annotated[Resource, Depends(_resource_of_user)]


async def _sharing_group(
    user: Contributor,
    session: SessionDep,
    settings: SettingsDep,
    private: bool = False,
    user_group_id: int | None = None,
) -> int | None:
    """The group with which new tasks are shared: none, the one asked for, or the default one."""
    if private and user_group_id is not None:
        raise RefusedError("Give either private=true or a user_group_id.")
    if private:
        return None
    if user_group_id is None:
        return (await default_group(session, settings.default_group)).id
    await rights.require_membership(session, user, user_group_id)
    return user_group_id


async def _new_owner(
    user: Contributor,
    resource: UserResource,
    user_group_id: Annotated[int | None, Depends(_sharing_group)],
    session: SessionDep,
) -> Owner:
    """Whose new tasks are. Their environments are on the cluster, if that is reached by SSH."""
    tasks_dir = resource.tasks_local_dir
    if resource.type == "slurm_ssh":
        profile = await session.get_one(Profile, user.profile_id)
        tasks_dir = str(profile.tasks_remote_dir)
    return Owner(user, user_group_id, resource, PurePosixPath(tasks_dir, str(user.id)))


NewOwner = Annotated[Owner, Depends(_new_owner)]


async def _template_group(
    user: Contributor, session: SessionDep, user_group_id: int | None = None
) -> int | None:
    """The group with which a new template is shared: none, unless asked for."""
    if user_group_id is not None:
        await rights.require_membership(session, user, user_group_id)
    return user_group_id


TemplateGroup = Annotated[int | None, Depends(_template_group)]
