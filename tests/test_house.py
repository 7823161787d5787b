"""The house is as `docs/how-it-works.md` shows it, and its imports point one way.

They do so between the top-level folders, and between the rooms of flows/.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "how-it-works.md"

FOLDERS = {
    "fractal_models": set(),
    "migrations": {"fractal_models"},
    "flows": {"fractal_models"},
    "api": {"flows", "fractal_models"},
    "deployments": {"api", "flows", "fractal_models", "migrations"},
    "tests": {"deployments", "api", "flows", "fractal_models", "migrations"},
    "benchmarks": {"tests", "deployments", "api", "flows", "fractal_models", "migrations"},
}

# From the highest floor to the lowest: a room may import those on floors below its own.
FLOORS = [
    ("watchers",),
    ("job",),
    ("plans", "schedules"),
    ("activities", "control", "job_report", "monitoring", "submission", "viewing"),
    ("launchers", "records"),
    ("engine", "process", "units"),
    ("parameters", "programs", "reports"),
]
ROOMS = {
    room: {each for below in FLOORS[height + 1 :] for each in below}
    for height, floor in enumerate(FLOORS)
    for room in floor
}


def files_of(place: Path) -> list[Path]:
    """The files of a folder; or the module with this name."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def imports(place: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each file with each module, or name in a module, that it imports, as parts of its name."""
    for file in files_of(place):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, tuple(each.name.split("."))) for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None, f"{file} has a relative import"
                parts = tuple(node.module.split("."))
                yield from ((file, (*parts, each.name)) for each in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_folders_below_it(folder: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {'.'.join(parts)}"
        for file, parts in imports(ROOT / folder)
        if parts[0] in FOLDERS.keys() - {folder} - FOLDERS[folder]
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_flows_imports_only_rooms_below_it(room: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {'.'.join(parts)}"
        for file, parts in imports(ROOT / "flows" / room)
        if parts[0] == "flows" and parts[1] not in {room, *ROOMS[room]}
    ]
    assert not wrong


def test_every_module_of_flows_is_in_a_room() -> None:
    flows = ROOT / "flows"
    found = {Path(file.relative_to(flows).parts[0]).stem for file in files_of(flows)}
    assert found == {"__init__", *ROOMS}


def test_programs_that_run_elsewhere_import_nothing_of_ours() -> None:
    wrong = [parts for _, parts in imports(ROOT / "flows" / "programs") if parts[0] in FOLDERS]
    assert not wrong


def arrows() -> dict[str, set[str]]:
    """By room of flows/, the rooms that it imports."""
    return {
        room: {parts[1] for _, parts in imports(ROOT / "flows" / room) if parts[0] == "flows"}
        - {room}
        for room in ROOMS
    }


def picture() -> str:
    """The rooms on their floors, without the arrows that follow from others, as Mermaid."""
    to = arrows()

    def reached(room: str) -> set[str]:
        return set[str]().union(*({each, *reached(each)} for each in to[room]))

    lines = ["```mermaid", "flowchart TD"]
    for height, floor in enumerate(FLOORS):
        lines.append(f"    subgraph floor{len(FLOORS) - height}[{len(FLOORS) - height}]")
        lines += [f"        {room}" for room in floor]
        lines.append("    end")
    for room in ROOMS:
        implied = set[str]().union(*(reached(each) for each in to[room]))
        lines += [f"    {room} --> {each}" for each in sorted(to[room] - implied)]
    return "\n".join([*lines, "```"])


def table(room: str) -> str:
    """The files of a room, each with the first paragraph of its docstring."""
    place = ROOT / "flows" / room
    rows = ["| file | what it is |", "|---|---|"]
    for file in files_of(place):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        told = " ".join(docstring.partition("\n\n")[0].split())
        name = file.relative_to(place).as_posix() if place.is_dir() else file.name
        if name != "__init__.py":
            rows.append(f"| `{name}` | {told.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def test_the_picture_of_the_house_is_true() -> None:
    assert picture() in DOCUMENT.read_text(), f"docs/how-it-works.md needs:\n{picture()}"


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_of_a_room_has_its_files(room: str) -> None:
    assert table(room) in DOCUMENT.read_text(), f"docs/how-it-works.md needs:\n{table(room)}"
