"""Archives of projects are unpacked into their folder, and hostile ones nowhere."""

import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flows.programs import unpack
from tests.pixi import bomb, member, project, project_archive

MIB = 1 << 20


PYTHONS = [sys.executable, *([SYSTEM] if Path(SYSTEM := "/usr/bin/python3").exists() else [])]


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    """Interpreters with the filters of `tarfile` and, on some machines, without them."""
    path: str = request.param
    return path


def unpacked(archive: bytes, tmp_path: Path, python: str, max_bytes: int = 8 * MIB) -> str:
    """What the program says; nothing may be written beside the folder."""
    (tmp_path / "archive.tar.gz").write_bytes(archive)
    folder = tmp_path / "1.0" / "project"
    command = [python, "-I", str(unpack.__file__), str(tmp_path / "archive.tar.gz")]
    done = subprocess.run(
        [*command, str(folder), str(max_bytes)], capture_output=True, text=True, cwd=tmp_path
    )
    assert {path.name for path in tmp_path.iterdir()} == {"archive.tar.gz", "1.0"}
    assert {path.name for path in folder.parent.iterdir()} == {"project"}
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_in_the_one_folder_of_an_archive_comes_into_the_folder(
    tmp_path: Path, python: str
) -> None:
    folder = tmp_path / "1.0" / "project"
    (folder / "left by an interruption").mkdir(parents=True)
    assert unpacked(project(), tmp_path, python) == ""
    names = {path.name for path in folder.iterdir()}
    assert names == {"fractal_tasks_probe", "pixi.toml", "pixi.lock"}
    assert (folder / "fractal_tasks_probe" / "process.py").stat().st_mode & 0o777 == 0o644


def test_modes_and_owners_of_an_archive_are_not_taken_over(tmp_path: Path, python: str) -> None:
    archive = project_archive(member("probe/evil", mode=0o6777, uid=1234, gid=1234))
    assert unpacked(archive, tmp_path, python) == ""
    evil = (tmp_path / "1.0" / "project" / "evil").stat()
    assert (evil.st_mode & 0o7777, evil.st_uid) == (0o755, os.getuid())


def test_links_that_lead_down_are_kept(tmp_path: Path, python: str) -> None:
    archive = project_archive(
        ("src/data", "text"),
        member("probe/soft", type=tarfile.SYMTYPE, linkname="src/data"),
        member("./probe/hard", type=tarfile.LNKTYPE, linkname="probe/src/data"),
    )
    assert unpacked(archive, tmp_path, python) == ""
    folder = tmp_path / "1.0" / "project"
    assert (folder / "soft").read_text() == (folder / "hard").read_text() == "text"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (member("/etc/evil"), "'/etc/evil' leads out"),
        (member("probe/../../evil"), "leads out"),
        (member("../evil"), "leads out"),
        (member("other/evil"), "'other' at its top"),
        (member("probe/link", type=tarfile.SYMTYPE, linkname="../../evil"), "leads out"),
        (member("probe/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "leads out"),
        (member("probe/link", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "leads out"),
        (member("probe/link", type=tarfile.LNKTYPE, linkname="probe/../../evil"), "leads out"),
        (member("probe/pipe", type=tarfile.FIFOTYPE), "neither a file nor"),
        (member("probe/disk", type=tarfile.BLKTYPE), "neither a file nor"),
        (member("x", pax_headers={"path": "probe/a\0b"}), "null byte"),
        (member("probe/" + 300 * "n"), "cannot be unpacked"),
        (member("probe/large", size=9 * MIB), "more than 8 MiB"),
        (member("x", pax_headers={"path": "probe/" + 9 * MIB * "n"}), "more than 8 MiB"),
    ],
)
def test_an_archive_with_a_hostile_member_is_refused(
    bad: tarfile.TarInfo, told: str, tmp_path: Path, python: str
) -> None:
    assert told in unpacked(project_archive(bad), tmp_path, python)


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path: Path, python: str) -> None:
    archive = project_archive(
        member("probe/a", type=tarfile.SYMTYPE, linkname="b"),
        member("probe/b", type=tarfile.SYMTYPE, linkname="c/.."),
        member("probe/a/evil"),
    )
    assert "leads out" in unpacked(archive, tmp_path, python)


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"", "empty file"),
        (b"no archive", "no tar file in gzip"),
        (project()[:-200], "damaged"),
        (b"PK\3\4" + bytes(100), "no tar file in gzip"),
    ],
)
def test_what_is_no_archive_is_refused(
    archive: bytes, told: str, tmp_path: Path, python: str
) -> None:
    assert told in unpacked(archive, tmp_path, python)


def test_a_bomb_is_given_up_before_it_fills_the_disk(tmp_path: Path, python: str) -> None:
    archive = bomb(64 * MIB)
    assert len(archive) < MIB
    assert "more than 8 MiB" in unpacked(archive, tmp_path, python)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written < 10 * MIB


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    folder = member(".", type=tarfile.DIRTYPE, mode=0).tobuf()
    archive = gzip.compress(folder * (unpack.MAX_FILES + 1), 1)
    assert "100000 files" in unpacked(archive, tmp_path, sys.executable, 100 * MIB)
