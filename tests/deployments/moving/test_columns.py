"""How rows come from one program's tables into the other's: as SQL, without a database."""

import pytest

from deployments.moving.columns import (
    FRACTAL_PREFECT,
    FRACTAL_SERVER,
    Column,
    Side,
    Table,
    copied_rows,
    kept_rows,
    misfits,
    narrower,
    only_in,
    restored_rows,
)

ID = Column("id", "int4", nullable=False)
NOTHING: Table = {}


def table(*columns: Column) -> Table:
    return {each.name: each for each in (ID, *columns)}


def adopted(source: Column, target: Column, name: str = "t", kept: Table = NOTHING) -> str:
    """What comes into a column from one of the same or of another name."""
    values, _ = copied_rows(
        name, FRACTAL_SERVER, table(source), FRACTAL_PREFECT, table(target), kept
    )
    return values.get(target.name, "nothing")


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("int4", "int4", 'old."c"'),
        ("jsonb", "jsonb", "nullif(old.\"c\"::jsonb, 'null')"),
        ("json", "jsonb", "nullif(old.\"c\"::jsonb, 'null')"),
        ("json", "json", 'CASE json_typeof(old."c") WHEN \'null\' THEN NULL ELSE old."c" END'),
        ("jsonb", "json", "nullif(old.\"c\"::jsonb, 'null')::json"),
        ("_varchar", "jsonb", 'to_jsonb(old."c")'),
        ("jsonb", "_varchar", 'ARRAY(SELECT jsonb_array_elements_text(old."c"))'),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_column(
    before: str, after: str, value: str
) -> None:
    assert adopted(Column("c", before), Column("c", after)) == value


def test_what_may_not_be_null_gets_the_default() -> None:
    target = Column("c", "_varchar", nullable=False, default="'{}'::varchar[]")

    assert adopted(Column("c", "_varchar"), target) == "coalesce(old.\"c\", '{}'::varchar[])"
    assert adopted(Column("c", "_varchar", nullable=False), target) == 'old."c"'


def test_a_column_that_only_the_taker_has_gets_what_it_has_kept() -> None:
    target = Column("stop_reason", "varchar")

    assert adopted(Column("c", "int4"), target) == "nothing"
    assert adopted(Column("c", "int4"), target, kept=table(target)) == 'kept."stop_reason"'


def test_the_work_pool_of_a_resource_is_that_which_it_had_or_its_name() -> None:
    name, pool = Column("name", "varchar"), Column("work_pool", "varchar", nullable=False)

    assert adopted(name, pool, "resource") == "old.name"
    assert adopted(name, pool, "resource", table(pool)) == 'coalesce(kept."work_pool", old.name)'


def test_kept_columns_are_joined_by_the_id() -> None:
    columns = table(Column("c", "int4"))

    def rows(kept: Table) -> str:
        return copied_rows("t", FRACTAL_SERVER, columns, FRACTAL_PREFECT, columns, kept)[1]

    assert rows(NOTHING) == 'fractal_server."t" AS old'
    assert rows(columns) == (
        'fractal_server."t" AS old LEFT JOIN fractal_prefect."kept_t" AS kept ON kept.id = old.id'
    )


def test_columns_that_nobody_knows_to_move_are_told() -> None:
    source = {"t": table(Column("c", "int4"))}
    target = {"t": table(Column("c", "uuid"), Column("d", "int4", nullable=False)), "u": table()}

    assert list(misfits(source, target, FRACTAL_PREFECT)) == [
        "t.c is int4, and should be uuid.",
        "t.d would be empty, which it may not be.",
    ]


def test_columns_in_which_nulls_would_be_too_many_are_told() -> None:
    source = {"t": table(Column("a", "int4"), Column("b", "int4"))}
    target = {
        "t": table(
            Column("a", "int4", nullable=False), Column("b", "int4", nullable=False, default="1")
        )
    }

    assert list(narrower(source, target)) == [("t", "a")]


def test_what_only_one_has_is_kept_but_for_what_is_derived() -> None:
    own = {"t": table(Column("a", "int4", default="0"), Column("b", "int4")), "u": table()}
    derived = {"datasetimage": table(), "datasetv2": table(Column("images", "jsonb"))}
    other = {"t": table(), "datasetv2": table()}

    found = only_in({**own, **derived}, other, FRACTAL_PREFECT)
    assert found == {"t": ("a", "b"), "u": (), "datasetv2": ("images",)}
    assert only_in(derived, other, FRACTAL_SERVER) == {"datasetimage": ()}
    assert kept_rows("t", found["t"], own["t"], FRACTAL_PREFECT) == (
        'SELECT id, "a" AS "a", "b" AS "b" FROM fractal_prefect."t"'
        ' WHERE "a" IS DISTINCT FROM 0 OR "b" IS NOT NULL'
    )
    assert kept_rows("u", (), own["u"], FRACTAL_PREFECT) == 'SELECT * FROM fractal_prefect."u"'


def test_the_tasks_of_a_job_are_no_part_of_the_workflow_that_fractal_server_gets() -> None:
    dump, task_list = Column("workflow_dump", "jsonb"), Column("task_list", "jsonb")
    jobs = table(dump)

    def value(giver: Side, taker: Side, kept: Table) -> str:
        return copied_rows("jobv2", giver, jobs, taker, jobs, kept)[0]["workflow_dump"]

    without = "nullif(old.\"workflow_dump\"::jsonb, 'null') - 'task_list'"
    assert value(FRACTAL_PREFECT, FRACTAL_SERVER, NOTHING) == without
    assert only_in({"jobv2": jobs}, {"jobv2": jobs}, FRACTAL_PREFECT) == {"jobv2": ("task_list",)}
    assert kept_rows("jobv2", ("task_list",), jobs, FRACTAL_PREFECT) == (
        'SELECT id, "workflow_dump"->\'task_list\' AS "task_list" FROM fractal_prefect."jobv2"'
        " WHERE \"workflow_dump\"->'task_list' IS NOT NULL"
    )
    assert value(FRACTAL_SERVER, FRACTAL_PREFECT, table(task_list)) == (
        f'coalesce(jsonb_set(old."workflow_dump", \'{{task_list}}\', kept."task_list"), {without})'
    )


def test_a_kept_row_comes_back_without_references_to_what_is_gone() -> None:
    columns = table(
        Column("dataset_id", "int4", refers_to="datasetv2"),
        Column("user_id", "int4", nullable=False, refers_to="user_oauth"),
    )

    values, rows = restored_rows("schedule", columns, columns, FRACTAL_PREFECT)

    dataset = '(SELECT id FROM public."datasetv2" AS there WHERE id = kept."dataset_id")'
    user = '(SELECT id FROM public."user_oauth" AS there WHERE id = kept."user_id")'
    assert values == {"id": 'kept."id"', "dataset_id": dataset, "user_id": user}
    assert rows == f'fractal_prefect."kept_schedule" AS kept WHERE true AND {user} IS NOT NULL'
