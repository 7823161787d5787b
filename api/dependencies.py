"""What endpoints are given: the session, the user, and what of theirs a request names.

Every right is checked here. What a user may not see answers 404, what they may see but not change
answers 403. A dependency's `<thing>_id` is a path or a query parameter, as the path has it. All are
coroutines: FastAPI sends plain functions to a thread, which costs more than they do.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import BEARER, COOKIE, UserManager, active_user
from api.errors import not_logged_in
from api.lifecycle import Lifecycle
from api.lookups import find
from api.oauth import OAuthProvider
from api.queries.task_groups import visible_to
from api.queries.users import default_group
from flows.engine.client import Engine
from fractal_models.errors import ForbiddenError, NotFoundError, RefusedError
from fractal_models.rights import (
    Right,
    dataset_in,
    project_with_right,
    require_no_guest,
    require_profile,
    require_verified,
    shared_with,
    workflow_in,
)
from fractal_models.settings import Settings
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    JobV2,
    LinkUserGroup,
    LinkUserProjectV2,
    Profile,
    ProjectV2,
    Resource,
    Schedule,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowTemplate,
    WorkflowV2,
)


@dataclass(frozen=True, slots=True)
class Services:
    """What the application opened at its start."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    engine: Engine
    oauth: OAuthProvider


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Services = Annotated[Services, Depends(_services)]


async def _settings(services: _Services) -> Settings:
    return services.settings


async def _engine(services: _Services) -> Engine:
    return services.engine.within(_SECONDS_FOR_PREFECT)


async def _spared_engine(services: _Services) -> Engine:
    return services.engine.within(_SECONDS_IF_SPARED)


async def _session(services: _Services) -> AsyncIterator[AsyncSession]:
    async with services.sessions() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(_settings)]
# Fractal's clients give up after 5 s. What a request can do without Prefect waits less for it: a
# worker makes up for it later.
_SECONDS_FOR_PREFECT, _SECONDS_IF_SPARED = 3.0, 1.2
EngineDep = Annotated[Engine, Depends(_engine)]
SparedEngineDep = Annotated[Engine, Depends(_spared_engine)]
# Closed before the answer is sent: a slow download holds no connection.
SessionDep = Annotated[AsyncSession, Depends(_session, scope="function")]


async def _oauth_provider(client_name: str, services: _Services) -> OAuthProvider:
    if client_name != services.oauth.name:
        raise NotFoundError("Login by", client_name)
    return services.oauth


OAuthProviderDep = Annotated[OAuthProvider, Depends(_oauth_provider)]


# --- users -------------------------------------------------------------------------------------


async def _user_manager(session: SessionDep, settings: SettingsDep) -> UserManager:
    return UserManager(session, settings)


UserManagerDep = Annotated[UserManager, Depends(_user_manager)]
_Token = Annotated[str | None, Depends(BEARER)]
_Cookie = Annotated[str | None, Depends(COOKIE)]


async def _current_user(
    token: _Token, cookie: _Cookie, users: UserManagerDep, settings: SettingsDep
) -> UserOAuth:
    user = await active_user(token or cookie, users, settings)
    if user is None:
        raise not_logged_in()
    return user


CurrentUser = Annotated[UserOAuth, Depends(_current_user)]


async def _superuser(user: CurrentUser) -> UserOAuth:
    if not user.is_superuser:
        raise ForbiddenError("Only administrators may do this.")
    return user


async def _verified_user(user: CurrentUser) -> UserOAuth:
    """Below `/api/v2/`, users are verified and have a profile."""
    require_verified(user)
    require_profile(user)
    return user


Superuser = Annotated[UserOAuth, Depends(_superuser)]
VerifiedUser = Annotated[UserOAuth, Depends(_verified_user)]


async def _contributor(user: VerifiedUser) -> UserOAuth:
    require_no_guest(user)
    return user


Contributor = Annotated[UserOAuth, Depends(_contributor)]


async def _resource_of_user(user: VerifiedUser, session: SessionDep) -> Resource:
    found = await session.exec(
        select(Resource)
        .join(Profile, col(Profile.resource_id) == col(Resource.id))
        .where(Profile.id == user.profile_id)
    )
    return found.one()


async def _lifecycle(session: SessionDep, engine: EngineDep, user: CurrentUser) -> Lifecycle:
    return Lifecycle(session, engine, user)


LifecycleDep = Annotated[Lifecycle, Depends(_lifecycle)]
UserResource = Annotated[Resource, Depends(_resource_of_user)]


async def _tasks_folder(
    user: VerifiedUser, resource: UserResource, session: SessionDep
) -> PurePosixPath:
    """Where the environments of the user's tasks go: on the cluster, if that is reached by SSH."""
    if resource.type != "slurm_ssh":
        return PurePosixPath(resource.tasks_local_dir, str(user.id))
    profile = await session.get_one(Profile, user.profile_id)
    return PurePosixPath(str(profile.tasks_remote_dir), str(user.id))


TasksFolder = Annotated[PurePosixPath, Depends(_tasks_folder)]


# --- projects and what is in them --------------------------------------------------------------


def _project(needed: Right) -> Callable[..., Awaitable[ProjectV2]]:
    async def project(project_id: int, user: VerifiedUser, session: SessionDep) -> ProjectV2:
        return await project_with_right(session, user, project_id, needed)

    return project


_readable, _writable, _executable = _project("r"), _project("w"), _project("x")
ReadableProject = Annotated[ProjectV2, Depends(_readable)]
WritableProject = Annotated[ProjectV2, Depends(_writable)]
ExecutableProject = Annotated[ProjectV2, Depends(_executable)]
OwnProject = Annotated[ProjectV2, Depends(_project("owner"))]

_ProjectDependency = Callable[..., Awaitable[ProjectV2]]


def _dataset(project_with_right: _ProjectDependency) -> Callable[..., Awaitable[DatasetV2]]:
    async def dataset_with_right(
        dataset_id: int,
        project: Annotated[ProjectV2, Depends(project_with_right)],
        session: SessionDep,
    ) -> DatasetV2:
        return await dataset_in(session, project, dataset_id)

    return dataset_with_right


ReadableDataset = Annotated[DatasetV2, Depends(_dataset(_readable))]
WritableDataset = Annotated[DatasetV2, Depends(_dataset(_writable))]
ExecutableDataset = Annotated[DatasetV2, Depends(_dataset(_executable))]


def _workflow(project_with_right: _ProjectDependency) -> Callable[..., Awaitable[WorkflowV2]]:
    async def workflow_with_right(
        workflow_id: int,
        project: Annotated[ProjectV2, Depends(project_with_right)],
        session: SessionDep,
    ) -> WorkflowV2:
        return await workflow_in(session, project, workflow_id)

    return workflow_with_right


_readable_workflow, _writable_workflow = _workflow(_readable), _workflow(_writable)
ReadableWorkflow = Annotated[WorkflowV2, Depends(_readable_workflow)]
WritableWorkflow = Annotated[WorkflowV2, Depends(_writable_workflow)]
ExecutableWorkflow = Annotated[WorkflowV2, Depends(_workflow(_executable))]


def _workflow_task(
    workflow_with_right: Callable[..., Awaitable[WorkflowV2]],
) -> Callable[..., Awaitable[WorkflowTaskV2]]:
    async def workflow_task_with_right(
        workflow_task_id: int, workflow: Annotated[WorkflowV2, Depends(workflow_with_right)]
    ) -> WorkflowTaskV2:
        for workflow_task in workflow.task_list:
            if workflow_task.id == workflow_task_id:
                return workflow_task
        raise NotFoundError("Workflow task", workflow_task_id)

    return workflow_task_with_right


ReadableWorkflowTask = Annotated[WorkflowTaskV2, Depends(_workflow_task(_readable_workflow))]
WritableWorkflowTask = Annotated[WorkflowTaskV2, Depends(_workflow_task(_writable_workflow))]


def _job(project_with_right: _ProjectDependency) -> Callable[..., Awaitable[JobV2]]:
    async def job_with_right(
        job_id: int,
        project: Annotated[ProjectV2, Depends(project_with_right)],
        session: SessionDep,
    ) -> JobV2:
        found = await session.exec(
            select(JobV2).where(JobV2.id == job_id, JobV2.project_id == project.id)
        )
        if (job := found.first()) is None:
            raise NotFoundError("Job", job_id)
        return job

    return job_with_right


ReadableJob = Annotated[JobV2, Depends(_job(_readable))]
ExecutableJob = Annotated[JobV2, Depends(_job(_executable))]


def _schedule(
    project_with_right: _ProjectDependency,
) -> Callable[..., Awaitable[Schedule]]:
    async def schedule_with_right(
        schedule_id: int,
        project: Annotated[ProjectV2, Depends(project_with_right)],
        session: SessionDep,
    ) -> Schedule:
        schedule = await session.get(Schedule, schedule_id)
        if schedule is None or schedule.project_id != project.id or not schedule.deployment_id:
            raise NotFoundError("Schedule", schedule_id)
        return schedule

    return schedule_with_right


ReadableSchedule = Annotated[Schedule, Depends(_schedule(_readable))]


async def _own_schedule(
    schedule: Annotated[Schedule, Depends(_schedule(_executable))],
    user: VerifiedUser,
    session: SessionDep,
) -> Schedule:
    """One that the user owns, or that is in a project which the user owns."""
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
    run = await session.get(HistoryRun, history_run_id)
    if run is None or (run.dataset_id, run.workflowtask_id) != (dataset.id, workflowtask_id):
        raise NotFoundError("History run", history_run_id)
    return run


ReadableHistoryRun = Annotated[HistoryRun, Depends(_history_run)]


# --- tasks -------------------------------------------------------------------------------------


async def _readable_task_group(
    task_group_id: int, user: VerifiedUser, session: SessionDep
) -> TaskGroupV2:
    found = await session.exec(
        select(TaskGroupV2).where(TaskGroupV2.id == task_group_id, visible_to(user))
    )
    if (group := found.first()) is None:
        raise NotFoundError("Task group", task_group_id)
    return group


ReadableTaskGroup = Annotated[TaskGroupV2, Depends(_readable_task_group)]


async def _own_task_group(group: ReadableTaskGroup, user: Contributor) -> TaskGroupV2:
    if group.user_id != user.id:
        raise ForbiddenError(f"Task group {group.id} belongs to another user.")
    return group


OwnTaskGroup = Annotated[TaskGroupV2, Depends(_own_task_group)]


async def _readable_task(task_id: int, user: VerifiedUser, session: SessionDep) -> TaskV2:
    found = await session.exec(
        select(TaskV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(TaskV2.id == task_id, visible_to(user))
    )
    if (task := found.first()) is None:
        raise NotFoundError("Task", task_id)
    return task


ReadableTask = Annotated[TaskV2, Depends(_readable_task)]


async def _own_task(task: ReadableTask, user: Contributor, session: SessionDep) -> TaskV2:
    group = await session.get_one(TaskGroupV2, task.taskgroupv2_id)
    if group.user_id != user.id:
        raise ForbiddenError(f"Task {task.id} belongs to another user.")
    return task


OwnTask = Annotated[TaskV2, Depends(_own_task)]


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
    await require_membership(session, user, user_group_id)
    return user_group_id


SharingGroup = Annotated[int | None, Depends(_sharing_group)]


async def _template_group(
    user: Contributor, session: SessionDep, user_group_id: int | None = None
) -> int | None:
    """The group with which a new template is shared: none, unless asked for."""
    if user_group_id is not None:
        await require_membership(session, user, user_group_id)
    return user_group_id


TemplateGroup = Annotated[int | None, Depends(_template_group)]


async def require_membership(session: AsyncSession, user: UserOAuth, group_id: int) -> None:
    """Tasks and templates are shared only with groups that one is in."""
    if await session.get(LinkUserGroup, (group_id, user.id)) is None:
        raise ForbiddenError(f"You are not in user group {group_id}.")


async def _readable_template(
    template_id: int, user: VerifiedUser, session: SessionDep
) -> WorkflowTemplate:
    found = await session.exec(
        select(WorkflowTemplate).where(
            WorkflowTemplate.id == template_id, shared_with(user, WorkflowTemplate)
        )
    )
    if (template := found.first()) is None:
        raise NotFoundError("Template", template_id)
    return template


ReadableTemplate = Annotated[WorkflowTemplate, Depends(_readable_template)]


async def _own_template(template: ReadableTemplate, user: Contributor) -> WorkflowTemplate:
    if template.user_id != user.id:
        raise ForbiddenError(f"Template {template.id} belongs to another user.")
    return template


OwnTemplate = Annotated[WorkflowTemplate, Depends(_own_template)]


# --- for administrators ------------------------------------------------------------------------


async def _any_task_group(task_group_id: int, _: Superuser, session: SessionDep) -> TaskGroupV2:
    return await find(session, TaskGroupV2, task_group_id)


AnyTaskGroup = Annotated[TaskGroupV2, Depends(_any_task_group)]
