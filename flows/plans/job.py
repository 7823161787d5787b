"""The plan of a job: reads what it follows from, asks the cluster, and changes nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from flows.launchers.choice import UnitUser, query_transport, unit_user, units_at_once
from flows.launchers.slurm.partitions import Partition, read_partitions
from flows.parameters import JobRequest
from flows.plans import estimates
from flows.plans.images import makes_unknown
from flows.plans.phases import Site
from flows.plans.places import (
    NamedPath,
    look_at,
    paths_of_images,
    paths_of_tasks,
    problems_with,
)
from flows.plans.tasks import Facts, images_of_first_task, plan_tasks
from flows.process.transport import CommandError, Transport, TransportError
from flows.records.needs import earlier_runs, needs_of
from flows.submission import (
    Refusal,
    cache_folder,
    dump_workflow,
    examine_request,
    refusals_now,
)
from fractal_models.database import one_moment, release, saved_id
from fractal_models.errors import JobRefusedError, ProfileError
from fractal_models.image_kinds import attribute_values, image_kinds
from fractal_models.images import Scalar
from fractal_models.named import dataset_named, project_named, workflow_named
from fractal_models.rights import user_named
from fractal_models.schemas.job import JobCreate
from fractal_models.schemas.plan import Finding, JobPlan
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.tables import DatasetV2, Profile, ProjectV2, Resource, UserOAuth, WorkflowV2

_MOST_IMAGES = 10  # that are looked at


@dataclass(frozen=True)
class Asked:
    """What is to be planned: tasks, as a job keeps them, on the images of a dataset."""

    tasks: Sequence[Mapping[str, Any]]
    dataset_id: int
    zarr_dir: str
    type_filters: Mapping[str, bool]
    attribute_filters: Mapping[str, Sequence[Scalar]]
    resource: Resource
    profile: Profile
    config: Mapping[str, Any]
    account: str | None = None
    cache_dir: str | None = None
    only_not_done: bool = False
    refusals: Sequence[Refusal] = field(default_factory=list)


async def plan_named(session: AsyncSession, request: JobRequest) -> JobPlan:
    """The plan of what the parameters of a flow run ask for, with the rights of its user.

    Raises:
        NotFoundError, ForbiddenError: the user does not see what is named, or may not run it.
        JobRefusedError: the request is not valid, or a name is that of several.
    """
    await one_moment(session)
    user = await user_named(session, request.user)
    project = await project_named(session, user, request.project, "x")
    return await plan_request(
        session,
        user=user,
        project=project,
        workflow=await workflow_named(session, project, request.workflow),
        dataset=await dataset_named(session, project, request.dataset),
        request=request.as_submitted(),
        only_not_done=request.images == "not done",
    )


async def plan_request(
    session: AsyncSession,
    *,
    user: UserOAuth,
    project: ProjectV2,
    workflow: WorkflowV2,
    dataset: DatasetV2,
    request: JobCreate,
    only_not_done: bool = False,
) -> JobPlan:
    """What the job of a request would do, and all that is wrong with it. Ends the transaction."""
    resource = await session.get_one(Resource, project.resource_id)
    try:
        checked, refusals = await examine_request(
            session, user=user, project=project, workflow=workflow, request=request
        )
    except JobRefusedError as error:
        finding = Finding(level="error", told=str(error))
        return JobPlan(resource=resource.name, tasks=[], findings=[finding])
    refusals += await refusals_now(
        session,
        user=user,
        dataset=dataset,
        checked=checked,
        request=request,
        only_not_done=only_not_done,
    )
    asked = Asked(
        tasks=dump_workflow(workflow, checked.tasks, checked.groups, request.mem)["task_list"],
        dataset_id=saved_id(dataset),
        zarr_dir=dataset.zarr_dir,
        type_filters=request.type_filters,
        attribute_filters=request.attribute_filters,
        resource=resource,
        profile=checked.profile,
        config=resource.jobs_runner_config,
        account=request.slurm_account,
        cache_dir=cache_folder(user),
        only_not_done=only_not_done,
        refusals=refusals,
    )
    return await plan(session, asked)


async def plan(session: AsyncSession, asked: Asked) -> JobPlan:
    """The plan of what is asked. Ends the transaction before the cluster is asked."""
    facts = await _read(session, asked)
    await release(session)
    paths = await asyncio.to_thread(_paths, asked, facts)
    partitions, from_there = await _ask_there(asked, paths)
    facts = replace(facts, site=replace(facts.site, partitions=partitions))
    tasks, findings = await asyncio.to_thread(plan_tasks, facts)
    refused = [Finding(level="error", task=each.task, told=each.told) for each in asked.refusals]
    found = [*refused, *findings, *from_there]
    return JobPlan(
        resource=asked.resource.name,
        tasks=tasks,
        findings=sorted(found, key=lambda each: each.level),  # errors first
        wall_seconds=estimates.total(task.wall_seconds for task in tasks),
        cpu_seconds=estimates.total(task.cpu_seconds for task in tasks),
    )


async def _read(session: AsyncSession, asked: Asked) -> Facts:
    """What the plan follows from, as it is in the database."""
    by_id: dict[int, int] = {task["id"]: task["task_id"] for task in asked.tasks}
    filters = asked.attribute_filters
    is_slurm = asked.resource.type != "local"
    slurm = JobRunnerConfigSLURM.model_validate(asked.config) if is_slurm else None
    return Facts(
        tasks=asked.tasks,
        zarr_dir=asked.zarr_dir,
        kinds=await image_kinds(session, asked.dataset_id, filters, list(by_id)),
        values=await attribute_values(session, asked.dataset_id) if filters else {},
        type_filters=asked.type_filters,
        attribute_filters=filters,
        needs=await needs_of(session, set(by_id.values())),
        earlier_runs=await earlier_runs(session, asked.dataset_id, _with_unknown_units(asked)),
        site=Site(units_at_once(asked.config), slurm, asked.account, asked.cache_dir),
        only_not_done=asked.only_not_done,
    )


def _with_unknown_units(asked: Asked) -> dict[int, int]:
    """By workflow task, the tasks of which it is not known how many units they will have.

    These are the first that makes an unknown number of units or images, and all after it.
    """
    known = takewhile(lambda task: not makes_unknown(task), asked.tasks)
    return {task["id"]: task["task_id"] for task in asked.tasks[len(list(known)) :]}


async def _ask_there(
    asked: Asked, paths: Sequence[NamedPath]
) -> tuple[dict[str, Partition], list[Finding]]:
    """The partitions of the cluster, and what is wrong with paths where units run."""
    try:
        user = unit_user(asked.resource, asked.profile)
    except ProfileError as error:
        return {}, [Finding(level="error", told=str(error))]
    by_ssh = asked.resource.type == "slurm_ssh"  # then one connection is enough
    queries = user.transport if by_ssh else query_transport(asked.resource, asked.profile)
    try:
        (partitions, not_told), wrong = await asyncio.gather(
            _partitions(asked, queries), _look(asked, user, paths)
        )
    finally:
        await user.transport.close()
        await queries.close()
    return partitions, [*wrong, *not_told]


async def _partitions(
    asked: Asked, transport: Transport
) -> tuple[dict[str, Partition], list[Finding]]:
    """The partitions of the cluster; without an answer, nothing is compared with them."""
    if asked.resource.type == "local":
        return {}, []
    try:
        return await read_partitions(transport, asked.config.get("cluster")), []
    except (TransportError, CommandError) as error:
        told = f"What is asked of SLURM was not compared with its partitions: {error}"
        return {}, [Finding(level="warning", told=told)]


async def _look(asked: Asked, user: UnitUser, paths: Sequence[NamedPath]) -> list[Finding]:
    """What is wrong with paths, as the user of units sees them."""
    try:
        seen = await look_at(user, paths)
    except (TransportError, CommandError) as error:
        told = f"Files and folders were not looked at, as units would see them: {error}"
        return [Finding(level="warning", told=told)]
    return problems_with(paths, seen, user.name, asked.tasks)


def _paths(asked: Asked, facts: Facts) -> list[NamedPath]:
    """The files and folders that the job needs, where its units run: first what it fails without.

    (Of many, only the first are looked at.)
    """
    urls = images_of_first_task(facts)[:_MOST_IMAGES]
    found = [
        *paths_of_images(asked.tasks[0], urls),
        *paths_of_tasks(asked.tasks, asked.zarr_dir),
    ]
    kept = {
        "slurm_sudo": asked.cache_dir,
        "slurm_ssh": asked.profile.jobs_remote_dir,
    }.get(asked.resource.type)
    if kept is not None:
        found.insert(0, NamedPath("The folder for files of jobs is", kept, "be creatable"))
    return sorted(found, key=lambda each: each.level)  # errors first
