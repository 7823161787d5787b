"""The files and folders that a job names: whether they are there, for the user units run as."""

import json
import re
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, StringConstraints, TypeAdapter, ValidationError

from flows.launchers.choice import UnitUser
from flows.plans.images import makes_new_images
from flows.process.framing import run_program
from flows.process.transport import AnswerError
from flows.programs import look
from flows.reports.text import printable
from flows.units.plan import CONVERTERS, title_of
from fractal_models.schemas.plan import Finding, Level
from fractal_models.urls import InvalidUrl, normalize_url, on_s3

_MOST_PATHS, _LONGEST_PATH = 200, 4096
_MOST_VALUES = 10_000  # of the arguments of a task
_LONGEST_ANSWER = 4 << 20
_SECONDS = 15.0

# Words of an argument's name, which say what its value is for.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_OF_PATHS = {
    *("path", "paths", "file", "files", "filename", "folder", "folders"),
    *("dir", "dirs", "directory", "root", "location"),
}
_OF_OUTPUTS = {
    *("out", "output", "outputs", "save", "write", "target", "dest", "destination"),
    *("result", "results", "export", "log", "logs"),
}


@dataclass(frozen=True, slots=True)
class NamedPath:
    """An absolute path: what names it, as the beginning of a sentence, and what it must allow.

    `mend` is a sentence, `level` that of what is wrong with it. What is not for sure a path is one
    if its first folder is there.
    """

    told: str
    path: str
    must: Literal["exist", "be creatable"]
    task: int | None = None
    mend: str = "Mend the path."
    is_sure: bool = True
    level: Level = "error"


class Seen(BaseModel):
    """What `flows.programs.look` says of a path; who answers there may be anybody."""

    there: Annotated[str, StringConstraints(max_length=_LONGEST_PATH), AfterValidator(printable)]
    kind: Literal["file", "folder", "other"]
    may_read: bool
    may_write: bool


_ANSWER = TypeAdapter(list[Seen])


def paths_of_tasks(tasks: Sequence[Mapping[str, Any]], zarr_dir: str) -> list[NamedPath]:
    """The folder of the images of tasks, if they make any, and the paths that they name.

    What is below that folder may be made by the tasks themselves, and so may what is needed at or
    below a path that the same task, or one before it, is to write.
    """
    found = []
    makes = any(task["task_type"] in CONVERTERS or makes_new_images(task) for task in tasks)
    if makes and not on_s3(zarr_dir):
        found.append(NamedPath("The dataset's zarr_dir is", zarr_dir, "be creatable"))
    found += [path for task in tasks for path in _paths_of_commands(task)]
    folder, made = {_standard(zarr_dir)}, set[str]()
    for task in tasks:
        named = [each for each in _paths_of_arguments(task) if not _lies_in(each.path, folder)]
        made |= {_standard(each.path) for each in named if each.must != "exist"}
        found += [each for each in named if each.must != "exist" or not _lies_in(each.path, made)]
    return found


def _lies_in(path: str, folders: Set[str]) -> bool:
    """Whether a path is one of these, which have their standard spelling, or below one."""
    place = _standard(path)
    while place and place not in folders:
        place = place.rpartition("/")[0]
    return bool(place)


def _standard(path: str) -> str:
    """A path in its standard spelling; empty for one that has none, as with `..`."""
    try:
        return normalize_url(path)
    except InvalidUrl:
        return ""


def paths_of_images(task: Mapping[str, Any], zarr_urls: Iterable[str]) -> list[NamedPath]:
    """Some of the images that a workflow task would be given."""
    mend = "It may have been moved or removed: mend the image list, or the files."
    return [
        NamedPath("The dataset has the image", url, "exist", task["order"], mend=mend)
        for url in zarr_urls
        if not on_s3(url)
    ]


def _paths_of_commands(task: Mapping[str, Any]) -> Iterator[NamedPath]:
    for component in ("non_parallel", "parallel"):
        with suppress(ValueError):  # which the plan of its units tells
            for word in shlex.split(task["task"][f"command_{component}"] or ""):
                if _is_absolute(word):
                    mend = "Have its package collected or reactivated anew."
                    told = f"command_{component} names"
                    yield NamedPath(told, word, "exist", task["order"], mend=mend)


def _paths_of_arguments(task: Mapping[str, Any]) -> Iterator[NamedPath]:
    """What is wrong with these is a warning: only the task knows what it makes of them."""
    for component in ("non_parallel", "parallel"):
        for name, value in _texts(task[f"args_{component}"] or {}):
            if not _is_absolute(value):
                continue
            words = {word.lower() for word in _WORD.findall(name)}
            yield NamedPath(
                f"{name} of args_{component} is",
                value,
                "be creatable" if words & _OF_OUTPUTS else "exist",
                task["order"],
                is_sure=bool(words & _OF_PATHS),
                level="warning",
            )


def _is_absolute(text: str) -> bool:
    """Whether a text may be an absolute path; one with two slashes is rather an XPath."""
    begins = text.startswith("/") and not text.startswith("//")
    return begins and 1 < len(text) <= _LONGEST_PATH and text.isprintable()


def _texts(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All texts in arguments, each with the name of the field that it is in."""
    left: deque[tuple[str, Any]] = deque(arguments.items())
    for _ in range(_MOST_VALUES):
        if not left:
            return
        name, value = left.popleft()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, each) for each in value]


async def look_at(user: UnitUser, paths: Sequence[NamedPath]) -> dict[str, Seen]:
    """What the user of units sees at these paths; of many, only the first are looked at.

    Raises:
        TransportError, CommandError: it cannot be looked there.
    """
    wanted = list(dict.fromkeys(named.path for named in paths))[:_MOST_PATHS]
    if not wanted:
        return {}
    answer = await run_program(
        user.transport,
        user.python,
        look,
        stdin=json.dumps(wanted).encode(),
        seconds=_SECONDS,
    )
    if len(answer) > _LONGEST_ANSWER:
        raise AnswerError(f"What is at {len(wanted)} paths is told in {len(answer)} bytes.")
    try:
        seen = _ANSWER.validate_json(answer)
    except ValidationError as error:
        raise AnswerError(f"What is at paths cannot be read: {answer[:200]!r}") from error
    return dict(zip(wanted, seen, strict=False))


def problems_with(
    paths: Sequence[NamedPath],
    seen: Mapping[str, Seen],
    user: str,
    tasks: Sequence[Mapping[str, Any]],
) -> list[Finding]:
    """What is wrong with paths, as seen by a user, and that some were not looked at."""
    titles: dict[int | None, str] = {task["order"]: f"Task {title_of(task)}: " for task in tasks}
    found = []
    for named in paths:
        if named.path not in seen:
            continue
        if (problem := _problem(named, seen[named.path], user)) is not None:
            told = f"{titles.get(named.task, '')}{problem}"
            found.append(Finding(level=named.level, task=named.task, told=told))
    if left := {named.path for named in paths} - seen.keys():
        told = (
            f"Of the files and folders that the job names, {len(left)} were not looked at: a plan "
            f"looks at {_MOST_PATHS}."
        )
        found.append(Finding(level="warning", told=told))
    return found


def _problem(named: NamedPath, seen: Seen, user: str) -> str | None:
    is_there = seen.there == named.path
    names = f"{named.told} {named.path}"
    if not named.is_sure and seen.there == "/":
        return None  # perhaps no path of a file
    if named.must == "exist":
        if is_there and seen.may_read:
            return None
        if is_there:
            return f"{names}, which {user} may not read. Change its permissions, or the path."
        hidden = "" if seen.may_read else f", and {user} may not look into {seen.there}"
        return f"{names}, which is not there for {user}{hidden}. {named.mend}"
    if seen.may_write and (is_there or seen.kind == "folder"):
        return None
    where = "which" if is_there else f"and {seen.there}, the nearest that is there,"
    return (
        f"{names}, {where} cannot be written by {user}. Choose another folder, or have this one "
        "opened."
    )
