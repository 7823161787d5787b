"""A file of data is opened only if it is in the folder, whatever users have put there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.viewing.files import open_data, real_folder
from fractal_models.errors import NotFoundError

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of others")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, beside a secret."""
    (tmp_path / "secret").write_text("not for you")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("not for you")
    folder = tmp_path / "plate.zarr"
    (folder / "A").mkdir(parents=True)
    (folder / "A" / "0").write_bytes(b"chunk")
    return folder


def link(path: Path, target: str | Path, owner: int = NOBODY) -> None:
    path.symlink_to(target)
    os.lchown(path, owner, owner)


def test_a_file_in_the_folder_is_opened(folder: Path) -> None:
    data = open_data(f"{folder}/A/0", str(folder))
    with data.file:
        assert data.file.read() == b"chunk"
    assert data.size == 5


def test_a_tag_changes_with_the_content(folder: Path) -> None:
    def tag() -> str:
        data = open_data(f"{folder}/A/0", str(folder))
        data.file.close()
        return data.tag

    before = tag()
    assert tag() == before
    (folder / "A" / "0").write_bytes(b"other")
    assert tag() != before


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))  # its length is limited


@pytest.mark.parametrize(
    "made",
    [
        lambda path: link(path, path.parents[1] / "secret"),
        lambda path: link(path, "../secret"),
        lambda path: link(path, "../outside/../secret"),
        lambda path: link(path, "/etc/passwd"),
        lambda path: link(path, "/proc/self/environ"),
        lambda path: link(path, "/dev/zero"),
        lambda path: link(path, path.name),
        lambda path: link(path, "../plate.zarr-not"),
        _fifo,
        _socket,
        Path.mkdir,
        lambda path: None,
    ],
    ids=[
        *("absolute", "relative", "up and down", "root's", "proc", "device", "loop", "no target"),
        *("fifo", "socket", "folder", "nothing"),
    ],
)
@as_root
def test_what_is_no_file_of_the_folder_is_not_there(
    folder: Path, made: Callable[[Path], None]
) -> None:
    made(folder / "x")
    with pytest.raises(NotFoundError):
        open_data(f"{folder}/x", str(folder))


@as_root
def test_a_folder_below_that_leads_out_is_not_followed(folder: Path) -> None:
    link(folder / "B", folder.parent / "outside")
    with pytest.raises(NotFoundError):
        open_data(f"{folder}/B/secret", str(folder))


@as_root
def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    link(folder / "B", "A")
    with open_data(f"{folder}/B/0", str(folder)).file as file:
        assert file.read() == b"chunk"


@as_root
def test_a_folder_that_is_itself_a_link_of_a_user_is_nobodys(folder: Path) -> None:
    """Its owner chose where it leads: the server may be able to read more there than they."""
    link(folder.parent / "mine", folder.parent / "outside")
    with pytest.raises(NotFoundError):
        open_data(f"{folder.parent}/mine/secret", f"{folder.parent}/mine")


@pytest.mark.parametrize("target", ["absolute", "relative", "up", "chain"])
def test_links_of_root_or_the_server_on_the_way_are_followed(folder: Path, target: str) -> None:
    site = folder.parent / "site"
    to = {
        "absolute": folder.parent,
        "relative": ".",
        "up": "outside/..",
        "chain": "another",
    }[target]
    site.symlink_to(to)
    (folder.parent / "another").symlink_to(folder.parent)
    assert real_folder(f"{site}/plate.zarr") == os.path.realpath(folder)
    with open_data(f"{site}/plate.zarr/A/0", f"{site}/plate.zarr").file as file:
        assert file.read() == b"chunk"


def test_links_without_end_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="link"):
        real_folder(f"{tmp_path}/a")


def test_a_folder_whose_name_begins_alike_is_another(folder: Path) -> None:
    other = folder.with_name("plate.zarr-2")
    other.mkdir()
    (other / "0").write_text("not for you")
    (folder / "x").symlink_to(other / "0")
    with pytest.raises(NotFoundError):
        open_data(f"{folder}/x", str(folder))
