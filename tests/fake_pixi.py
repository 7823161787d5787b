"""A stand-in for pixi, which cannot be had without the internet: `pixi` of a folder of the tests.

It understands what the platform says to pixi, and refuses all else. Its environments are virtual
ones, with nothing in them but the project itself, in place. It "solves" anew each time: the lock
file that it writes is never the same twice.
"""

import argparse
import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="fake_pixi", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", allow_abbrev=False)
    install.add_argument("--concurrent-solves", type=int, required=True)
    install.add_argument("--concurrent-downloads", type=int, required=True)
    hook = commands.add_parser("shell-hook", allow_abbrev=False)
    hook.add_argument("--shell", choices=["bash"], required=True)
    for command in (install, hook):
        command.add_argument("--frozen", action="store_true")
        command.add_argument("--environment", required=True)
        command.add_argument("--manifest-path", type=Path, required=True)
    asked = parser.parse_args()
    if "no-such-channel" in asked.manifest_path.read_text():
        sys.exit("fake_pixi: could not reach no-such-channel")
    project = asked.manifest_path.parent
    environment = project / ".pixi" / "envs" / asked.environment
    if asked.command == "install":
        make(project, environment, frozen=asked.frozen)
    else:
        print(f"export PATH={shlex.quote(str(environment / 'bin'))}:$PATH")
        print(f"export CONDA_PREFIX={shlex.quote(str(environment))}")


def make(project: Path, environment: Path, *, frozen: bool) -> None:
    lock = project / "pixi.lock"
    if not frozen:
        lock.write_text(f"version: 6\nsolved: {uuid.uuid4()}\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "project.pth").write_text(f"{project}\n")
    (environment / "conda-meta").mkdir(exist_ok=True)
    (environment / "conda-meta" / "installed").write_bytes(lock.read_bytes())
    told = {name: os.environ.get(name) for name in ("PIXI_CACHE_DIR", "TOKIO_WORKER_THREADS")}
    print(f"fake_pixi: installed on {os.environ.get('SLURM_JOB_NAME', 'no node')}, {told}")


if __name__ == "__main__":
    main()
