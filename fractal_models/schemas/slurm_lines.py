"""Checks lines that are added to the script of a SLURM job for forbidden options.

If an option is given twice, `sbatch` uses the last one; it also accepts abbreviated names. So a
line could undo what the platform requests, or request something that the platform does not know.
"""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile

_DIRECTIVE = "#SBATCH"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_OPTIONS_BY_FIELD = {
    "account": "--account -A",
    "constraint": "--constraint -C",
    "cpus_per_task": "--cpus-per-task -c --cpus-per-gpu",
    "exclude": "--exclude -x",
    "gpus": "--gpus -G",
    "gres": "--gres",
    "mem": "--mem --mem-per-gpu",
    "mem and use_mem_per_cpu": "--mem-per-cpu",
    "nodelist": "--nodelist -w --nodefile -F",
    "nodes": "--nodes -N",
    "partition": "--partition -p",
    "time": "--time -t",
}
# Options that the platform sets itself, and those with which it could not submit or follow its
# jobs.
_OPTIONS_OF_THE_PLATFORM = (
    "--array -a --chdir -D --clusters -M --comment --error -e --job-name -J --no-requeue "
    "--ntasks -n --ntasks-per-node --open-mode --output -o --parsable --requeue --test-only "
    "--wait -W --wrap"
)
_WHAT_TO_DO = {
    option: f"use {field} instead"
    for field, options in _OPTIONS_BY_FIELD.items()
    for option in options.split()
} | dict.fromkeys(_OPTIONS_OF_THE_PLATFORM.split(), "it is for the platform alone, remove it")

_SHORT_FLAGS = "HIOQVhksuv"  # without a value, so that another option may follow in the same word


def is_directive(line: str) -> bool:
    """Whether `sbatch` reads options from this line if it is above the first command."""
    return line.startswith(_DIRECTIVE)


def checked_line(line: str) -> str:
    """Return a line that is allowed: `#SBATCH` with options that nobody else sets, or shell.

    Raises:
        ValueError: it has a line break or other control character, or cannot be split into
            options; or it sets an option that has its own field or belongs to the platform.
    """
    if _CONTROL_CHARACTER.search(line):
        raise ValueError(f"{line!r} has a line break or control character: make it separate lines")
    for option in _options(line) if is_directive(line) else ():
        if what_to_do := _WHAT_TO_DO.get(_full_name(option)):
            raise ValueError(f"{line!r} sets {_full_name(option)}: {what_to_do}")
    return line


def _options(line: str) -> Iterator[str]:
    """The names of the options that an `#SBATCH` line sets, with their dashes."""
    text = line.removeprefix(_DIRECTIVE)
    if not text[:1].isspace() or "\\" in text:
        raise ValueError(f"write {line!r} as '#SBATCH --option=value', without backslashes")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{line!r} cannot be split into options: {error}") from error
    for word in takewhile(lambda word: word != "--", words):
        if word.startswith("--"):
            yield word.partition("=")[0]
        elif word.startswith("-") and (letters := word[1:].lstrip(_SHORT_FLAGS)):
            yield f"-{letters[0]}"


def _full_name(option: str) -> str:
    """The full name of a refused option that may be abbreviated; any other option unchanged."""
    if option in _WHAT_TO_DO or not option.startswith("--"):
        return option
    return next((name for name in _WHAT_TO_DO if name.startswith(option)), option)
