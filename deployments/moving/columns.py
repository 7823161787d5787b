"""How rows of a table come into the table of the same name that another program has: as SQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fractal_models.schemas.base import CONTRACT_VERSION

# Values for columns that may not be null and have no fitting default. `old` is the row that is
# moved.
_FILLED = {
    ("accountingrecordslurm", "slurm_job_ids"): "'{}'",
    ("historyrun", "task_group_dump"): "'{}'",
    ("resource", "work_pool"): "old.name",
    ("taskgroupactivityv2", "fractal_server_version"): f"'{CONTRACT_VERSION}'",
}

# What fractal-prefect writes into a JSON column and fractal-server does not accept there, as if it
# was a column of its own.
_PARTS = {"jobv2": ("workflow_dump", "task_list")}

# Clients read the JSON null and NULL as the same, but fractal-prefect writes only NULL.
_WITHOUT_NULL = "nullif({0}::jsonb, 'null')"
_CONVERSIONS = {
    ("jsonb", "jsonb"): _WITHOUT_NULL,
    ("json", "jsonb"): _WITHOUT_NULL,
    ("json", "json"): "CASE json_typeof({0}) WHEN 'null' THEN NULL ELSE {0} END",
    ("jsonb", "json"): f"{_WITHOUT_NULL}::json",
    ("_varchar", "jsonb"): "to_jsonb({0})",
    ("jsonb", "_varchar"): "ARRAY(SELECT jsonb_array_elements_text({0}))",
}


@dataclass(frozen=True)
class Column:
    """A column. `type` is PostgreSQL's short name, `refers_to` the table of its foreign key."""

    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    refers_to: str | None = None


Table = Mapping[str, Column]  # by name
Tables = Mapping[str, Table]


@dataclass(frozen=True)
class Side:
    """A program that has tables in the database.

    `schema` is where they are while the other program has the schema `public`. `derived` are tables
    and columns (`table.column`) whose content is made from that of others.
    """

    name: str
    schema: str
    derived: frozenset[str] = frozenset()

    def kept(self, table: str) -> str:
        """The table of what only this program knows, while the other one has the database."""
        return f'{self.schema}."kept_{table}"'


FRACTAL_SERVER = Side("fractal-server", "fractal_server", frozenset({"datasetv2.images"}))
FRACTAL_PREFECT = Side(
    "fractal-prefect",
    "fractal_prefect",
    frozenset({"datasetimage", "imagefacet", "facetblock"}),
)


def copied_rows(
    table: str, giver: Side, source: Table, taker: Side, target: Table, kept: Table
) -> tuple[dict[str, str], str]:
    """An SQL expression for each column of the target, and the FROM of the query that reads them.

    `kept` is what the taker has kept of the table, from when it had the database before.
    """
    values = {
        column.name: value
        for column in target.values()
        if f"{table}.{column.name}" not in taker.derived
        and (value := _value(table, source, column, kept)) is not None
    }
    if table in _PARTS:
        column, part = _PARTS[table]
        values[column] = f"{values[column]} - '{part}'"
        if part in kept:
            put_back = f'jsonb_set(old."{column}", \'{{{part}}}\', kept."{part}")'
            values[column] = f"coalesce({put_back}, {values[column]})"
    joined = f" LEFT JOIN {taker.kept(table)} AS kept ON kept.id = old.id" if kept else ""
    return values, f'{giver.schema}."{table}" AS old{joined}'


def _value(table: str, source: Table, column: Column, kept: Table) -> str | None:
    """What comes into a column; None: its default, or NULL."""
    fill = _FILLED.get((table, column.name), column.default)
    if column.name in source:
        value = _converted(source[column.name], column)
        is_wider = source[column.name].nullable and not column.nullable
        return f"coalesce({value}, {fill})" if is_wider and fill else value
    if column.name in kept:
        value = f'kept."{column.name}"'
        return f"coalesce({value}, {fill})" if fill else value
    return _FILLED.get((table, column.name))


def _converted(source: Column, target: Column) -> str:
    value = f'old."{source.name}"'
    return _CONVERSIONS.get((source.type, target.type), "{0}").format(value)


def misfits(source: Tables, target: Tables, taker: Side) -> Iterator[str]:
    """What no rule here knows how to move, as sentences."""
    for table, columns in target.items():
        if table not in source:
            continue
        for column in columns.values():
            known = source[table].get(column.name)
            if known is None:
                is_made = (table, column.name) in _FILLED or column.default or column.nullable
                if not is_made and f"{table}.{column.name}" not in taker.derived:
                    yield f"{table}.{column.name} would be empty, which it may not be."
            elif known.type != column.type and (known.type, column.type) not in _CONVERSIONS:
                yield f"{table}.{column.name} is {known.type}, and should be {column.type}."


def narrower(source: Tables, target: Tables) -> Iterator[tuple[str, str]]:
    """Tables and columns that may be null in the source only, and get no value instead."""
    for table, columns in target.items():
        for column in columns.values():
            known = source.get(table, {}).get(column.name)
            has_value = column.nullable or column.default or (table, column.name) in _FILLED
            if known is not None and known.nullable and not has_value:
                yield table, column.name


def only_in(source: Tables, target: Tables, giver: Side) -> dict[str, tuple[str, ...]]:
    """By table, the columns that the target does not have; none for a table that it does not have.

    What is derived from something else is left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for table, columns in source.items():
        if table in giver.derived:
            continue
        if table not in target:
            found[table] = ()
        elif more := tuple(
            name
            for name in columns
            if name not in target[table] and f"{table}.{name}" not in giver.derived
        ):
            found[table] = more
    if giver is FRACTAL_PREFECT:
        for table in source.keys() & _PARTS.keys():
            found[table] = (*found.get(table, ()), _PARTS[table][1])
    return found


def kept_rows(table: str, columns: tuple[str, ...], source: Table, giver: Side) -> str:
    """The query for what the giver keeps of a table: all of it, or these columns where they say
    something, with the id."""
    rows = f'{giver.schema}."{table}"'
    if not columns:
        return f"SELECT * FROM {rows}"
    whole, part = _PARTS.get(table, ("", ""))
    values = {name: f"\"{whole}\"->'{part}'" if name == part else f'"{name}"' for name in columns}
    says = (
        f"{value} IS DISTINCT FROM {source[name].default}"
        if name in source and source[name].default and (table, name) not in _FILLED
        else f"{value} IS NOT NULL"
        for name, value in values.items()
    )
    named = ", ".join(f'{value} AS "{name}"' for name, value in values.items())
    return f"SELECT id, {named} FROM {rows} WHERE {' OR '.join(says)}"


def restored_rows(
    table: str, target: Table, kept: Table, taker: Side
) -> tuple[dict[str, str], str]:
    """As `copied_rows`, for a table that only the taker has, from what it has kept of it.

    A reference to a row that is gone becomes NULL; a row that needs it does not come back.
    """
    values, needed = {}, ["true"]
    for name in target.keys() & kept.keys():
        column = target[name]
        value = f'kept."{name}"'
        if column.refers_to:
            value = f'(SELECT id FROM public."{column.refers_to}" AS there WHERE id = {value})'
            if not column.nullable:
                needed.append(f"{value} IS NOT NULL")
        values[name] = value
    return values, f"{taker.kept(table)} AS kept WHERE {' AND '.join(needed)}"
