"""Where the jobs of a benchmark run: on this machine, or on the cluster of the tests."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployments.services import Part
from deployments.stack import Stack
from tests import journal_tasks
from tests.cluster import Cluster, running_cluster
from tests.consistency import THIS_PYTHON
from tests.lab import Lab, logged_in
from tests.slurm_site import PASSWORD, lab_at, resource_body

KINDS = ("local", "slurm_sudo", "slurm_ssh")


@dataclass(frozen=True)
class Site:
    """Who runs jobs, in which folder, by which command `journal_tasks.py` is executed there.

    `parts` are those of the stack and, on a cluster, of that.
    """

    email: str
    password: str
    folder: Path
    command: Sequence[str]
    parts: Mapping[str, Part]
    cluster: Cluster | None = None

    def cancel(self, pick: float) -> str | None:
        """Cancel one of the SLURM jobs that run; which one."""
        running = _squeue("--states=RUNNING")
        if not running:
            return None
        job = running[int(pick * len(running))]
        subprocess.run(["scancel", job], check=False)
        return f"scancel {job}"


@contextmanager
def running_at(kind: str, stack: Stack, admin_password: str) -> Iterator[Site]:
    """A site of a stack."""
    if kind == "local":
        email = stack.initialised.admin_email
        yield Site(email, admin_password, stack.data_dir, THIS_PYTHON, stack.parts)
        return
    with asyncio.Runner() as runner:
        contexts = AsyncExitStack()
        try:
            cluster = runner.run(contexts.enter_async_context(running_cluster()))
            client = runner.run(
                contexts.enter_async_context(
                    logged_in(stack, stack.initialised.admin_email, admin_password)
                )
            )
            admin = Lab(client, stack.data_dir)
            resource = resource_body(cluster, stack.data_dir, kind)
            runner.run(contexts.enter_async_context(lab_at(cluster, stack, admin, resource)))
            copy = cluster.root / "journal_tasks.py"
            shutil.copy(journal_tasks.__file__, copy)
            daemons = {name: Daemon(cluster, name, runner) for name in _DAEMONS}
            yield Site(
                email=f"{kind}@example.org",
                password=PASSWORD,
                folder=cluster.user_folder,
                command=("/usr/bin/python3", "-I", "-S", str(copy)),
                parts={**stack.parts, **daemons},
                cluster=cluster,
            )
        finally:
            runner.run(contexts.aclose())


_DAEMONS = ("slurmdbd", "slurmctld", "slurmd", "sshd")


class Daemon(Part):
    """A daemon of the cluster."""

    def __init__(self, cluster: Cluster, name: str, runner: asyncio.Runner) -> None:
        self.name = name
        self.log = cluster.root / "log" / name
        self._cluster = cluster
        self._runner = runner

    def start(self) -> None:
        self._runner.run(self._cluster.start(self.name))

    @property
    def pid(self) -> int | None:
        daemon = self._cluster.daemons[self.name]
        return daemon.pid if daemon.poll() is None else None

    def ended(self) -> str | None:
        code = self._cluster.daemons[self.name].poll()
        return None if code is None else f"with exit code {code}"

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        with suppress(KeyError):
            self._cluster.kill(self.name)


def _squeue(*options: str) -> list[str]:
    command = ["squeue", "--noheader", "--array", "--format=%i", *options]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted(answer.stdout.split())
