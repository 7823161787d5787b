"""What a cluster of the tests needs of this machine and changes of it, and how that is undone.

It is undone at the cluster's end, and before its next start, as a session may have been killed.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SERVER_USER = "fractal"
# Most tests have one user of the cluster; the others are for what many do at a time.
USERS = tuple(f"user{number:02d}" for number in range(1, 11))
USER = USERS[0]

# What the server may do in the name of users of the cluster.
SUDOERS = f"""\
Cmnd_Alias FRACTAL_SLURM = /usr/bin/sbatch, /usr/bin/scancel, /usr/bin/python3
{SERVER_USER} ALL=({",".join(USERS)}) NOPASSWD: FRACTAL_SLURM
"""

# The folder of everything of the cluster: all may read it, which pytest's own folders forbid.
ROOT = Path("/var/lib/fractal-test-cluster")
SLURM_CONF = ROOT / "slurm.conf"
DATABASE = ROOT / "mariadb"
# With it the stack of the tests knows the cluster, which is started later.
KNOWN_HOSTS = ROOT / "known_hosts"
LOCK = ROOT.with_suffix(".lock")
LOCK_SECONDS = 600
END_SECONDS = 5
HOST = "127.0.0.1"
HOST_NAME = socket.gethostname()
NODE = HOST_NAME.partition(".")[0]

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "spare", "sshd")
PROGRAMS = (
    *("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sshd"),
    *("mariadb-install-db", "sbatch", "sacctmgr", "sudo", "runuser", "useradd", "ssh-keygen"),
    "/usr/bin/python3",
)

SUDOERS_FILE = Path("/etc/sudoers.d/fractal-test-cluster")
# sudo and sshd hand no SLURM_CONF on, so that it has to be where SLURM looks by itself.
# The other files of SLURM's configuration are read beside it, where the link leads.
ETC_SLURM_CONF = Path("/etc/slurm/slurm.conf")
SAVED_SLURM_CONF = ETC_SLURM_CONF.with_name("slurm.conf.before-fractal-tests")
HOSTS = Path("/etc/hosts")
# The daemons listen on the address of the host's name.
HOSTS_LINE = f"{HOST} {HOST_NAME} {NODE} # while {ROOT} is in use\n"


class ClusterError(Exception):
    """The cluster could not be started, or a command on it failed."""


@contextmanager
def prepared_machine() -> Iterator[None]:
    """This machine with everything that the daemons of the cluster need.

    Raises:
        ClusterError: it cannot have it.
    """
    check_machine()
    with _locked():
        _undo()
        _check_no_other_cluster()
        try:
            _make_users()
            _make_folders()
            _make_keys()
            _make_database()
            _change_etc()
            yield
        finally:
            _undo()


@contextmanager
def _locked() -> Iterator[None]:
    """One session of tests at a time: a machine has one /etc/slurm."""
    with LOCK.open("w") as lock:
        for _ in range(LOCK_SECONDS):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(1)
        else:
            raise ClusterError("Another session of tests uses the cluster.")
        yield


def check_machine() -> None:
    """Raises ClusterError if there can be no cluster here; the message says what it needs."""
    if os.geteuid() != 0:
        raise ClusterError("A cluster can only be started by root.")
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        names = ", ".join(missing)
        raise ClusterError(
            f"A cluster needs {names}, which .ci/install-servers installs on Debian."
        )


def _check_no_other_cluster() -> None:
    names = {process.info["name"] for process in psutil.process_iter(["name"])}
    if found := names & {"slurmctld", "slurmdbd", "slurmd"}:
        raise ClusterError(f"This machine is part of another cluster: {', '.join(found)} runs.")


def _make_users() -> None:
    for user in (SERVER_USER, *USERS):
        if subprocess.run(["id", user], capture_output=True).returncode:
            # With "*" nobody can log in by password, but unlike with "!" sshd accepts a key.
            _run("useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", user)


def _make_folders() -> None:
    owners = {
        "munge": "munge",
        "mariadb": "mysql",
        "log": "root",
        "spool": "root",
        "state": "slurm",
        "ssh": "root",
        **{user: user for user in (SERVER_USER, *USERS)},
    }
    ROOT.mkdir()
    ROOT.chmod(0o755)
    for name, owner in owners.items():
        folder = ROOT / name
        folder.mkdir()
        folder.chmod(0o755)
        shutil.chown(folder, owner, owner)
    # sshd needs it.
    Path("/run/sshd").mkdir(exist_ok=True)


def _make_keys() -> None:
    for name in ("host_key", "key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{ROOT}/ssh/{name}")
    shutil.chown(ROOT / "ssh" / "key", SERVER_USER)
    # sshd reads it as the user who logs in.
    (ROOT / "ssh" / "key.pub").chmod(0o644)
    key = ROOT / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    shutil.chown(key, "munge", "munge")


def _make_database() -> None:
    """A MariaDB for the accounting alone, into which only root and `slurm` get, by its socket."""
    folder = f"--datadir={DATABASE}"
    _run(
        *("mariadb-install-db", "--no-defaults", folder, "--user=mysql", "--skip-test-db"),
        *("--auth-root-authentication-method=socket", "--auth-root-socket-user=slurm"),
        "--skip-name-resolve",
    )
    DATABASE.chmod(0o711)


def _change_etc() -> None:
    ETC_SLURM_CONF.parent.mkdir(exist_ok=True)
    if os.path.lexists(ETC_SLURM_CONF):
        ETC_SLURM_CONF.rename(SAVED_SLURM_CONF)
    ETC_SLURM_CONF.symlink_to(SLURM_CONF)
    SUDOERS_FILE.touch(mode=0o440)
    SUDOERS_FILE.write_text(SUDOERS)
    if not all(_is_on_loopback(name) for name in (HOST_NAME, NODE)):
        # Written in place, as a container has this file mounted.
        HOSTS.write_text(HOSTS_LINE + HOSTS.read_text())


def _is_on_loopback(name: str) -> bool:
    try:
        return socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False


def _undo() -> None:
    """Leave the machine as it was, but for the users."""
    _end_processes()
    hosts = HOSTS.read_text()
    if HOSTS_LINE in hosts:
        HOSTS.write_text(hosts.replace(HOSTS_LINE, ""))
    SUDOERS_FILE.unlink(missing_ok=True)
    if ETC_SLURM_CONF.is_symlink() and ETC_SLURM_CONF.readlink() == SLURM_CONF:
        ETC_SLURM_CONF.unlink()
    if os.path.lexists(SAVED_SLURM_CONF):
        SAVED_SLURM_CONF.rename(ETC_SLURM_CONF)
    while ROOT.exists():
        with suppress(FileNotFoundError):  # a stack may still be removing folders of its jobs
            shutil.rmtree(ROOT)


def _end_processes() -> None:
    """Kill the daemons of the cluster, and what is left of its jobs."""
    found = [process for process in psutil.process_iter() if _is_of_cluster(process)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    # Not for ever: where nobody takes note of a process's end, it seems to stay.
    psutil.wait_procs(found, timeout=END_SECONDS)


def _is_of_cluster(process: psutil.Process) -> bool:
    """Whether it is a daemon by its arguments, a job's keeper by its socket, or, as jobs are too,
    by its environment."""
    try:
        if (name := process.name()) == "slurmstepd":
            return any(str(ROOT) in end.laddr for end in process.net_connections("unix"))
        by_arguments = name in PROGRAMS and str(ROOT) in " ".join(process.cmdline())
        return by_arguments or process.environ().get("SLURM_CONF") == str(SLURM_CONF)
    except psutil.Error:
        return False


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{command} ended with {done.returncode}: {done.stderr}")
