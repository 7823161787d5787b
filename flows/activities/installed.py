"""Finds where a package is installed, without running the interpreter.

Users name the interpreter, so they may have written it, or packages that it loads at its start. If
it could only run as the user of this process, it is not run, and only its files are looked at.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 64 * 1024  # of a file that names folders
_VERSION = re.compile(r"python(3\.\d+)")


def package_folder(python: str, package: str) -> str | None:
    """The folder of a package for an interpreter; None if its folders do not have it."""
    for folder in _folders_of(Path(python)):
        if (folder / package / "__init__.py").is_file():
            return str(folder / package)
    return None


def is_program(path: str) -> bool:
    """Whether this is a file that can be run here."""
    return Path(path).is_file() and os.access(path, os.X_OK)


def _folders_of(python: Path) -> Iterator[Path]:
    """Folders where an interpreter finds packages: of its environment, then of its base."""
    prefix, real = python.parent.parent, python.resolve()
    settings = dict(_settings_in(prefix / "pyvenv.cfg"))
    bases = [real.parent.parent]
    if "home" in settings:
        bases.insert(0, Path(settings["home"]).parent)
    version = _VERSION.match(real.name)
    name = f"python{version[1]}" if version else "python3.*"
    yield from _packages_in(prefix, "python3.*" if settings else name)
    for base in bases:
        yield from sorted(base.glob(f"lib/{name}"))  # the standard library
        if settings.get("include-system-site-packages", "true") == "true":
            yield from _packages_in(base, name)


def _packages_in(prefix: Path, name: str) -> Iterator[Path]:
    """The package folders below a prefix, and the folders that their .pth files name."""
    patterns = (
        f"lib/{name}/site-packages",
        f"lib64/{name}/site-packages",
        f"local/lib/{name}/dist-packages",
        "lib/python3/dist-packages",
    )
    for pattern in patterns:
        for folder in sorted(prefix.glob(pattern)):
            yield folder
            for file in sorted(folder.glob("*.pth")):
                lines = _text_of(file).splitlines()
                yield from (folder / line for line in lines if _is_path(line))


def _is_path(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", "import ", "import\t"))


def _settings_in(path: Path) -> Iterator[tuple[str, str]]:
    for line in _text_of(path).splitlines():
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


def _text_of(path: Path) -> str:
    """The content of a regular file; else empty, as users may put e.g. a named pipe there."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return os.read(file, _MOST_BYTES).decode(errors="replace")
    finally:
        os.close(file)
