"""The images of a dataset by kind: how many there are that a job cannot tell apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Integer, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.image_search import ImageSearch
from fractal_models.images import STATUS_ATTRIBUTE, Scalar


@dataclass(frozen=True, slots=True)
class ImageKind:
    """Images with the same types, of which all pass the filters by attributes, or none does.

    `statuses` has, by id of a workflow task, the status of its latest unit on these images; unset
    ones are left out. `examples` are URLs of two of them, or of the only one.
    """

    number: int
    types: Mapping[str, bool]
    passes: bool = True
    statuses: Mapping[int, str] = field(default_factory=dict)
    examples: Sequence[str] = ()


# Of these workflow tasks, those that have run on a dataset.
_RAN = text(
    """
    SELECT id FROM unnest(:workflowtask_ids) AS asked(id) WHERE EXISTS (
        SELECT FROM historyimagecache AS cache
        WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = asked.id
    )
    """
).bindparams(bindparam("workflowtask_ids", type_=ARRAY(Integer)))

# OFFSET keeps PostgreSQL from reading all units: it looks up those of each image.
_STATUSES = """
    (SELECT jsonb_object_agg(latest.workflowtask_id, latest.status)
    FROM unnest(:ran) AS ran(id), LATERAL (
        SELECT cache.workflowtask_id, unit.status
        FROM historyimagecache AS cache
        JOIN historyunit AS unit ON unit.id = cache.latest_history_unit_id
        WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = ran.id
            AND cache.zarr_url = image.zarr_url OFFSET 0
    ) AS latest)"""


async def image_kinds(
    session: AsyncSession,
    dataset_id: int | None,
    attribute_filters: Mapping[str, Sequence[Scalar]],
    workflowtask_ids: Sequence[int],
) -> list[ImageKind]:
    """The kinds of a dataset's images; those that pass have their statuses in these workflow tasks.

    A filter by status is not applied: it is about one of these tasks.
    """
    search = ImageSearch(dataset_id)
    search.filter_by(
        {}, {key: each for key, each in attribute_filters.items() if key != STATUS_ATTRIBUTE}
    )
    asked = {"dataset_id": dataset_id, "workflowtask_ids": list(workflowtask_ids)}
    ran = list(await session.scalars(_RAN, asked))
    statuses = f"CASE WHEN {search.passes} THEN {_STATUSES} END" if ran else "NULL::jsonb"
    statement = f"""
        SELECT count(*), types, {search.passes}, {statuses}, min(zarr_url), max(zarr_url)
        FROM datasetimage AS image WHERE dataset_id = :dataset_id
        GROUP BY 2, 3, 4 ORDER BY min(id)"""
    parameters = [bindparam("ran", ran, ARRAY(Integer))] if ran else []
    found = await search.run(session, statement, *parameters)
    return [
        ImageKind(
            number=number,
            types=types,
            passes=passes,
            statuses={int(key): status for key, status in (of_tasks or {}).items()},
            examples=tuple(dict.fromkeys((first, last))),
        )
        for number, types, passes, of_tasks, first, last in found
    ]


_VALUES = text(
    """
    SELECT key, jsonb_agg(DISTINCT value) FROM imagefacet
    WHERE dataset_id = :dataset_id AND kind = 'attribute' GROUP BY key
    """
)


async def attribute_values(
    session: AsyncSession, dataset_id: int | None
) -> dict[str, Sequence[Scalar]]:
    """By attribute, the values that images of a dataset have."""
    found = await session.execute(_VALUES, {"dataset_id": dataset_id})
    return dict(found.tuples().all())
