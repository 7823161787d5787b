"""The commands `db adopt` and `db return`: look, tell, and move."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel, col, select

import fractal_models.tables  # noqa: F401  (fills the metadata)
import migrations
from deployments.moving import database
from deployments.moving.columns import (
    FRACTAL_PREFECT,
    FRACTAL_SERVER,
    Side,
    Tables,
    misfits,
    narrower,
)
from deployments.moving.database import ImageList, Move
from deployments.moving.plan import (
    Facts,
    Plan,
    is_understood,
    plan_of_adoption,
    plan_of_return,
    wrong_version,
)
from flows.reports.quantities import count
from fractal_models.database import open_database
from fractal_models.errors import FractalError
from fractal_models.settings import PrefectSettings
from fractal_models.tables import Resource

_LEFT = "fractal-server had left it submitted when its database was taken over."
_LEFT_ACTIVITY = "fractal-server had not ended it when its database was taken over: try it again."
_IMAGES_AT_ONCE = 50_000
_MANY_ROWS = 100_000  # they take some seconds

Tell = Callable[[str], object]


class CannotMoveError(FractalError):
    """Something stands in the way of a move; the message names it. Nothing was changed."""


class UnpublishedResourcesError(FractalError):
    """The database is moved, but Prefect does not know all resources; the message says why."""


@dataclass(frozen=True)
class Found:
    """What is to be moved, and to which tables."""

    source: Tables
    target: Tables
    facts: Facts


async def adopt(url: URL, tell: Tell, *, only_check: bool = False) -> None:
    """Take over the database of a fractal-server, if that was not done before.

    Raises:
        CannotMoveError, DatabaseInUseError, MoveRefusedError: nothing was changed.
        DatabaseUnusableError: it cannot be reached.
    """
    await migrations.require_reachable(url)
    async with database.moving(url) as connection:
        if await database.has_tables(connection, FRACTAL_SERVER):
            tell("The database was taken over from fractal-server before.")
            return
        await _require_fractal_server(connection)
        found = await _look_at_fractal_server(connection)
        _require_free_way(plan_of_adoption(found.facts), tell, only_check)
        if only_check:
            return
        await _take(connection, found, tell)
    await database.analyse(url)
    tell("The database is fractal-prefect's now.")


async def give_back(url: URL, tell: Tell, *, only_check: bool = False) -> None:
    """Give a database back to the fractal-server that it was taken from.

    Raises:
        CannotMoveError, DatabaseInUseError, MoveRefusedError: nothing was changed.
        DatabaseUnusableError: it cannot be reached, or has another schema.
    """
    await migrations.require_reachable(url)
    async with database.moving(url) as connection:
        if not await database.has_tables(connection, FRACTAL_SERVER):
            raise CannotMoveError("The database was not taken over from fractal-server.")
    await migrations.require_newest(url)
    async with database.moving(url) as connection:
        found = await _look_at_fractal_prefect(connection)
        _require_free_way(plan_of_return(found.facts), tell, only_check)
        if only_check:
            return
        await _return(connection, found, tell)
    await database.analyse(url)
    tell("The database is fractal-server's again: start it.")


async def publish_resources(url: URL, settings: PrefectSettings, tell: Tell) -> None:
    """Make work pools and deployments for all resources, as their workers would.

    Raises:
        UnpublishedResourcesError: Prefect does not answer.
    """
    from flows.engine.client import EngineError, open_engine
    from flows.engine.publication import publish_resource

    async with open_engine(settings) as engine, open_database(url) as sessions:
        async with sessions() as session:
            resources = (await session.exec(select(Resource).order_by(col(Resource.id)))).all()
        for resource in resources:
            try:
                await publish_resource(engine, resource)
            except EngineError as error:
                raise UnpublishedResourcesError(
                    f"Resource {resource.name!r} has no work pool yet: run this again, or start "
                    f"its worker. {error}"
                ) from error
            tell(f"Resource {resource.name!r} has a work pool and deployments in Prefect.")


# --- looking


async def _require_fractal_server(connection: AsyncConnection) -> None:
    revision = await database.revision(connection)
    if revision is None:
        raise CannotMoveError(
            "There is no fractal-server in the database: it has no table `alembic_version`. Set "
            "FRACTAL_DATABASE_URL to the one that POSTGRES_DB of fractal-server names."
        )
    if revision.isdecimal():
        raise CannotMoveError(
            "The database is fractal-prefect's and was not taken over from fractal-server: there "
            "is nothing to adopt."
        )
    if not is_understood(revision):
        raise CannotMoveError(wrong_version(revision))


async def _look_at_fractal_server(connection: AsyncConnection) -> Found:
    target, rules = await database.schema_of_fractal_prefect(connection)
    lists = await database.lists_of_fractal_server(connection)
    return await _look(connection, FRACTAL_SERVER, FRACTAL_PREFECT, target, rules, lists)


async def _look_at_fractal_prefect(connection: AsyncConnection) -> Found:
    target = await database.tables_in(connection, FRACTAL_SERVER.schema)
    rules = await database.rules_in(connection, FRACTAL_SERVER.schema)
    lists = await database.lists_of_fractal_prefect(connection)
    found = await _look(connection, FRACTAL_PREFECT, FRACTAL_SERVER, target, rules, lists)
    new_passwords = await database.new_passwords(connection)
    return replace(found, facts=replace(found.facts, new_passwords=new_passwords))


async def _look(
    connection: AsyncConnection,
    giver: Side,
    taker: Side,
    target: Tables,
    rules: Sequence[str],
    lists: Sequence[ImageList],
) -> Found:
    """What the giver has, and what of it breaks the rules of the taker's tables."""
    source = await database.tables_in(connection)
    moved = [table for table in _ordered(source) if table not in giver.derived]
    return Found(
        source,
        target,
        Facts(
            others=await database.others(connection),
            jobs=await database.open_jobs(connection),
            activities=await database.open_activities(connection),
            lists=lists,
            rows=await database.rows_of(connection, moved),
            space=await database.space_of(connection),
            misfits=list(misfits(source, target, taker)),
            broken=await database.broken(connection, [*rules, *_nulls(source, target)]),
            unknown_tables=sorted(source.keys() - SQLModel.metadata.tables.keys()),
        ),
    )


def _nulls(source: Tables, target: Tables) -> list[str]:
    return [database.nulls(table, column) for table, column in narrower(source, target)]


def _ordered(tables: Tables) -> list[str]:
    """Their names, each after those of the tables that it refers to."""
    return [table.name for table in SQLModel.metadata.sorted_tables if table.name in tables]


def _require_free_way(plan: Plan, tell: Tell, only_check: bool) -> None:
    for deed in plan.deeds:
        tell(deed)
    if plan.hindrances:
        listed = "\n".join(f"- {each}" for each in plan.hindrances)
        raise CannotMoveError(f"This stands in the way; nothing was changed.\n{listed}")
    if only_check:
        tell("Nothing stands in the way. Nothing was changed.")


# --- moving


async def _take(connection: AsyncConnection, found: Found, tell: Tell) -> None:
    facts = found.facts
    await database.lock(connection, found.source)
    kept = await database.kept_tables(connection, FRACTAL_PREFECT)
    is_back = await database.has_tables(connection, FRACTAL_PREFECT)
    await database.step_aside(connection, FRACTAL_SERVER)
    if is_back:
        await database.come_back(connection, FRACTAL_PREFECT)
    await migrations.upgrade_within(connection)
    move = Move(connection, FRACTAL_SERVER, found.source, FRACTAL_PREFECT, found.target, kept)
    await _copy_tables(move, facts, tell)
    await _copy_images(move, facts, tell)
    await move.end_jobs(facts.jobs, _LEFT)
    await move.end_activities(facts.activities, _LEFT_ACTIVITY)
    for table in _ordered(found.target):
        is_own = table not in found.source and table in kept
        if is_own and (number := await move.restore(table)):
            tell(f"{table}: {count(number, 'row')} came back, as fractal-prefect had left it.")
    await _finish(move, tell)


async def _return(connection: AsyncConnection, found: Found, tell: Tell) -> None:
    await database.lock(connection, found.source)
    kept = await database.kept_tables(connection, FRACTAL_SERVER)
    await database.step_aside(connection, FRACTAL_PREFECT)
    await database.come_back(connection, FRACTAL_SERVER)
    move = Move(connection, FRACTAL_PREFECT, found.source, FRACTAL_SERVER, found.target, kept)
    await _copy_tables(move, found.facts, tell)
    await _finish(move, tell)


async def _copy_tables(move: Move, facts: Facts, tell: Tell) -> None:
    """Copy the rows of all tables that both have."""
    for table in _ordered(move.source):
        if table not in move.target:
            continue
        began = time.monotonic()
        if facts.rows[table] > _MANY_ROWS:
            tell(f"{table}: {facts.rows[table]:,} rows ...")
        if table == "datasetv2" and move.giver is FRACTAL_PREFECT:
            number = 0
            for datasets in _portions(facts.lists):
                number += await move.copy(table, datasets)
                tell(f"{table}: {number:,} of {facts.rows[table]:,} rows")
        else:
            number = await move.copy(table)
        if number != facts.rows[table]:
            raise CannotMoveError(
                f"{table}: {number:,} rows came of {facts.rows[table]:,}. Nothing was changed."
            )
        await move.go_on_counting(table)
        if number:
            tell(f"{table}: {count(number, 'row')}, {time.monotonic() - began:.1f} s")


async def _copy_images(move: Move, facts: Facts, tell: Tell) -> None:
    number, began = 0, time.monotonic()
    expected = facts.images - sum(each.doubled for each in facts.lists)
    for datasets in _portions(facts.lists):
        number += await move.copy_images(datasets)
        tell(f"images: {number:,} of {expected:,}, {time.monotonic() - began:.1f} s")
    if number != expected:
        raise CannotMoveError(f"{number:,} images came of {expected:,}. Nothing was changed.")
    if doubled := [each.dataset_id for each in facts.lists if each.doubled]:
        await move.keep_doubled(doubled)


def _portions(lists: Sequence[ImageList]) -> Iterator[list[int]]:
    """Ids of datasets, of so many at once that their images are many, if there are."""
    portion: list[int] = []
    images = 0
    for each in lists:
        portion.append(each.dataset_id)
        images += each.images
        if images >= _IMAGES_AT_ONCE:
            yield portion
            portion, images = [], 0
    if portion:
        yield portion


async def _finish(move: Move, tell: Tell) -> None:
    for line in await move.keep():
        tell(f"Kept, as {move.taker.name} has no place for it, in {line}.")
    await move.empty()
