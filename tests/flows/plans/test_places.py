"""Files and folders that a job names are found in it, and looked at where units run."""

import sys
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.choice import UnitUser
from flows.plans.places import NamedPath, look_at, paths_of_tasks, problems_with
from flows.process.accounts import Account
from flows.process.transport import CommandError, LocalTransport
from tests.os_user import PYTHON


def task(arguments: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A parallel workflow task, as a job keeps it."""
    types = {"input_types": {}, "output_types": {}}
    commands = {"command_non_parallel": None, "command_parallel": "true", **fields}
    return {
        "order": 0,
        "task_type": "parallel",
        "type_filters": {},
        "args_non_parallel": None,
        "args_parallel": arguments,
        "task": {"name": "Task", **types, **commands},
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"path": "/data/a"}, [("/data/a", "exist", True)]),
        ({"modelFile": "/data/a"}, [("/data/a", "exist", True)]),
        ({"table": "/data/a"}, [("/data/a", "exist", False)]),
        ({"output_dir": "/data/a"}, [("/data/a", "be creatable", True)]),
        ({"saveTo": "/data/a"}, [("/data/a", "be creatable", False)]),
        ({"by": {"0": [{"image_dir": "/data/a"}]}}, [("/data/a", "exist", True)]),
        ({"files": ["/a", "/b"]}, [("/a", "exist", True), ("/b", "exist", True)]),
        ({"path": "a", "b": "s3://b/c", "c": "/", "d": "/x\n/y", "e": 1, "f": None}, []),
        ({"path": "/zarr/plate/0"}, []),
        ({"path": "/zarr/../a"}, [("/zarr/../a", "exist", True)]),
        ({"path": "/" + "a" * 2001}, [("/" + "a" * 2001, "exist", True)]),
        ({"path": "//OME/Image[@ID]"}, []),
    ],
)
def test_absolute_paths_are_found_in_arguments(
    arguments: dict[str, Any], expected: list[tuple[str, str, bool]]
) -> None:
    found = paths_of_tasks([task(arguments)], "/zarr")
    assert [(each.path, each.must, each.is_sure) for each in found] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([{"output_path": "/out/a.csv"}, {"table_path": "/out/a.csv"}], ["/out/a.csv"]),
        ([{"output_dir": "/out/"}, {"path": "/out/b/c"}], ["/out/"]),
        ([{"path": "/out/b", "output_dir": "/out"}], ["/out"]),
        ([{"path": "/out/b"}, {"output_dir": "/out"}], ["/out/b", "/out"]),
        ([{"output_dir": "/out"}, {"path": "/outside"}], ["/out", "/outside"]),
    ],
)
def test_what_a_task_or_one_before_it_makes_need_not_be_there(
    arguments: list[dict[str, Any]], expected: list[str]
) -> None:
    found = paths_of_tasks([task(each) for each in arguments], "/zarr")
    assert [each.path for each in found] == expected


def test_what_commands_name_must_be_there() -> None:
    commands = {"command_parallel": "/venv/bin/python '/my tasks/task.py' --fast"}
    found = paths_of_tasks([task({"path": "/a"}), task({}, **commands)], "/zarr")
    assert [(each.path, each.level) for each in found] == [
        ("/venv/bin/python", "error"),
        ("/my tasks/task.py", "error"),
        ("/a", "warning"),
    ]


async def _told(user: UnitUser, *paths: NamedPath) -> list[str]:
    seen = await look_at(user, paths)
    return [finding.told for finding in problems_with(paths, seen, user.name, [task({})])]


async def test_paths_are_looked_at_as_the_user_of_units(
    os_user: Account, open_folder: Path
) -> None:
    user = UnitUser("ann", LocalTransport(os_user.name, PYTHON), PYTHON)
    closed, ours = open_folder / "closed", open_folder / "ours"
    closed.mkdir(mode=0o700)
    (closed / "model.pt").touch()
    ours.mkdir()
    ours.chmod(0o777)

    assert await _told(
        user,
        NamedPath("a is", str(closed / "model.pt"), "exist", task=0),
        NamedPath("b is", str(closed), "exist"),
        NamedPath("c is", str(ours), "exist"),
        NamedPath("d is", str(ours / "new" / "tables"), "be creatable"),
        NamedPath("e is", str(open_folder / "new"), "be creatable"),
        NamedPath("f is", "/tables/nuclei", "exist", is_sure=False),
        NamedPath("g is", str(ours / "none"), "exist", is_sure=False),
    ) == [
        f"Task 0 Task: a is {closed}/model.pt, which is not there for ann, and ann may not look "
        f"into {closed}. Mend the path.",
        f"b is {closed}, which ann may not read. Change its permissions, or the path.",
        f"e is {open_folder}/new, and {open_folder}, the nearest that is there, cannot be written "
        "by ann. Choose another folder, or have this one opened.",
        f"g is {ours}/none, which is not there for ann. Mend the path.",
    ]


async def test_a_file_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    here = UnitUser("ann", LocalTransport(), sys.executable)
    (tmp_path / "file").touch()

    [told] = await _told(here, NamedPath("a is", str(tmp_path / "file" / "b"), "be creatable"))

    assert f"{tmp_path}/file, the nearest that is there, cannot be written" in told


async def test_that_some_paths_are_not_looked_at_is_told(tmp_path: Path) -> None:
    here = UnitUser("ann", LocalTransport(), sys.executable)
    paths = [NamedPath("a is", str(tmp_path / str(n)), "be creatable") for n in range(203)]

    [told] = await _told(here, *paths)

    assert told.endswith("3 were not looked at: a plan looks at 200.")


async def test_an_answer_that_is_none_is_an_error(tmp_path: Path) -> None:
    nonsense = UnitUser("ann", LocalTransport(), "/bin/echo")
    with pytest.raises(CommandError, match="no answer"):
        await look_at(nonsense, [NamedPath("a is", "/a", "exist")])
