"""What units leave is hostile: it is read only if it is a regular file, in its place, and bounded.

A named pipe that nobody writes to keeps whoever opens it waiting for ever, so each test here would
hang, not fail, without that: hence the time limit.
"""

import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.launchers.local import LocalLauncher, is_running
from flows.programs import cluster_files, unit_runner
from flows.units import left_files
from flows.units.batch import Batch, BatchUnit, write_batch
from flows.units.job_files import read_log
from flows.units.job_folder import JOB_LOG, JobFolder, archive_folder, write_archive
from flows.units.left_files import add_last_line, last_lines
from flows.units.results import ResultsReader
from fractal_models.tables import JobV2

SECRET = "what units must not reach"
_SECONDS = 20


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError("This takes for ever.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside of the job's, with a file that is not for units."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job, with that of its units."""
    folder = tmp_path / "job"
    (folder / "units").mkdir(parents=True)
    return folder


def _pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "secret")


def _linked_folder(path: Path, elsewhere: Path) -> None:
    (elsewhere / "secret").rename(elsewhere / path.name)
    path.parent.rmdir()
    path.parent.symlink_to(elsewhere)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()


def _null(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


Leave = Callable[[Path, Path], None]
hostile = pytest.mark.parametrize("leave", [_pipe, _link, _linked_folder, _folder, _null])


@hostile
def test_only_regular_files_in_their_place_are_read(
    leave: Leave, job: Path, elsewhere: Path
) -> None:
    path = job / "units" / "file"
    leave(path, elsewhere)
    with pytest.raises(OSError, match="no regular file") as error:
        left_files.read_left(path, 100, below=job)
    assert error.value.filename == str(path)
    assert last_lines(path, below=job) == ""


@pytest.mark.parametrize("name", ["../elsewhere/secret", "{elsewhere}/secret"])
async def test_what_is_not_below_the_folder_of_the_job_is_not_read(
    name: str, job: Path, elsewhere: Path
) -> None:
    path = job / name.format(elsewhere=elsewhere)
    with pytest.raises(OSError, match="it is not in"):
        left_files.read_left(path, 1000, below=job)
    told = await read_log(path, folder=job)
    assert "cannot be read: it is not in" in told
    assert SECRET not in told


@hostile
def test_only_regular_files_in_their_place_are_written_to(
    leave: Leave, job: Path, elsewhere: Path
) -> None:
    path = job / "units" / "file"
    leave(path, elsewhere)
    with pytest.raises(OSError, match="no regular file"):
        add_last_line(path, "The unit failed.", below=job)
    assert [each.read_text() for each in elsewhere.iterdir()] == [SECRET]


def test_a_file_that_has_another_name_is_not_written_to(job: Path, elsewhere: Path) -> None:
    (job / "log").hardlink_to(elsewhere / "secret")
    with pytest.raises(OSError, match="another name"):
        add_last_line(job / "log", "The unit failed.", below=job)
    assert (elsewhere / "secret").read_text() == SECRET


def test_no_more_is_read_than_is_allowed(job: Path) -> None:
    path = job / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 1,000 bytes"):
        left_files.read_left(path, 1000, below=job)
    with left_files.open_left(path, below=job) as file:
        assert len(left_files.two_ends(file, 1000, "file")) < 1100


@hostile
async def test_a_log_that_is_something_else_is_not_shown(
    leave: Leave, job: Path, elsewhere: Path
) -> None:
    path = job / "units" / "000000.log"
    leave(path, elsewhere)
    told = await read_log(path, folder=job)
    assert "cannot be read: it is no regular file" in told
    assert SECRET not in told


@pytest.mark.parametrize("leave", [_pipe, _link, _folder])
def test_the_log_of_a_job_is_not_written_elsewhere(
    leave: Leave, tmp_path: Path, elsewhere: Path
) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.create()
    leave(folder.log_path, elsewhere)
    with pytest.raises(OSError, match="no regular file"):
        folder.log("The job begins.")
    with pytest.raises(OSError, match="no regular file"):
        folder.read_log()
    assert (elsewhere / "secret").read_text() == SECRET


def test_only_batches_of_the_job_itself_are_stopped_with_it(job: Path, elsewhere: Path) -> None:
    (elsewhere / "parallel").mkdir()
    own = job / "0_task" / "batches"
    (own / "parallel").mkdir(parents=True)
    (own / "init").symlink_to(elsewhere / "parallel")
    (job / "units" / "batches").symlink_to(elsewhere)
    assert JobFolder(job).batches() == [own / "parallel"]


def test_an_archive_has_only_regular_files_and_of_large_ones_the_ends(
    job: Path, elsewhere: Path
) -> None:
    (job / JOB_LOG).write_text("The job begins.")
    os.mkfifo(job / "pipe")
    (job / "link").symlink_to(elsewhere / "secret")
    (job / "folder").symlink_to(elsewhere)
    os.mknod(os.fsencode(job / "units") + b"/\xff\n.log")
    with (job / "large.log").open("wb") as file:
        file.truncate(1 << 36)
    target = io.BytesIO()
    write_archive(job, target)
    with zipfile.ZipFile(target) as archive:
        assert archive.read(JOB_LOG) == b"The job begins."
        assert "bytes left out" in archive.read("large.log").decode()
        left_out = archive.read("left-out.txt").decode().splitlines()
        assert left_out == ["link: it is no regular file", "pipe: it is no regular file"]
        assert SECRET.encode() not in b"".join(map(archive.read, archive.namelist()))
    assert len(target.getvalue()) < 10 << 20


async def test_a_log_is_read_from_the_archive_when_the_folder_is_gone(job: Path) -> None:
    path = job / "units" / "000000.log"
    path.write_text("what the unit said")
    archive_folder(job)
    path.unlink()
    assert await read_log(path, folder=job) == "what the unit said"
    JobFolder(job).archive_path.write_text("no archive")
    assert "cannot be read from its archive" in await read_log(path, folder=job)


async def test_an_archive_that_is_a_link_is_not_sent(
    owner: Any, job_in_folder: dict[str, Any], elsewhere: Path
) -> None:
    folder = JobFolder(Path(job_in_folder["working_dir"]))
    folder.archive_path.symlink_to(elsewhere / "secret")
    url = f"/api/v2/project/{job_in_folder['project_id']}/job/{job_in_folder['id']}/"
    answer = await owner.get(f"{url}download/")
    assert answer.status_code == 404
    folder.log_path.unlink()
    os.mkfifo(folder.log_path)
    shown = await owner.ok("GET", f"{url}?show_tmp_logs=true")
    assert "The job begins" not in str(shown["log"])


@pytest.fixture
async def job_in_folder(
    runnable: dict[str, Any], dataset: dict[str, Any], submit: Any
) -> dict[str, Any]:
    """A submitted job, with a log in its folder."""
    job: dict[str, Any] = (await submit(runnable, dataset)).json()
    folder = JobFolder.of(JobV2(working_dir=job["working_dir"]))
    folder.create()
    folder.log("The job begins.")
    return job


def _batch(job: Path) -> Batch:
    return Batch(
        folder=job / "units" / "batches" / "parallel",
        units_dir=job / "units",
        command=("true",),
        common_args={},
        units=[BatchUnit(0, "000000", {})],
        max_parallel=1,
    )


@pytest.mark.parametrize("name", ["batch.json", "results.jsonl", "lock", "stderr", "probe", "stop"])
@pytest.mark.parametrize("leave", [_pipe, _link, _folder])
async def test_a_batch_in_whose_folder_anything_is_comes_to_an_end(
    leave: Leave, name: str, job: Path, elsewhere: Path
) -> None:
    """Whether it runs or is refused: nothing waits, and nothing is written elsewhere."""
    batch = _batch(job)
    if name != "batch.json":
        write_batch(batch)
    batch.folder.mkdir(parents=True, exist_ok=True)
    leave(batch.folder / name, elsewhere)

    async def take(_: object) -> None:
        return

    try:
        await LocalLauncher().run(batch, take)
    except OSError as error:
        assert str(batch.folder / name) in str(error)  # noqa: PT017  # either is right
    await LocalLauncher(stop_timeout=1.0).stop(batch.folder)
    assert not is_running(batch.folder)
    assert (elsewhere / "secret").read_text() == SECRET


@pytest.mark.parametrize("leave", [_pipe, _link, _folder])
def test_on_a_cluster_too_only_regular_files_are_read(
    leave: Leave, job: Path, elsewhere: Path
) -> None:
    batch = _batch(job)
    write_batch(batch)
    (job / "units" / "000000.log").write_text("what the unit said")
    leave(job / "units" / "000000.out.json", elsewhere)
    found = list(cluster_files.files_of_unit(cluster_files.read_batch(str(batch.folder)), "000000"))
    assert found == [("units/000000.log", b"what the unit said")]


def test_results_that_are_cut_or_removed_are_named(job: Path) -> None:
    path = job / "results.jsonl"
    path.write_text(f'{{"format": {unit_runner.FORMAT}, "host": "a"}}\n')
    cut, removed = ResultsReader(path), ResultsReader(path)
    assert (cut.read(), removed.read()) == ([], [])
    path.write_text("{}\n")
    with pytest.raises(Exception, match="was removed or cut while units ran"):
        cut.read()
    path.unlink()
    with pytest.raises(Exception, match="was removed or cut while units ran"):
        removed.read()
