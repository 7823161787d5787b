"""Questions about Python packages, answered by an interpreter or by the package index."""

import asyncio
import re
import sys

from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from flows.activities.commands import find_uv
from flows.activities.installed import is_program, package_folder
from flows.activities.package_tasks import PackageError
from flows.activities.site import Site
from flows.process.transport import CommandError, TransportError, environment_of_programs

_PATIENCE_SECONDS = 30.0

_FIND_ROOT = (
    "import importlib.util, sys; "
    "spec = importlib.util.find_spec(sys.argv[1]); "
    "print(spec.submodule_search_locations[0] if spec else '')"
)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_]*")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}")


async def version_on_index(
    package: str, wanted: str | None, python: str | None, python_version: str
) -> str:
    """The version of a package to install, as the package index writes it.

    Without `wanted`, that is the newest version that the interpreter can use. `1.16` means 1.16 if
    there is a version of this name, otherwise the newest 1.16.x; `v2.1.0` and `2.1.0.0` mean 2.1.0.
    `python` is None if the interpreter is not on this machine; then only its version is known.

    Raises:
        PackageError: no such package or version, none for this interpreter, or the index does not
            answer.
    """
    if wanted is None:
        return await _newest(package, "", python, python_version)
    try:
        version = Version(wanted)
    except InvalidVersion:
        raise PackageError(f"{wanted!r} is not a version: write one like 1.2 or 1.2.3.") from None
    begins = "" if version.public != version.base_version else f"=={version}.*"
    try:
        exact = await _newest(package, f"=={version}", python, python_version)
    except PackageError:
        if not begins:
            raise
        return await _newest(package, begins, python, python_version)
    if begins and len(Version(exact).release) > len(version.release):
        return await _newest(package, begins, python, python_version)
    return exact


async def _newest(package: str, specifier: str, python: str | None, python_version: str) -> str:
    """The newest version of a package that fits a specifier (or "") and the interpreter."""
    if uv := find_uv():
        command = [uv, "pip", "compile", "-", "--no-deps", "--no-header", "--no-annotate"]
        command += ["--quiet"]
        command += ["--python", python] if python else ["--python-version", python_version]
        pattern = rf"^{re.escape(canonicalize_name(package))}==(\S+)"
    else:
        command = [python or sys.executable, "-m", "pip", "index", "versions", package]
        command += [] if python else ["--python-version", python_version]
        pattern = r"^Available versions: (.+)$"
    code, output, errors = await _run(command, stdin=f"{package}{specifier}")
    found = re.search(pattern, output, re.MULTILINE)
    listed = found[1].split(", ") if code == 0 and found is not None else []
    if not (fitting := list(SpecifierSet(specifier).filter(listed))):
        raise PackageError(
            f"No version of package {package!r} {specifier} was found on the package index: "
            f"{_brief(errors)}"
        )
    return str(max(fitting, key=Version))


async def installed_root(package: str, python: str, site: Site) -> str:
    """The folder of a package that is installed for an interpreter, on the machine where tasks run.

    Users name the interpreter, so it may be any program: it runs as the user whose jobs run there.
    If that is the user of this process, it is not run at all.

    Raises:
        PackageError: the interpreter or the package does not exist.
    """
    module = package.replace("-", "_")
    if site.is_own:
        root, why = await asyncio.to_thread(_root_by_files, python, module)
    else:
        root, why = await _root_by_running(python, module, site)
    if not root:
        raise PackageError(f"Package {package!r} is not installed for {python}: {why}")
    return root


def _root_by_files(python: str, module: str) -> tuple[str | None, str]:
    if not is_program(python):
        return None, "there is no such program."
    return package_folder(python, module), (
        f"its folders have no {module!r}. If it finds it in another way, give package_root."
    )


async def _root_by_running(python: str, module: str, site: Site) -> tuple[str | None, str]:
    command = (python, "-c", _FIND_ROOT, module)
    try:
        return await site.output(*command, seconds=_PATIENCE_SECONDS), f"it has no {module!r}."
    except (CommandError, TransportError) as error:
        return None, str(error)


def name_and_version_of_wheel(filename: str) -> tuple[str, str]:
    """The package name, normalised, and the version from the file name of a wheel.

    Raises:
        PackageError: it is not the file name of a wheel.
    """
    _require_plain(filename)
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise PackageError(
            f"{filename!r} is not the name of a wheel (name-version-...-any.whl): {error}"
        ) from error
    return str(name), str(version)


def name_and_version_of_archive(filename: str) -> tuple[str, str]:
    """The package name, normalised, and the version from the file name of a project's archive.

    Raises:
        PackageError: it is not such a file name.
    """
    _require_plain(filename)
    name, _, version = filename.removesuffix(".tar.gz").partition("-")
    if not (filename.endswith(".tar.gz") and _NAME.fullmatch(name) and _VERSION.fullmatch(version)):
        raise PackageError(
            f"{filename!r} is not the name of a project's archive: it must be name-version.tar.gz, "
            "without '-' in the name or the version."
        )
    return canonicalize_name(name), version


def _require_plain(filename: str) -> None:
    if not _PLAIN.fullmatch(filename):
        raise PackageError(
            f"{filename!r} is not the name of a file to install: it may have letters, digits "
            "and ._+!- only."
        )


async def _run(command: list[str], stdin: str = "") -> tuple[int | None, str, str]:
    """Exit code, output and errors of a command."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment_of_programs()
        )
    except OSError as error:
        raise PackageError(f"{command[0]} cannot be run: {error.strerror}.") from error
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            output, errors = await process.communicate(stdin.encode())
    except TimeoutError:
        raise PackageError(
            f"{command[0]} did not answer within {_PATIENCE_SECONDS:.0f} s."
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def _brief(errors: str) -> str:
    """The last two lines of an error output, on one line of at most 500 characters."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return " ".join(lines[-2:])[-500:]
