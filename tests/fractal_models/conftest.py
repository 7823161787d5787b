"""One row of every table."""

from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.tables import (
    AccountingRecord,
    AccountingRecordSlurm,
    DatasetV2,
    HistoryImageCache,
    HistoryRun,
    HistoryUnit,
    JobV2,
    LinkUserGroup,
    LinkUserProjectV2,
    OAuthAccount,
    Profile,
    ProjectV2,
    Resource,
    TaskGroupActivityV2,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowTemplate,
    WorkflowV2,
)

Ids = dict[str, int]

# The columns of a job that have no default.
JOB = {
    "user_email": "me@example.org",
    "fractal_server_version": "2",
    "first_task_index": 0,
    "last_task_index": 0,
}


@pytest.fixture
async def ids(session: AsyncSession) -> Ids:
    """One row of every table, rolled back at the end of the test; their ids by table name."""
    ids: Ids = {}

    async def add(row: Any) -> int:
        session.add(row)
        await session.flush()
        if hasattr(row, "id"):
            ids[row.__tablename__] = saved_id(row)
        return ids.get(row.__tablename__, 0)

    resource = await add(
        Resource(
            type="local",
            name="here",
            jobs_local_dir="/j",
            jobs_poll_interval=5,
            tasks_local_dir="/t",
        )
    )
    profile = await add(Profile(resource_id=resource, resource_type="local", name="mine"))
    user = await add(UserOAuth(email="me@example.org", hashed_password="x", profile_id=profile))
    await add(
        OAuthAccount(
            user_id=user, oauth_name="o", access_token="t", account_id="1", account_email="e"
        )
    )
    group = await add(UserGroup(name="All"))
    await add(LinkUserGroup(user_id=user, group_id=group))
    project = await add(ProjectV2(name="p", resource_id=resource))
    await add(
        LinkUserProjectV2(
            project_id=project, user_id=user, is_owner=True, is_verified=True, permissions="rwx"
        )
    )
    dataset = await add(DatasetV2(name="d", project_id=project, zarr_dir="/z"))
    tasks = await add(
        TaskGroupV2(
            user_id=user, user_group_id=group, resource_id=resource, origin="pypi", pkg_name="pkg"
        )
    )
    task = await add(TaskV2(name="t", type="parallel", taskgroupv2_id=tasks))
    activity = {"pkg_name": "pkg", "version": "1", "status": "OK", "action": "collect"}
    await add(TaskGroupActivityV2(user_id=user, taskgroupv2_id=tasks, **activity))
    template = await add(
        WorkflowTemplate(
            user_id=user, user_group_id=group, name="w", version=1, fractal_server_version="2"
        )
    )
    workflow = await add(WorkflowV2(name="w", project_id=project, template_id=template))
    step = await add(WorkflowTaskV2(workflow_id=workflow, task_type="parallel", task_id=task))
    job = await add(JobV2(project_id=project, workflow_id=workflow, dataset_id=dataset, **JOB))
    run = await add(
        HistoryRun(
            dataset_id=dataset,
            workflowtask_id=step,
            job_id=job,
            task_id=task,
            status="done",
            num_available_images=1,
        )
    )
    unit = await add(HistoryUnit(history_run_id=run, status="done", zarr_urls=["/z/a"]))
    await add(
        HistoryImageCache(
            zarr_url="/z/a", dataset_id=dataset, workflowtask_id=step, latest_history_unit_id=unit
        )
    )
    await add(AccountingRecord(user_id=user, num_tasks=1, num_new_images=0))
    await add(
        AccountingRecordSlurm(
            user_id=user, slurm_job_ids=[1, 2], fractal_job_id=job, resource_id=resource
        )
    )
    return ids
