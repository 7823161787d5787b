"""List what a Python environment contains: `python contents.py PACKAGE MANIFEST`.

The interpreter of the environment runs this program on its machine, so it is one file, needs only
the standard library, and runs with Python 3.8 and newer. It prints a JSON object:

    manifest     the path of the package's file named MANIFEST, or null
    text         the content of that file
    size_kb      the size of all files of the environment, in KiB
    file_number  the number of these files
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from typing import Iterator


def main(package: str, manifest_name: str) -> None:
    manifest = find(package, manifest_name)
    sizes = [os.lstat(path).st_size for path in files_in(sys.prefix)]
    contents = {
        "manifest": manifest,
        "text": text_of(manifest) if manifest else "",
        "size_kb": sum(sizes) // 1024,
        "file_number": len(sizes),
    }
    print(json.dumps(contents))


def find(package: str, name: str) -> str | None:
    """The path of a package's first file of this name, also if it is installed editable."""
    for file in installed_files(package):
        if file.name == name:
            return str(file.locate())
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    return None


def installed_files(package: str) -> list[importlib.metadata.PackagePath]:
    try:
        return importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def text_of(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def files_in(folder: str) -> Iterator[str]:
    for directory, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(directory, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
