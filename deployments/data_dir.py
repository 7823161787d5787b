"""The data directory of an embedded stack: who may enter it, its lock, and its secrets."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fractal_models.errors import FractalError
from fractal_models.private_files import open_private, private_folder
from fractal_models.variables import default_data_dir


class DataDirError(FractalError):
    """The data directory cannot be used; the message says why and what to do."""


def chosen_data_dir(data_dir: Path | None) -> Path:
    """The folder of the `up` that a command is about: the one that it names, or the default."""
    return (data_dir or default_data_dir()).expanduser().absolute()


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Make the data directory if necessary, and lock it against other stacks during the block."""
    try:
        make_data_dir(data_dir)
        for name in ("logs", "prefect"):
            private_folder(data_dir / name)
        lock = open_private(data_dir / "lock", "w")
    except OSError as error:
        reason = "it is a file" if data_dir.is_file() else error.strerror
        raise DataDirError(
            f"The data directory {data_dir} cannot be used: {reason}. "
            "Choose another with --data-dir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirError(
                f"The data directory {data_dir} is in use by a stack that runs: stop that one, "
                "or choose another directory with --data-dir."
            ) from None
        yield


def make_data_dir(data_dir: Path) -> None:
    """Make a data directory: private, except for root, where PostgreSQL's OS user needs it.

    Raises:
        DataDirError: somebody else made the directory, in a folder where everybody may do so.
    """
    is_root = os.geteuid() == 0
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, parents=True)
    found = data_dir.stat()
    if found.st_uid == os.geteuid() and is_root:
        data_dir.chmod(0o755)
    elif found.st_uid != os.geteuid() and data_dir.parent.stat().st_mode & 0o002:
        raise DataDirError(
            f"The data directory {data_dir} is another user's, who could read and change all: "
            "choose another with --data-dir."
        )


def read_secrets(path: Path) -> dict[str, str]:
    """The secrets of a data directory: generated at its first start, readable only by the owner."""
    made = {
        "jwt_secret": secrets.token_urlsafe(32),
        "prefect_auth": f"fractal:{secrets.token_urlsafe(16)}",
        "admin_password": secrets.token_urlsafe(12),  # saved before the database has it
    }
    try:
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if not all(isinstance(found.get(name, ""), str) for name in made):
            raise ValueError("not all are texts")
    except (ValueError, AttributeError) as error:
        raise DataDirError(f"{path} is damaged: delete it, and new secrets are made.") from error
    if missing := made.keys() - found.keys():
        found |= {name: made[name] for name in missing}
        draft = path.with_name(f"{path.name}.partial")
        with open_private(draft, "w") as file:
            json.dump(found, file)
        draft.replace(path)
    return {name: found[name] for name in made}
