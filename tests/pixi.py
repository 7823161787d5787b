"""What tests of pixi use: a fake pixi, and archives of projects."""

import gzip
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests import fake_pixi
from tests.lab import PACKAGES

VERSION = "0.50.0"
LOCK = "version: 6\nsolved: long ago\n"


def installed_fake_pixi(folder: Path, python: str = sys.executable) -> dict[str, Any]:
    """A `tasks_pixi_config` with a fake pixi, which is made in a folder."""
    executable = folder / VERSION / "bin" / "pixi"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!{python}\n" + Path(fake_pixi.__file__).read_text())
    executable.chmod(0o755)
    return {
        "versions": {VERSION: str(folder / VERSION)},
        "default_version": VERSION,
        "TOKIO_WORKER_THREADS": 3,
    }


def project_archive(*members: tarfile.TarInfo | tuple[str, str], top: str = "probe") -> bytes:
    """The archive of the probe as a project, with more members: texts by name, or raw ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        package = PACKAGES / "fractal_tasks_probe" / "fractal_tasks_probe"
        tar.add(package, f"{top}/fractal_tasks_probe", filter=_plain)
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                name, text = member
                info = tarfile.TarInfo(f"{top}/{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def project() -> bytes:
    """The archive of the probe as a project that can be installed."""
    return project_archive(("pixi.toml", "[workspace]\n"), ("pixi.lock", LOCK))


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    """A raw member of an archive: with its type, its size or what it links to."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def bomb(size: int) -> bytes:
    """A small archive with a file that is large."""
    header = member("probe/zeros", size=size).tobuf()
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as file:
        file.write(header)
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            file.write(block)
        file.write(bytes(1024))
    return buffer.getvalue()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else info
