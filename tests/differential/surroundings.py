"""What a unit finds around it: environment, folder, arguments, files, limits, signals."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".sh")
_DOCUMENT = Path(__file__).parents[2] / "docs" / "differences.md"
_OF_STATUS = ("Umask", "Groups", "NoNewPrivs", "Seccomp", "Cpus_allowed_list")
# The C library keeps these to itself: programs that it starts ignore them until they need them.
_OF_THE_LIBRARY = {32, 33}


def command_into(folder: Path, script: Path = SCRIPT) -> str:
    """The command of a task that writes down what it finds, for `found_in`."""
    return f"/bin/sh {script} {folder}"


def found_in(folder: Path) -> dict[str, str]:
    """What a unit found, by its name: that of a variable, or with a colon of something else."""
    folder = folder / "unit"
    environment = _words(folder / "environ")
    arguments = _words(folder / "cmdline")
    status = dict(re.findall(r"(?m)^(\w+):[ \t]*(.*)$", (folder / "status").read_text()))
    limits = re.findall(r"(?m)^(Max .*?)  +(.*?)\s*$", (folder / "limits").read_text())
    log = (folder / "1").read_text()
    return {
        **dict(each.split("=", 1) for each in environment if not each.startswith("PYTEST_")),
        **{f"limit: {name}": re.sub(r"\s+", " ", value) for name, value in limits},
        **{f"status: {name}": status[name] for name in _OF_STATUS},
        "signals: blocked": _signals(status["SigBlk"]),
        "signals: ignored": _signals(status["SigIgn"]),
        "argument: command": " ".join(arguments[:2]),
        "argument: options": " ".join(arguments[3::2]),
        "file: cwd": (folder / "cwd").read_text(),
        "file: stdin": (folder / "0").read_text(),
        "file: stdout and stderr": "the log" if (folder / "2").read_text() == log else "two files",
        "file: others": " ".join((folder / "open").read_text().split()),
    }


def differing(ours: dict[str, str], reference: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What differs, with both values, and is not in the table of docs/differences.md."""
    known = re.findall(r"(?m)^\| `([^|]+)` \|", _DOCUMENT.read_text())
    patterns = [pattern for names in known for pattern in names.split("`, `")]
    absent = "<absent>"
    return {
        name: (ours.get(name, absent), reference.get(name, absent))
        for name in sorted({*ours, *reference})
        if ours.get(name) != reference.get(name)
        and not any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _words(file: Path) -> list[str]:
    return [each.decode() for each in file.read_bytes().split(b"\0") if each]


def _signals(mask: str) -> str:
    """The numbers of the signals in a mask as the kernel writes it."""
    bits = int(mask, 16)
    return " ".join(str(n + 1) for n in range(64) if bits >> n & 1 and n + 1 not in _OF_THE_LIBRARY)
