"""A SLURM cluster with accounting on this machine, reached with sudo and by SSH.

All of it is real: munge, MariaDB, slurmdbd, slurmctld, slurmd and sshd, on sockets and free ports
of loopback, with a user who runs the server and those whose jobs these are.
"""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import BinaryIO

import psutil
import pytest

from tests.cluster_configuration import (
    DATABASE_OPTIONS,
    DATABASE_SOCKET,
    MUNGE_SOCKET,
    SPARE,
    accounting_commands,
    gres_conf,
    slurm_conf,
    slurmdbd_conf,
    sshd_config,
)
from tests.cluster_machine import (
    DAEMONS,
    HOST,
    KNOWN_HOSTS,
    NODE,
    ROOT,
    SERVER_USER,
    SLURM_CONF,
    USER,
    USERS,
    ClusterError,
    prepared_machine,
)
from tests.lab import eventually

START_SECONDS = 20
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

MUNGE_FILES = [f"--{name}-file={ROOT}/munge/{name}" for name in ("key", "pid", "seed", "log")]
SSHD_CONFIG = ROOT / "ssh" / "sshd_config"
COMMANDS = {
    "munged": ["munged", "--foreground", f"--socket={MUNGE_SOCKET}", *MUNGE_FILES],
    "mariadbd": ["mariadbd", "--no-defaults", *DATABASE_OPTIONS],
    "slurmdbd": ["slurmdbd", "-D"],
    "slurmctld": ["slurmctld", "-D", "-f", str(SLURM_CONF)],
    "slurmd": ["slurmd", "-D", "-N", NODE, "-f", str(SLURM_CONF)],
    "spare": ["slurmd", "-D", "-N", SPARE, "-f", str(SLURM_CONF)],
    # sshd starts itself again for every connection, and so wants to know where it is.
    "sshd": ["/usr/sbin/sshd", "-D", "-e", "-f", str(SSHD_CONFIG)],
}
SOCKETS = {"munged": MUNGE_SOCKET, "mariadbd": DATABASE_SOCKET}
# slurmdbd has no option for its configuration, and MariaDB's client none for the socket.
ENVIRONMENT = {
    "PATH": PATH,
    "SLURM_CONF": str(SLURM_CONF),
    "MYSQL_UNIX_PORT": str(DATABASE_SOCKET),
}


class Cluster:
    """What the tests do with the cluster: commands, looks at jobs, outages.

    `run`, `squeue` and `job` are for the tests to look at it from outside, as root.
    """

    root = ROOT
    node = NODE
    spare = SPARE
    server_user = SERVER_USER
    user = USER
    users = USERS
    server_folder = ROOT / SERVER_USER
    user_folder = ROOT / USER
    # With this key the server user logs in as the user.
    key_path = ROOT / "ssh" / "key"
    known_hosts = KNOWN_HOSTS

    def __init__(self) -> None:
        names = ("slurmdbd", "slurmctld", "slurmd", "spare", "sshd")
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.ssh_port = self._ports["sshd"]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def host_key(self) -> str:
        """The cluster's line in `known_hosts`."""
        algorithm, key, *_ = (ROOT / "ssh" / "host_key.pub").read_text().split()
        return f"[{HOST}]:{self.ssh_port} {algorithm} {key}\n"

    async def run(self, *command: str, user: str = "root", stdin: str = "") -> str:
        """What a command prints that one of the users runs.

        Raises:
            ClusterError: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *("runuser", "--user", user, "--", *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
        )
        output, errors = await process.communicate(stdin.encode())
        if process.returncode:
            raise ClusterError(f"{command} ended with {process.returncode}: {errors.decode()}")
        return output.decode()

    async def squeue(self, *arguments: str) -> list[str]:
        """The lines of squeue without the header: of all open jobs, unless asked for others."""
        return (await self.run("squeue", "--noheader", *arguments)).splitlines()

    async def job(self, job_id: int | str) -> dict[str, str]:
        """The fields in which scontrol describes a job, open or ended some minutes ago."""
        output = await self.run("scontrol", "show", "job", "--oneliner", str(job_id))
        return dict(field.split("=", 1) for field in output.split() if "=" in field)

    async def cancel_all(self) -> None:
        """End all jobs."""
        await self.run("scancel", f"--user={USER}")
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until no job is open."""
        await eventually(self.squeue, lambda jobs: not jobs)

    async def wait_up(self) -> None:
        """Wait until the nodes take jobs."""
        await eventually(
            lambda: self.run("sinfo", "--noheader", "--format=%T"),
            lambda states: set(states.split()) <= {"idle", "mixed", "allocated"},
        )

    async def start(self, name: str) -> None:
        """Start one of the daemons, and wait until it listens.

        Raises:
            ClusterError: it does not.
        """
        log = ROOT / "log" / name
        with log.open("ab") as output:
            self.daemons[name] = daemon = _spawn(name, output)
        for _ in range(START_SECONDS * 50):
            if self._listens(name):
                return
            if daemon.poll() is not None:
                break
            await asyncio.sleep(0.02)
        raise ClusterError(f"{name} did not start: {log.read_text()[-1000:]}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one of the daemons; with sshd its connections, with slurmd no job.

        slurmctld writes down what it knows when SIGTERM ends it, and else every five seconds: after
        SIGKILL it gives numbers of forgotten jobs to others, and starts jobs again that run.
        """
        daemon = self.daemons.pop(name)
        connections = psutil.Process(daemon.pid).children(recursive=True) if name == "sshd" else []
        daemon.send_signal(number)
        daemon.wait()
        for connection in connections:
            with suppress(psutil.NoSuchProcess):
                connection.kill()

    def forget_jobs(self) -> None:
        """Let slurmctld, which must not run, lose what it knows of jobs, and of their ids.

        When it begins anew, accounting says of all jobs that they are cancelled, but not by whom.
        """
        for file in (ROOT / "state").glob("job_state*"):
            file.unlink()

    @asynccontextmanager
    async def configured(self, **options: object) -> AsyncIterator[None]:
        """Other options in slurm.conf, such as `MaxArraySize`, while the block runs."""
        self.write_slurm_conf(**options)
        await self._restart_controller()
        try:
            yield
        finally:
            self.write_slurm_conf()
            await self._restart_controller()

    async def _restart_controller(self) -> None:
        self.kill("slurmctld", signal.SIGTERM)
        await self.start("slurmctld")
        for node in ("slurmd", "spare"):  # else a node tells of itself only when it is asked
            self.daemons[node].send_signal(signal.SIGHUP)
        await self.wait_up()

    def write_slurm_conf(self, **options: object) -> None:
        """Write slurm.conf: each command reads it anew, the daemons when they start."""
        SLURM_CONF.write_text(slurm_conf(self._ports, options))
        SLURM_CONF.chmod(0o644)

    def write_configuration(self) -> None:
        """Write what the daemons read when they start."""
        self.write_slurm_conf()
        SLURM_CONF.with_name("gres.conf").write_text(gres_conf())
        SSHD_CONFIG.write_text(sshd_config(self._ports))
        slurmdbd = SLURM_CONF.with_name("slurmdbd.conf")
        slurmdbd.touch(mode=0o600)
        slurmdbd.write_text(slurmdbd_conf(self._ports))
        shutil.chown(slurmdbd, "slurm")

    async def add_accounts(self) -> None:
        """Tell accounting of users and limits, before the controller asks it."""
        for step in accounting_commands():
            commands = (self.run("sacctmgr", "--immediate", *command) for command in step)
            await asyncio.gather(*commands)

    def _listens(self, name: str) -> bool:
        if name in SOCKETS:
            family, address = socket.AF_UNIX, str(SOCKETS[name])
        else:
            family, address = socket.AF_INET, (HOST, self._ports[name])
        with socket.socket(family) as probe:
            return probe.connect_ex(address) == 0


def _spawn(name: str, output: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        COMMANDS[name],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=ENVIRONMENT,
        umask=0o022,
        start_new_session=True,
        user="munge" if name == "munged" else None,
    )


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(number)]
        return [probe.getsockname()[1] for probe in probes]


@asynccontextmanager
async def running_cluster() -> AsyncIterator[Cluster]:
    """The cluster, while the block runs."""
    with prepared_machine():
        cluster = Cluster()
        cluster.write_configuration()
        for name in DAEMONS:
            await cluster.start(name)
            if name == "slurmdbd":
                await cluster.add_accounts()
        await cluster.wait_up()
        yield cluster


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """The cluster; without one, the tests that ask for it are skipped, and say why."""
    async with AsyncExitStack() as stack:
        try:
            cluster = await stack.enter_async_context(running_cluster())
        except ClusterError as reason:
            pytest.skip(str(reason))
        yield cluster
