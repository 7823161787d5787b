"""The endpoints, one subject per file. Each is a signature, a lookup, a check and a return."""

from fastapi import APIRouter

from api.routes import (
    activation,
    alive,
    collection,
    current_user,
    datasets,
    groups,
    images,
    jobs,
    login,
    profiles,
    projects,
    resources,
    schedules,
    settings,
    status,
    task_groups,
    tasks,
    users,
    workflow_tasks,
    workflows,
)

ROUTERS: list[APIRouter] = [
    alive.router,
    settings.router,
    login.router,
    current_user.router,
    users.router,
    groups.router,
    resources.router,
    profiles.router,
    projects.router,
    datasets.router,
    images.router,
    workflows.router,
    workflow_tasks.router,
    jobs.router,
    schedules.router,
    status.router,
    collection.router,
    activation.router,
    tasks.router,
    task_groups.router,
]
