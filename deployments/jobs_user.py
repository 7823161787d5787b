"""The OS user as whom the embedded stack runs jobs if it runs as root; created if necessary."""

import os
import pwd
import shutil
import subprocess

from flows.process.accounts import Account
from fractal_models.errors import FractalError

NAME = "fractal-jobs"
HOME = "/var/lib/fractal-jobs"


class NoJobsUserError(FractalError):
    """Jobs run as root, because they cannot run as another OS user; the message says why."""


def jobs_user(python: str) -> Account | None:
    """The OS user of jobs, who can run this interpreter; None if this process is not root's.

    Raises:
        NoJobsUserError: there is no such OS user, and none can be created.
    """
    if os.geteuid() != 0:
        return None
    if missing := [name for name in ("sudo", "useradd") if shutil.which(name) is None]:
        raise NoJobsUserError(f"there is no {' and no '.join(missing)} here")
    _make()
    tried = subprocess.run(
        ["sudo", "-n", "-H", "-u", NAME, "--", python, "-I", "-S", "-c", ""],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        words = " ".join(tried.stderr.split())[-300:]
        raise NoJobsUserError(f"the OS user {NAME!r} cannot run {python} ({words})")
    return Account.named(NAME)


def _make() -> None:
    try:
        pwd.getpwnam(NAME)
        return
    except KeyError:
        pass
    shell = shutil.which("nologin") or "/bin/false"
    command = ["useradd", "--system", "--user-group", "--create-home"]
    command += ["--home-dir", HOME, "--shell", shell, NAME]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        words = " ".join(made.stderr.split())[-300:]
        raise NoJobsUserError(f"the OS user {NAME!r} cannot be made ({words})")
