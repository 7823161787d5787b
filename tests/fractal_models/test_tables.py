"""The tables: what PostgreSQL itself enforces, fills in and deletes."""

from typing import Any

import pytest
from sqlalchemy import CursorResult, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.tables import (
    JobV2,
    LinkUserProjectV2,
    ProjectV2,
    TaskGroupV2,
    UserOAuth,
    WorkflowTaskV2,
)
from tests.fractal_models.conftest import JOB, Ids


async def execute(session: AsyncSession, statement: str) -> CursorResult[Any]:
    return await (await session.connection()).execute(text(statement))


async def count(session: AsyncSession, table: str, where: str = "true") -> int:
    result = await execute(session, f"SELECT count(*) FROM {table} WHERE {where}")
    return int(result.scalar_one())


def test_the_tables_have_the_names_of_fractal() -> None:
    beyond_fractal = {"datasetimage", "facetblock", "imagefacet", "schedule"}
    beyond_fractal |= {"allocation", "signoflife", "tally"}
    assert sorted(SQLModel.metadata.tables.keys() - beyond_fractal) == [
        "accountingrecord",
        "accountingrecordslurm",
        "datasetv2",
        "eventoutbox",
        "historyimagecache",
        "historyrun",
        "historyunit",
        "jobv2",
        "linkusergroup",
        "linkuserprojectv2",
        "oauthaccount",
        "profile",
        "projectv2",
        "resource",
        "taskgroupactivityv2",
        "taskgroupv2",
        "taskv2",
        "user_oauth",
        "usergroup",
        "workflowtaskv2",
        "workflowtemplate",
        "workflowv2",
    ]


# Each case is a statement that PostgreSQL must refuse, and the constraint by which it does.
REFUSED = [
    ("UPDATE resource SET type = 'cloud'", "correct_type"),
    ("UPDATE resource SET type = 'slurm_sudo'", "jobs_slurm_python_worker_set"),
    ("UPDATE resource SET type = 'slurm_ssh'", "jobs_slurm_python_worker_set"),
    (
        "INSERT INTO resource (type, name, work_pool, timestamp_created, jobs_local_dir,"
        " jobs_poll_interval, tasks_local_dir)"
        " SELECT type, name, 'x', now(), '/j', 5, '/t' FROM resource",
        "resource_name_key",
    ),
    (
        "INSERT INTO resource (type, name, work_pool, timestamp_created, jobs_local_dir,"
        " jobs_poll_interval, tasks_local_dir)"
        " SELECT type, 'x', work_pool, now(), '/j', 5, '/t' FROM resource",
        "resource_work_pool_key",
    ),
    (
        "INSERT INTO profile (resource_id, resource_type, name) SELECT resource_id, 'local', name"
        " FROM profile",
        "profile_name_key",
    ),
    ("UPDATE user_oauth SET is_superuser = true, is_guest = true", "superuser_is_not_guest"),
    (
        "INSERT INTO user_oauth (email, hashed_password) SELECT email, 'y' FROM user_oauth",
        "ix_user_oauth_email",
    ),
    (
        "INSERT INTO usergroup (name, timestamp_created) VALUES ('All', now())",
        "usergroup_name_key",
    ),
    ("UPDATE linkuserprojectv2 SET is_owner = false, permissions = 'rx'", "valid_permissions"),
    ("UPDATE linkuserprojectv2 SET permissions = 'rw'", "owner_full_permissions"),
    ("UPDATE linkuserprojectv2 SET is_verified = false", "owner_is_verified"),
    (
        "WITH other AS (INSERT INTO user_oauth (email, hashed_password) VALUES ('b@x.org', 'y')"
        " RETURNING id) INSERT INTO linkuserprojectv2 SELECT project_id, other.id, true, true,"
        " 'rwx' FROM linkuserprojectv2, other",
        "ix_linkuserprojectv2_one_owner_per_project",
    ),
    ("UPDATE jobv2 SET status = 'running'", "correct_job_status"),
    ("UPDATE historyrun SET status = 'running'", "correct_run_status"),
    ("UPDATE historyunit SET status = 'skipped'", "correct_unit_status"),
    ("UPDATE taskgroupv2 SET origin = 'conda'", "correct_origin"),
    ("UPDATE taskgroupactivityv2 SET status = 'done'", "correct_activity_status"),
    ("UPDATE taskgroupactivityv2 SET action = 'install'", "correct_action"),
    (
        "INSERT INTO jobv2 (dataset_id, user_email, fractal_server_version, first_task_index,"
        " last_task_index, start_timestamp, status) SELECT dataset_id, 'e', '2', 0, 0, now(),"
        " 'submitted' FROM jobv2",
        "ix_jobv2_one_submitted_job_per_dataset",
    ),
    (
        "INSERT INTO jobv2 (user_email, fractal_server_version, first_task_index, last_task_index,"
        " start_timestamp, status, flow_run_id) SELECT 'e', '2', 0, 0, now(), 'done', id FROM"
        " (SELECT gen_random_uuid() AS id), (VALUES (1), (2))",
        "jobv2_flow_run_id_key",
    ),
    (
        "INSERT INTO workflowtemplate (user_id, name, version, timestamp_created,"
        " timestamp_last_used, fractal_server_version) SELECT user_id, name, version, now(),"
        " now(), '2' FROM workflowtemplate",
        "uq_workflowtemplate_version",
    ),
    ("INSERT INTO historyimagecache SELECT * FROM historyimagecache", "historyimagecache_pkey"),
    ("INSERT INTO linkusergroup SELECT * FROM linkusergroup", "linkusergroup_pkey"),
    # What others need cannot be deleted.
    ("DELETE FROM resource", "resource_id_fkey"),
    ("DELETE FROM profile", "user_oauth_profile_id_fkey"),
    ("DELETE FROM taskv2", "workflowtaskv2_task_id_fkey"),
    ("DELETE FROM jobv2", "job_id_fkey"),
    ("DELETE FROM user_oauth", "user_id_fkey"),
    # Nulls where a value is needed.
    ("UPDATE datasetv2 SET history = NULL", "not-null"),
    ("UPDATE historyunit SET zarr_urls = NULL", "not-null"),
    ("UPDATE jobv2 SET workflow_dump = NULL", "not-null"),
    ("UPDATE taskgroupv2 SET resource_id = NULL", "not-null"),
    ("UPDATE projectv2 SET resource_id = NULL", "not-null"),
]


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize(("statement", "constraint"), REFUSED)
async def test_postgresql_refuses(session: AsyncSession, statement: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        await execute(session, statement)


async def test_a_dataset_may_have_many_jobs_of_which_one_is_submitted(
    session: AsyncSession, ids: Ids
) -> None:
    for status in ("done", "failed", "done"):
        session.add(JobV2(dataset_id=ids["datasetv2"], status=status, **JOB))
    # Jobs whose dataset is gone do not stand in each other's way.
    session.add_all([JobV2(status="submitted", **JOB), JobV2(status="submitted", **JOB)])
    await session.flush()
    assert await count(session, "jobv2", f"dataset_id = {ids['datasetv2']}") == 4


@pytest.mark.parametrize("permissions", ["r", "rw", "rwx"])
async def test_a_project_may_have_guests(session: AsyncSession, ids: Ids, permissions: str) -> None:
    guest = UserOAuth(email="guest@example.org", hashed_password="x")
    session.add(guest)
    await session.flush()
    session.add(
        LinkUserProjectV2(
            project_id=ids["projectv2"],
            user_id=saved_id(guest),
            is_owner=False,
            is_verified=False,
            permissions=permissions,
        )
    )
    await session.flush()
    project = await session.get_one(ProjectV2, ids["projectv2"])
    await session.refresh(project, ["users"])
    assert {user.email for user in project.users} == {"me@example.org", "guest@example.org"}


# What is deleted, and what is left of other tables: rows and, where given, rows with a null.
DELETED: list[tuple[str, list[str], list[str]]] = [
    (
        "DELETE FROM projectv2",
        [
            "linkuserprojectv2",
            "datasetv2",
            "workflowv2",
            "workflowtaskv2",
            "historyrun",
            "historyunit",
            "historyimagecache",
        ],
        ["jobv2.project_id", "jobv2.workflow_id", "jobv2.dataset_id"],
    ),
    (
        "DELETE FROM datasetv2",
        ["historyrun", "historyunit", "historyimagecache"],
        ["jobv2.dataset_id"],
    ),
    (
        "DELETE FROM workflowv2",
        ["workflowtaskv2", "historyimagecache"],
        ["jobv2.workflow_id", "historyrun.workflowtask_id"],
    ),
    ("DELETE FROM workflowtaskv2", ["historyimagecache"], ["historyrun.workflowtask_id"]),
    ("DELETE FROM historyrun", ["historyunit", "historyimagecache"], []),
    ("DELETE FROM historyunit", ["historyimagecache"], []),
    (
        "DELETE FROM workflowtaskv2; DELETE FROM taskgroupv2",
        ["taskv2"],
        ["historyrun.task_id", "taskgroupactivityv2.taskgroupv2_id"],
    ),
    (
        "DELETE FROM usergroup",
        ["linkusergroup"],
        ["taskgroupv2.user_group_id", "workflowtemplate.user_group_id"],
    ),
    ("DELETE FROM workflowtemplate", [], ["workflowv2.template_id"]),
    (
        "DELETE FROM projectv2; DELETE FROM taskgroupv2; UPDATE user_oauth SET profile_id = NULL;"
        " DELETE FROM profile; DELETE FROM resource",
        [],
        ["accountingrecordslurm.resource_id"],
    ),
]


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize(("statements", "emptied", "nulled"), DELETED)
async def test_deleting(
    session: AsyncSession, statements: str, emptied: list[str], nulled: list[str]
) -> None:
    for statement in statements.split(";"):
        await execute(session, statement)
    assert {table: await count(session, table) for table in emptied} == dict.fromkeys(emptied, 0)
    for column in nulled:
        assert await count(session, column.split(".")[0], f"{column} IS NULL") == 1, column


# What a row has that names only the columns without a default.
DEFAULTS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "datasetv2",
        "(name, project_id, timestamp_created, zarr_dir) SELECT 'n', id, now(), '/z'"
        " FROM projectv2",
        {"history": [], "is_starred": False},
    ),
    (
        "projectv2",
        "(name, resource_id, timestamp_created) SELECT 'n', id, now() FROM resource",
        {"is_starred": False, "description": None},
    ),
    (
        "workflowv2",
        "(name, project_id, timestamp_created) SELECT 'n', id, now() FROM projectv2",
        {"is_starred": False, "description": None, "template_id": None},
    ),
    (
        "workflowtaskv2",
        "(workflow_id, task_type, task_id) SELECT w.id, 'parallel', t.id"
        " FROM workflowv2 w, taskv2 t",
        {"type_filters": {}, "order": None, "args_parallel": None, "meta_non_parallel": None},
    ),
    (
        "jobv2",
        "(user_email, fractal_server_version, first_task_index, last_task_index, start_timestamp,"
        " status) VALUES ('e', '2', 0, 0, now(), 'done')",
        {
            "dataset_dump": {},
            "workflow_dump": {},
            "project_dump": {},
            "attribute_filters": {},
            "type_filters": {},
            "restarts": 0,
            "flow_run_id": None,
            "end_timestamp": None,
        },
    ),
    (
        "historyrun",
        "(dataset_id, job_id, timestamp_started, status, num_available_images)"
        " SELECT d.id, j.id, now(), 'submitted', 0 FROM datasetv2 d, jobv2 j",
        {"workflowtask_dump": {}, "task_group_dump": None, "workflowtask_id": None},
    ),
    (
        "historyunit",
        "(history_run_id, status) SELECT id, 'submitted' FROM historyrun",
        {"zarr_urls": [], "has_warnings": False, "attempt": 1, "exit_code": None},
    ),
    (
        "resource",
        "(type, name, work_pool, timestamp_created, jobs_local_dir, jobs_poll_interval,"
        " tasks_local_dir)"
        " VALUES ('local', 'n', 'n', now(), '/j', 5, '/t')",
        {
            "prevent_new_submissions": False,
            "jobs_runner_config": {},
            "tasks_python_config": {},
            "tasks_pixi_config": {},
            "host": None,
        },
    ),
    (
        "taskgroupv2",
        "(user_id, resource_id, origin, pkg_name, timestamp_created, timestamp_last_used)"
        " SELECT u.id, r.id, 'other', 'n', now(), now() FROM user_oauth u, resource r",
        {
            "active": True,
            "pinned_package_versions_pre": {},
            "pinned_package_versions_post": {},
            "version": None,
            "venv_size_in_kB": None,
        },
    ),
    (
        "taskv2",
        "(name, type, taskgroupv2_id) SELECT 'n', 'parallel', id FROM taskgroupv2",
        {
            "meta_parallel": {},
            "meta_non_parallel": {},
            "input_types": {},
            "output_types": {},
            "tags": [],
            "is_core": False,
            "args_schema_parallel": None,
        },
    ),
    (
        "user_oauth",
        "(email, hashed_password) VALUES ('n@example.org', 'x')",
        {
            "is_active": True,
            "is_superuser": False,
            "is_verified": False,
            "is_guest": False,
            "project_dirs": [],
            "slurm_accounts": [],
            "profile_id": None,
        },
    ),
]


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize(("table", "insert", "defaults"), DEFAULTS)
async def test_postgresql_fills_in(
    session: AsyncSession, table: str, insert: str, defaults: dict[str, Any]
) -> None:
    result = await execute(session, f"INSERT INTO {table} {insert} RETURNING *")
    row = result.mappings().one()
    assert {name: row[name] for name in defaults} == defaults


async def test_none_is_stored_as_null_and_not_as_json(session: AsyncSession, ids: Ids) -> None:
    step = await session.get_one(WorkflowTaskV2, ids["workflowtaskv2"])
    step.args_parallel = {"a": 1}
    await session.flush()
    step.args_parallel = None
    await session.flush()
    assert await count(session, "workflowtaskv2", "args_parallel IS NULL") == 1


async def test_the_tasks_of_a_group_are_deleted_with_it(session: AsyncSession, ids: Ids) -> None:
    await session.delete(await session.get_one(WorkflowTaskV2, ids["workflowtaskv2"]))
    group = await session.get_one(TaskGroupV2, ids["taskgroupv2"])
    await session.refresh(group, ["task_list"])
    assert [task.name for task in group.task_list] == ["t"]
    await session.delete(group)
    await session.flush()
    assert await count(session, "taskv2") == 0


async def test_timestamps_are_aware_and_in_utc(session: AsyncSession, ids: Ids) -> None:
    project = await session.get_one(ProjectV2, ids["projectv2"])
    await session.refresh(project)
    assert str(project.timestamp_created.tzinfo) == "UTC"
