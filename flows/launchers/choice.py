"""Which launcher runs a job, and how it reaches the job's files."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from flows.launchers.base import Launcher
from flows.launchers.local import LocalLauncher
from flows.launchers.slurm.cluster import Cluster
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.queue import SlurmQueue
from flows.process.accounts import Account
from flows.process.transport import LocalTransport, SSHTransport, Transport
from fractal_models.errors import ProfileError
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.settings import get_settings
from fractal_models.tables import JobV2, Profile, Resource

# Of a file system that is shared, results are read as often as that; over a network at each poll.
_SECONDS_SHARED = 0.3
_SHORTEST_POLL = 1.0


def launcher_of(
    job: JobV2,
    resource: Resource,
    profile: Profile | None,
    config: Mapping[str, Any],
    *,
    on_submitted: Callable[[int], Awaitable[None]],
    say: Callable[[str], None],
) -> Launcher:
    """The launcher of a job on a resource, by its runner configuration.

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
    transport = queries if is_ssh else LocalTransport(profile.username)
    poll = max(float(resource.jobs_poll_interval), _SHORTEST_POLL)
    queue_file = Path(resource.jobs_local_dir, f".slurm-queue-{resource.id}-{profile.id}.json")
    return SlurmLauncher(
        SlurmContext(
            cluster=Cluster(
                transport,
                queries,
                python=str(resource.jobs_slurm_python_worker),
                home=PurePosixPath(str(job.working_dir_user)),
            ),
            queue=SlurmQueue(queue_file, queries, poll, profile.username),
            config=JobRunnerConfigSLURM.model_validate(config),
            home=Path(str(job.working_dir)),
            account=job.slurm_account,
            worker_init=job.worker_init,
            seconds=poll if is_ssh else _SECONDS_SHARED,
            on_submitted=on_submitted,
            say=say,
            patience=get_settings().slurm_patience_seconds,
        )
    )


def local_launcher(resource: Resource, profile: Profile) -> LocalLauncher:
    """Units on this machine, as the OS user whom a profile names, if it names one.

    Their runner is executed by the Python that environments are made of, which that user can run.

    Raises:
        ProfileError: there is no such OS user.
    """
    if profile.username is None:
        return LocalLauncher()
    config = resource.tasks_python_config
    python = str(config["versions"][config["default_version"]])
    return LocalLauncher(python, account=Account.named(profile.username))


def query_transport(resource: Resource, profile: Profile) -> Transport:
    """How to ask a cluster for what everybody may see: on this machine that takes no other user."""
    return ssh_transport(resource, profile) if resource.type == "slurm_ssh" else LocalTransport()


def ssh_transport(resource: Resource, profile: Profile) -> SSHTransport:
    """Commands by SSH, as the user of a profile for a resource of type `slurm_ssh`."""
    return SSHTransport(
        str(resource.host),
        str(profile.username),
        Path(str(profile.ssh_key_path)),
        get_settings().ssh_known_hosts,
    )
