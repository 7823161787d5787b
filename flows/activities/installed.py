"""Where a package is installed, found without running its interpreter.

Whoever names an interpreter may have written it, and so may have the packages that it reads when it
starts. Where nobody but the user of this process could run it, its files have to do.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 64 * 1024  # of a file that names folders
_VERSION = re.compile(r"python(3\.\d+)")


def package_folder(python: str, package: str) -> str | None:
    """The folder of a package of an interpreter; None if its folders have no such package."""
    for folder in _folders_of(Path(python)):
        if (folder / package / "__init__.py").is_file():
            return str(folder / package)
    return None


def is_program(path: str) -> bool:
    """Whether this is a file that can be run here."""
    return Path(path).is_file() and os.access(path, os.X_OK)


def _folders_of(python: Path) -> Iterator[Path]:
    """Where an interpreter looks for packages: in its environment, then in what that is made of."""
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
    """The folders of packages below a prefix, and those that these name."""
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
    """What is in a regular file, which may be somebody's trap; empty if there is none."""
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
