"""All SQL of a move: what there is, what would not fit, and the move itself."""

import asyncio
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from deployments.moving.columns import (
    FRACTAL_PREFECT,
    FRACTAL_SERVER,
    Column,
    Side,
    Table,
    Tables,
    copied_rows,
    kept_rows,
    only_in,
    restored_rows,
)
from flows.reports.failure_log import log_of_failure
from flows.reports.quantities import count
from fractal_models.errors import FractalError
from fractal_models.tables.columns import now

_LOCK_SECONDS, _SECONDS_TO_GO = 5, 0.5
_MAX_URL_BYTES = 2000  # an index takes no longer ones
MAX_LIST_BYTES = 268_435_455  # PostgreSQL's limit of an array in a JSONB column
_IMAGE_FIELDS = "'{zarr_url,origin,attributes,types}'::text[]"
_NOT_OF_AN_EXTENSION = """
    NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
"""
_DOUBLED = FRACTAL_SERVER.kept("images")  # images that are in a list a second time


class DatabaseInUseError(FractalError):
    """Somebody else uses tables of the database."""


class MoveRefusedError(FractalError):
    """PostgreSQL refused a part of the move, so nothing was changed."""


class OpenJob(NamedTuple):
    """A job that is submitted."""

    id: int
    user_email: str
    dataset_id: int | None


class OpenActivity(NamedTuple):
    """An activity of a task group that is pending or ongoing."""

    id: int
    action: str
    pkg_name: str
    version: str


@dataclass(frozen=True)
class ImageList:
    """The images of a dataset: how many; how many again, not to be stored, or with more fields."""

    dataset_id: int
    images: int
    doubled: int = 0
    unusable: int = 0
    odd: int = 0


@dataclass(frozen=True)
class Space:
    """Bytes of all tables of a schema; and, if that can be seen, what is free on their disk."""

    used: int
    free: int | None


@asynccontextmanager
async def moving(url: URL) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction, which is committed at the end of the block.

    Raises:
        MoveRefusedError: a statement failed; nothing was changed.
    """
    # What is prepared before a table is moved is wrong after it.
    engine = create_async_engine(
        url, poolclass=NullPool, connect_args={"prepared_statement_cache_size": 0}
    )
    try:
        async with engine.begin() as connection:
            # A site may limit those of the user, who is that of a server.
            await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield connection
    except DBAPIError as error:
        told = " ".join(str(error.orig).split(">: ", 1)[-1].split())
        raise MoveRefusedError(f"PostgreSQL refuses: {told}. Nothing was changed.") from error
    finally:
        await engine.dispose()


# --- what there is


async def revision(connection: AsyncConnection, schema: str = "public") -> str | None:
    """The schema's revision in Alembic's words; None if there is none."""
    if await _one(connection, f"SELECT to_regclass('{schema}.alembic_version')") is None:
        return None
    found: str | None = await _one(connection, f"SELECT version_num FROM {schema}.alembic_version")
    return found


async def has_tables(connection: AsyncConnection, side: Side) -> bool:
    """Whether a program has tables beside those in the schema `public`."""
    return await revision(connection, side.schema) is not None


async def others(connection: AsyncConnection) -> list[str]:
    """Who else is connected to the database."""
    if not await _sessions(connection):
        return []
    # One that has just ended is still there for a moment.
    await asyncio.sleep(_SECONDS_TO_GO)
    await connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    return await _sessions(connection)


async def _sessions(connection: AsyncConnection) -> list[str]:
    rows = await connection.exec_driver_sql(
        """
        SELECT coalesce(nullif(application_name, ''), 'a program without a name')
            || coalesce(' at ' || host(client_addr), ''), count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend'
        GROUP BY 1 ORDER BY 1
        """
    )
    return [f"{who} ({number})" for who, number in rows]


async def tables_in(connection: AsyncConnection, schema: str = "public") -> Tables:
    """The tables of a schema with their columns, but for those in which something is kept."""
    rows = await connection.exec_driver_sql(
        f"""
        SELECT relname, attname, typname, NOT attnotnull, pg_get_expr(adbin, adrelid),
            (
                SELECT confrelid::regclass::text FROM pg_constraint
                WHERE conrelid = pg_class.oid AND contype = 'f' AND conkey = ARRAY[attnum] LIMIT 1
            )
        FROM pg_class
        JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
        JOIN pg_type ON pg_type.oid = atttypid
        LEFT JOIN pg_attrdef ON adrelid = pg_class.oid AND adnum = attnum
        WHERE relnamespace = to_regnamespace($1) AND relkind = 'r'
            AND relname <> 'alembic_version' AND relname NOT LIKE 'kept\\_%'
            AND {_NOT_OF_AN_EXTENSION}
        ORDER BY relname, attnum
        """,
        (schema,),
    )
    tables: dict[str, dict[str, Column]] = defaultdict(dict)
    for table, name, type_, nullable, default, refers_to in rows:
        fill = default if default and not default.startswith("nextval") else None
        target = refers_to.rpartition(".")[2].strip('"') if refers_to else None
        tables[table][name] = Column(name, type_, nullable, fill, target)
    return tables


async def kept_tables(connection: AsyncConnection, side: Side) -> Tables:
    """What a program has kept, by the table that it is of."""
    rows = await connection.exec_driver_sql(
        """
        SELECT substr(relname, 6), attname, typname FROM pg_class
        JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
        JOIN pg_type ON pg_type.oid = atttypid
        WHERE relnamespace = to_regnamespace($1) AND relname LIKE 'kept\\_%'
        """,
        (side.schema,),
    )
    tables: dict[str, dict[str, Column]] = defaultdict(dict)
    for table, name, type_ in rows:
        tables[table][name] = Column(name, type_)
    return tables


async def rows_of(connection: AsyncConnection, tables: Iterable[str]) -> dict[str, int]:
    """How many rows each of these tables has."""
    return {
        table: await _one(connection, f'SELECT count(*) FROM public."{table}"') for table in tables
    }


async def space_of(connection: AsyncConnection) -> Space:
    """What the tables take, and what is free, if PostgreSQL's folder is on this machine."""
    used = await _one(
        connection,
        """
        SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        """,
    )
    try:
        async with connection.begin_nested():
            here = await _one(connection, "SELECT inet_server_addr() IS NULL")
            folder = Path(await _one(connection, "SHOW data_directory"))
        free = shutil.disk_usage(folder).free if here else None
    except (ProgrammingError, OSError):  # this user may not ask; or must not look there
        free = None
    return Space(used, free)


async def open_jobs(connection: AsyncConnection) -> list[OpenJob]:
    rows = await connection.exec_driver_sql(
        "SELECT id, user_email, dataset_id FROM public.jobv2 WHERE status = 'submitted' ORDER BY id"
    )
    return [OpenJob(*row) for row in rows]


async def open_activities(connection: AsyncConnection) -> list[OpenActivity]:
    rows = await connection.exec_driver_sql(
        "SELECT id, action, pkg_name, version FROM public.taskgroupactivityv2"
        " WHERE status IN ('pending', 'ongoing') ORDER BY id"
    )
    return [OpenActivity(*row) for row in rows]


async def lists_of_fractal_server(connection: AsyncConnection) -> list[ImageList]:
    """The image lists of all datasets that have images."""
    rows = await connection.exec_driver_sql(
        f"""
        SELECT datasetv2.id, count(*), count(*) - count(DISTINCT image->>'zarr_url'),
            count(*) FILTER (
                WHERE coalesce(octet_length(image->>'zarr_url'), {_MAX_URL_BYTES + 1})
                    > {_MAX_URL_BYTES}
            ),
            count(*) FILTER (WHERE image - {_IMAGE_FIELDS} <> '{{}}')
        FROM public.datasetv2, jsonb_array_elements(images) AS image
        GROUP BY datasetv2.id ORDER BY datasetv2.id
        """
    )
    return [ImageList(*row) for row in rows]


async def lists_of_fractal_prefect(connection: AsyncConnection) -> list[ImageList]:
    """Those of all datasets. The images of one too long for a JSONB column are unusable."""
    rows = await connection.exec_driver_sql(
        f"""
        SELECT datasetv2.id, count(zarr_url), CASE WHEN sum(
                octet_length(zarr_url) + coalesce(octet_length(origin), 0)
                + pg_column_size(attributes) + pg_column_size(types) + 100
            ) > {MAX_LIST_BYTES} THEN count(*) ELSE 0 END
        FROM public.datasetv2 LEFT JOIN public.datasetimage ON dataset_id = datasetv2.id
        GROUP BY datasetv2.id ORDER BY datasetv2.id
        """
    )
    return [ImageList(dataset, images, unusable=bad) for dataset, images, bad in rows]


async def new_passwords(connection: AsyncConnection) -> list[str]:
    """Emails of users whose password was hashed here, which fractal-server does not understand."""
    rows = await connection.exec_driver_sql(
        "SELECT email FROM public.user_oauth WHERE hashed_password LIKE '$argon2%' ORDER BY id"
    )
    return [row[0] for row in rows]


# --- what would not fit


async def schema_of_fractal_prefect(connection: AsyncConnection) -> tuple[Tables, list[str]]:
    """Its tables and `rules_in` them, of a schema that is made for that and not kept."""
    made = "fractal_prefect_probe"
    async with connection.begin_nested() as probe:
        await connection.exec_driver_sql(f"CREATE SCHEMA {made}")
        await connection.exec_driver_sql(f"SET LOCAL search_path TO {made}")
        await migrations.upgrade_within(connection)
        tables = await tables_in(connection, made)
        rules = await rules_in(connection, made)
        await probe.rollback()
    return tables, rules


async def rules_in(connection: AsyncConnection, schema: str) -> list[str]:
    """Queries that tell, of the tables in `public`, what breaks a rule of a schema.

    Each gives the table, the rule and how many rows break it, if any do.
    """
    rows = await connection.exec_driver_sql(
        """
        SELECT relname, pg_get_expr(conbin, conrelid) FROM pg_constraint
        JOIN pg_class ON pg_class.oid = conrelid
        WHERE relnamespace = to_regnamespace($1) AND contype = 'c'
        """,
        (schema,),
    )
    checks = [_breaking(table, f"NOT ({rule})", rule) for table, rule in rows]
    rows = await connection.exec_driver_sql(
        """
        SELECT relname, pg_get_expr(indpred, indrelid), (
            SELECT array_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = ANY (indkey)
        ) AS columns
        FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
        WHERE relnamespace = to_regnamespace($1) AND indisunique AND NOT indisprimary
        """,
        (schema,),
    )
    return checks + [_repeating(table, where, columns) for table, where, columns in rows]


def _breaking(table: str, condition: str, rule: str) -> str:
    return (
        f"SELECT '{table}', {_quoted(rule)}, count(*) FROM public.\"{table}\""
        f" WHERE {condition} HAVING count(*) > 0"
    )


def _repeating(table: str, where: str | None, columns: Sequence[str]) -> str:
    given = " AND ".join([f"({where or 'true'})", *(f"{each} IS NOT NULL" for each in columns)])
    listed = ", ".join(columns)
    return (
        f"SELECT '{table}', {_quoted(f'one row for each {listed}')}, sum(n - 1)::bigint FROM ("
        f'SELECT count(*) AS n FROM public."{table}" WHERE {given}'
        f" GROUP BY {listed} HAVING count(*) > 1) AS repeated HAVING count(*) > 0"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def nulls(table: str, column: str) -> str:
    """As `rules_in`, for a column that may not be null."""
    return _breaking(table, f'"{column}" IS NULL', f"{column} is given")


async def broken(connection: AsyncConnection, rules: Iterable[str]) -> list[tuple[str, str, int]]:
    """Tables, rules, and how many rows break them. Rules of columns that are not there hold."""
    found = []
    for rule in rules:
        try:
            async with connection.begin_nested():
                found += [(*row,) for row in await connection.exec_driver_sql(rule)]
        except ProgrammingError as error:
            # It is of a table or a column that only the other program has.
            if getattr(error.orig, "sqlstate", None) not in ("42P01", "42703"):
                raise
    return found


# --- the move


async def lock(connection: AsyncConnection, tables: Iterable[str]) -> None:
    """Keep everybody else from these tables until the end of the transaction.

    Raises:
        DatabaseInUseError: somebody uses them.
    """
    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    listed = ", ".join(f'public."{table}"' for table in tables)
    try:
        await connection.exec_driver_sql(f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        raise DatabaseInUseError(
            f"Somebody uses tables of the database, for more than {_LOCK_SECONDS} s: stop all that "
            "does. Nothing was changed."
        ) from error


async def step_aside(connection: AsyncConnection, side: Side) -> None:
    """Move all tables of a program from the schema `public` to its own."""
    await connection.exec_driver_sql(f"CREATE SCHEMA {side.schema}")
    await _set_schema(connection, "public", side.schema)


async def come_back(connection: AsyncConnection, side: Side) -> None:
    """Move the tables of a program to the schema `public`, but for what it has kept."""
    await _set_schema(connection, side.schema, "public")


async def _set_schema(connection: AsyncConnection, before: str, after: str) -> None:
    """Move tables, views and the functions of triggers, but for what an extension has made."""
    rows = await connection.exec_driver_sql(
        f"""
        SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, format('%I', relname)
        FROM pg_class
        WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'v')
            AND relname NOT LIKE 'kept\\_%' AND {_NOT_OF_AN_EXTENSION}
        UNION ALL
        SELECT DISTINCT 'FUNCTION', format('%I', proname)
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        JOIN pg_proc ON pg_proc.oid = tgfoid AND pronamespace = relnamespace
        WHERE relnamespace = to_regnamespace($1) AND NOT tgisinternal
        """,
        (before,),
    )
    for kind, name in rows.all():
        await connection.exec_driver_sql(f"ALTER {kind} {before}.{name} SET SCHEMA {after}")


@dataclass(frozen=True)
class Move:
    """The tables of both programs in the middle of a move: those of the taker are in `public`."""

    connection: AsyncConnection
    giver: Side
    source: Tables
    taker: Side
    target: Tables
    kept: Tables

    async def copy(self, table: str, ids: Sequence[int] | None = None) -> int:
        """Copy the rows of a table that both have, or of these ids. How many there were."""
        values, rows = copied_rows(
            table, self.giver, self.source[table], self.taker, self.target[table], self._kept(table)
        )
        if self.giver is FRACTAL_PREFECT and table == "datasetv2":
            values["images"] = await self._list_of_images()
        where = "" if ids is None else " WHERE old.id = ANY($1)"
        return await self._insert(table, values, f"{rows}{where}", () if ids is None else (ids,))

    async def restore(self, table: str) -> int:
        """Fill a table that only the taker has with what it has kept of it. How many rows."""
        values, rows = restored_rows(table, self.target[table], self._kept(table), self.taker)
        return await self._insert(table, values, rows)

    async def copy_images(self, datasets: Sequence[int]) -> int:
        """Make rows of the image lists of datasets, and keep those that are there twice."""
        listed = (
            f"FROM {self.giver.schema}.datasetv2 AS old,"
            " jsonb_array_elements(images) WITH ORDINALITY AS listed(image, place)"
            " WHERE old.id = ANY($1)"
        )
        made = await self.connection.exec_driver_sql(
            f"""
            INSERT INTO public.datasetimage (dataset_id, zarr_url, origin, attributes, types)
            SELECT old.id, image->>'zarr_url', image->>'origin',
                coalesce(nullif(image->'attributes', 'null'), '{{}}'),
                coalesce(nullif(image->'types', 'null'), '{{}}')
            {listed} ORDER BY old.id, place ON CONFLICT (dataset_id, zarr_url) DO NOTHING
            """,
            (datasets,),
        )
        return made.rowcount

    async def keep_doubled(self, datasets: Sequence[int]) -> None:
        """Keep the images of these lists that are there a second time."""
        await self.connection.exec_driver_sql(
            f"""
            CREATE TABLE {_DOUBLED} AS SELECT dataset_id, image FROM (
                SELECT old.id AS dataset_id, image, place, row_number()
                    OVER (PARTITION BY old.id, image->>'zarr_url' ORDER BY place) AS n
                FROM {self.giver.schema}.datasetv2 AS old,
                    jsonb_array_elements(images) WITH ORDINALITY AS listed(image, place)
                WHERE old.id IN ({", ".join(map(str, datasets))})
            ) AS numbered WHERE n > 1 ORDER BY dataset_id, place
            """
        )

    async def go_on_counting(self, table: str) -> None:
        """Have the ids of new rows begin where those of the giver would."""
        theirs = await self._ids_of(self.giver.schema, table)
        ours = await self._ids_of("public", table)
        if theirs and ours:
            await self.connection.exec_driver_sql(
                f"SELECT setval('{ours}', last_value, is_called) FROM {theirs}"
            )

    async def keep(self) -> list[str]:
        """Keep what only the giver knows, and say of what that is."""
        told = []
        for table, columns in only_in(self.source, self.target, self.giver).items():
            name = self.giver.kept(table)
            rows = kept_rows(table, columns, self.source[table], self.giver)
            await self.connection.exec_driver_sql(f"CREATE TABLE {name} AS {rows}")
            if number := await _one(self.connection, f"SELECT count(*) FROM {name}"):
                what = ", ".join(columns) or "all columns"
                told.append(f"{name.replace(chr(34), '')}: {count(number, 'row')} ({what})")
        return told

    async def empty(self) -> None:
        """Remove the rows that were copied, and what the taker has kept, which is now in place."""
        listed = ", ".join(f'{self.giver.schema}."{table}"' for table in self.source)
        await self.connection.exec_driver_sql(f"TRUNCATE {listed}")
        await self.connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {self.taker.schema} CASCADE")

    async def end_jobs(self, jobs: Sequence[OpenJob], reason: str) -> None:
        """End the jobs that the giver left, with their runs and units, as failed."""
        ids = [job.id for job in jobs]
        await self.connection.exec_driver_sql(
            "UPDATE public.historyunit SET status = 'failed' FROM public.historyrun"
            " WHERE historyrun.id = history_run_id AND historyunit.status = 'submitted'"
            " AND job_id = ANY($1)",
            (ids,),
        )
        await self.connection.exec_driver_sql(
            "UPDATE public.historyrun SET status = 'failed'"
            " WHERE status = 'submitted' AND job_id = ANY($1)",
            (ids,),
        )
        for job in jobs:
            told = await _one(
                self.connection, f"SELECT coalesce(log, '') FROM public.jobv2 WHERE id = {job.id}"
            )
            await self.connection.exec_driver_sql(
                "UPDATE public.jobv2 SET status = 'failed', end_timestamp = $2, log = $3"
                " WHERE id = $1 AND status = 'submitted'",
                (job.id, now(), log_of_failure(job.id, reason, told)),
            )

    async def end_activities(self, activities: Sequence[OpenActivity], reason: str) -> None:
        """End the activities of task groups that the giver left, as failed."""
        await self.connection.exec_driver_sql(
            "UPDATE public.taskgroupactivityv2 SET status = 'failed', timestamp_ended = $2,"
            " log = concat_ws(E'\\n', log, $3::text)"
            " WHERE id = ANY($1) AND status IN ('pending', 'ongoing')",
            ([each.id for each in activities], now(), reason),
        )

    async def _ids_of(self, schema: str, table: str) -> str | None:
        """The sequence of a table's ids; None if it has no column `id`."""
        if "id" not in self.target[table]:
            return None
        sequence = f"SELECT pg_get_serial_sequence('{schema}.{table}', 'id')"
        found: str | None = await _one(self.connection, sequence)
        return found

    def _kept(self, table: str) -> Table:
        return self.kept.get(table, {})

    async def _insert(
        self, table: str, values: dict[str, str], rows: str, parameters: tuple[Any, ...] = ()
    ) -> int:
        columns = ", ".join(f'"{name}"' for name in values)
        made = await self.connection.exec_driver_sql(
            f'INSERT INTO public."{table}" ({columns}) SELECT {", ".join(values.values())}'
            f" FROM {rows}",
            parameters,
        )
        return made.rowcount

    async def _list_of_images(self) -> str:
        """An SQL expression: the image list of a dataset, as fractal-server has it."""
        images = f"{self.giver.schema}.datasetimage AS image"
        listed = f"""
            coalesce((SELECT jsonb_agg(jsonb_build_object('zarr_url', zarr_url, 'origin', origin,
                'attributes', attributes, 'types', types) ORDER BY id)
            FROM {images} WHERE dataset_id = old.id), '[]')
        """
        if await _one(self.connection, f"SELECT to_regclass('{_DOUBLED}')") is None:
            return listed
        return f"""
            {listed} || coalesce((SELECT jsonb_agg(again.image) FROM {_DOUBLED} AS again
            WHERE dataset_id = old.id AND EXISTS (SELECT FROM {images}
                WHERE dataset_id = old.id AND zarr_url = again.image->>'zarr_url')), '[]')
        """


async def analyse(url: URL) -> None:
    """Have PostgreSQL take its statistics of all tables."""
    async with moving(url) as connection:
        await connection.exec_driver_sql("ANALYZE")


async def _one(connection: AsyncConnection, query: str) -> Any:
    return (await connection.exec_driver_sql(query)).scalar_one()
