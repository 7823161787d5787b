"""Chooses the launcher of a job, with its way to the job's files."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flows.launchers.base import Launcher
from flows.launchers.local import LocalLauncher
from flows.launchers.slurm.cluster import Cluster
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.kept_folders import KeptFolders
from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.pace import Pace
from flows.launchers.slurm.queue import SlurmQueue, queue_file
from flows.process.accounts import Account
from flows.process.transport import LocalTransport, SSHTransport, Transport
from fractal_models.database import saved_id
from fractal_models.errors import ProfileError
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.settings import get_settings
from fractal_models.tables import JobV2, Profile, Resource

# How often results are read from a shared file system; over a network, once per poll of SLURM.
_SECONDS_SHARED = 0.3
_SHORTEST_POLL = 1.0
_SECONDS_PER_SUBMISSION = 0.5


def launcher_of(
    job: JobV2,
    resource: Resource,
    profile: Profile | None,
    config: Mapping[str, Any],
    *,
    on_submitted: Callable[[int], Awaitable[None]],
    say: Callable[[str], None],
) -> Launcher:
    """The launcher of a job on a resource, by the runner configuration `config`.

    `on_submitted` and `say` are as in `SlurmContext`.

    Raises:
        ProfileError: a cluster cannot be reached without a profile.
        ValueError: the configuration is not valid.
    """
    if resource.type == "local" and profile is not None:
        return local_launcher(resource, profile)
    if profile is None or profile.username is None:
        raise ProfileError(
            f"{job.user_email} has no profile for resource {resource.name!r}: ask an administrator "
            "for one."
        )
    is_ssh = resource.type == "slurm_ssh"
    queries = query_transport(resource, profile)
    transport = queries if is_ssh else transport_of(resource, profile)
    poll = max(float(resource.jobs_poll_interval), _SHORTEST_POLL)
    runner_config = JobRunnerConfigSLURM.model_validate(config)
    folder = Path(resource.jobs_local_dir)
    return SlurmLauncher(
        SlurmContext(
            cluster=Cluster(
                transport,
                queries,
                python=str(resource.jobs_slurm_python_worker),
                home=PurePosixPath(str(job.working_dir_user)),
                name=runner_config.cluster,
            ),
            queue=_queue(resource, profile, queries, poll, runner_config.cluster),
            pace=Pace(
                folder / f".slurm-submissions-{resource.id}",
                _SECONDS_PER_SUBMISSION,
                profile.username,
            ),
            config=runner_config,
            home=Path(str(job.working_dir)),
            account=job.slurm_account,
            cache_dir=job.cache_dir,
            worker_init=job.worker_init,
            seconds=poll if is_ssh else _SECONDS_SHARED,
            on_submitted=on_submitted,
            say=say,
            patience=get_settings().slurm_patience_seconds,
            mark=KeptFolders(resource.jobs_local_dir).path(saved_id(job)),
        )
    )


def _queue(
    resource: Resource, profile: Profile, transport: Transport, poll: float, cluster: str | None
) -> SlurmQueue:
    """What SLURM says of jobs: by sudo, it is asked once for all users.

    By SSH, each user asks, as what another one's account answers is not to be believed.
    """
    user, folder = str(profile.username), Path(resource.jobs_local_dir)
    if resource.type == "slurm_ssh":
        path = queue_file(folder, saved_id(resource), saved_id(profile))
        return SlurmQueue(path, transport, poll, user=user, cluster=cluster)
    path = queue_file(folder, saved_id(resource))
    uid = Account.named(user).uid
    return SlurmQueue(path, transport, poll, uid=uid, cluster=cluster)


def local_launcher(resource: Resource, profile: Profile) -> LocalLauncher:
    """The launcher for this machine. Units run as the profile's OS user, if it names one.

    That user cannot run this process's Python, so the runner is executed by the Python from which
    task environments are made.

    Raises:
        ProfileError: there is no such OS user.
    """
    if profile.username is None:
        return LocalLauncher()
    return LocalLauncher(_python_of_units(resource), account=Account.named(profile.username))


@dataclass(frozen=True)
class UnitUser:
    """The OS user as whom units run, on the machine where they run; `name` is for people.

    `python` is an interpreter there that this user may run.
    """

    name: str
    transport: Transport
    python: str


def unit_user(resource: Resource, profile: Profile) -> UnitUser:
    """As whom and where the units of a profile's jobs run.

    Raises:
        ProfileError: there is no such OS user.
    """
    if resource.type != "local":
        transport = transport_of(resource, profile)
        return UnitUser(transport.place, transport, str(resource.jobs_slurm_python_worker))
    if profile.username is None:
        return UnitUser("the user of the server", LocalTransport(), sys.executable)
    python = _python_of_units(resource)
    other = LocalTransport(Account.named(profile.username).name, python)
    return UnitUser(other.place, other, python)


def units_at_once(config: Mapping[str, Any]) -> int:
    """How many units a runner configuration lets run at once, of a phase or in a SLURM job."""
    return config.get("parallel_tasks_per_job") or len(os.sched_getaffinity(0))


def _python_of_units(resource: Resource) -> str:
    """The Python from which task environments are made."""
    config = resource.tasks_python_config
    return str(config["versions"][config["default_version"]])


def transport_of(resource: Resource, profile: Profile) -> Transport:
    """Transport to a cluster, as the user to whom the jobs of a profile belong."""
    if resource.type == "slurm_ssh":
        return ssh_transport(resource, profile)
    return LocalTransport(str(profile.username))


def query_transport(resource: Resource, profile: Profile) -> Transport:
    """Transport for questions to a cluster that everybody may ask: needs no other OS user here."""
    return ssh_transport(resource, profile) if resource.type == "slurm_ssh" else LocalTransport()


def ssh_transport(resource: Resource, profile: Profile) -> SSHTransport:
    """Runs commands by SSH, as the user of a profile for a resource of type `slurm_ssh`."""
    return SSHTransport(
        str(resource.host),
        str(profile.username),
        Path(str(profile.ssh_key_path)),
        get_settings().ssh_known_hosts,
    )
