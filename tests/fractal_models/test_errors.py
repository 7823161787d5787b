"""The hierarchy of errors, read from the sources."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FOLDERS = ("api", "deployments", "flows", "fractal_models", "migrations")
# Of a program that runs elsewhere and imports nothing of ours; and two that their modules keep.
_ALONE = {"Refused", "_CountMismatch", "_TooLongError"}


def _classes() -> Iterator[tuple[str, list[str]]]:
    """Every class with the names of its bases."""
    for folder in _FOLDERS:
        for path in (_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield node.name, [ast.unparse(base) for base in node.bases]


def _below(roots: set[str]) -> set[str]:
    """The classes that descend from these."""
    classes = list(_classes())
    found = set(roots)
    while new := {name for name, bases in classes if found & set(bases)} - found:
        found |= new
    return found - roots


def test_every_error_is_one_of_which_people_read_the_message() -> None:
    ours = _below({"FractalError"})
    errors = _below({"Exception", "ValueError", "OSError", "RuntimeError", "LookupError"})

    assert {"JobRefusedError", "EngineUnavailableError", "DataDirError"} <= ours
    assert errors - ours == {"FractalError", *_ALONE}


def test_no_two_errors_share_a_name() -> None:
    errors = _below({"FractalError"})
    names = Counter(name for name, _ in _classes() if name in errors)

    assert [name for name, count in names.items() if count > 1] == []
