"""Which images of a dataset pass filters, as SQL: PostgreSQL reads only where there can be some.

A list is divided into blocks by the ids of its images. How many images of a block have a value of
an attribute or a type is counted whenever the list changes (`fractal_models.tables.FacetBlock`).

An image passes a type filter if its type has this value; a missing type counts as `False`. It
passes an attribute filter if it has the attribute with one of the values: `True` is not 1, but 1 is
1.0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, Result, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.images import STATUS_ATTRIBUTE, Scalar

# The status of the latest unit on an image, where units are joined; all that are not done.
STATUS = "coalesce(unit.status, 'unset')"
NOT_DONE = ("unset", "submitted", "failed")
# How many filters of a kind PostgreSQL is told one by one: thousands would take it seconds.
_MOST_ALONE = 20

# LIMIT keeps PostgreSQL from joining all units with all images: it looks up that of each image.
_WITH_UNITS = """
    LEFT JOIN LATERAL (
        SELECT unit.status, unit.has_warnings FROM historyimagecache AS cache
        JOIN historyunit AS unit ON unit.id = cache.latest_history_unit_id
        WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = :workflowtask_id
            AND cache.zarr_url = image.zarr_url
        LIMIT 1
    ) AS unit ON true"""

# OFFSET keeps PostgreSQL from reading the blocks of all facets: it looks up those of each.
_BLOCKS = """
    SELECT in_block.block, sum(in_block.count) AS count
    FROM imagefacet AS facet, LATERAL (
        SELECT block, count FROM facetblock
        WHERE dataset_id = :dataset_id AND digest = facet.digest AND count > 0 OFFSET 0
    ) AS in_block
    WHERE facet.dataset_id = :dataset_id AND facet.kind = """
_ALL = f"{_BLOCKS} 'image' GROUP BY in_block.block"
_WITH_ATTRIBUTE = f"""{_BLOCKS} 'attribute'
    AND facet.key = :key_{{n}} AND :values_{{n}} @> facet.value GROUP BY in_block.block"""
_WITH_TYPE = f"""{_BLOCKS} 'type'
    AND jsonb_build_object(facet.key, facet.value) = :type_{{n}} GROUP BY in_block.block"""
_WITHOUT_TYPE = f"""
    SELECT block, sum(count) AS count
    FROM ({_ALL} UNION ALL SELECT block, -count FROM ({_WITH_TYPE}) AS typed) AS counted
    GROUP BY block HAVING sum(count) > 0"""
_WITH_URL = """
    SELECT id >> 10 AS block, 1 AS count FROM datasetimage
    WHERE dataset_id = :dataset_id AND zarr_url = :zarr_url"""


@dataclass(slots=True)
class ImageSearch:
    """The images of a dataset that pass filters; in its SQL they are called `image`.

    With `workflowtask_id`, images have the status of the latest unit of that workflow task, and can
    be filtered by it.
    """

    dataset_id: int | None
    workflowtask_id: int | None = None
    _conditions: list[str] = field(default_factory=list)
    _known: list[str] = field(default_factory=list)  # blocks of conditions for which there are some
    _by_status: bool = False  # whether one of the conditions is about the units
    _parameters: list[BindParameter[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._parameters.append(bindparam("dataset_id", self.dataset_id))

    def filter_by(
        self, type_filters: Mapping[str, bool], attribute_filters: Mapping[str, Sequence[Scalar]]
    ) -> None:
        """Keep only images that pass these filters."""
        types = list(type_filters.items())
        # A status, which is no attribute of the table, is first.
        attributes = sorted(attribute_filters.items(), key=lambda each: each[0] != STATUS_ATTRIBUTE)
        for n, (key, wanted) in enumerate(types[:_MOST_ALONE], len(self._conditions)):
            self._parameters.append(bindparam(f"type_{n}", {key: True}, JSONB))
            known = _WITH_TYPE if wanted else _WITHOUT_TYPE
            self._where(f"{'' if wanted else 'NOT '}image.types @> :type_{n}", known.format(n=n))
        for n, (key, values) in enumerate(attributes[:_MOST_ALONE], len(self._conditions)):
            self._parameters.append(bindparam(f"values_{n}", list(values), JSONB))
            if key == STATUS_ATTRIBUTE and self.workflowtask_id is not None:
                self._by_status = True
                self._parameters.append(bindparam("workflowtask_id", self.workflowtask_id))
                self._where(f":values_{n} @> to_jsonb({STATUS})")
            else:
                self._parameters.append(bindparam(f"key_{n}", key, String))
                condition = f":values_{n} @> (image.attributes -> :key_{n})"
                self._where(condition, _WITH_ATTRIBUTE.format(n=n))
        if more := dict(types[_MOST_ALONE:]):
            self._where_all_types(more)
        if more_values := dict(attributes[_MOST_ALONE:]):
            self._where_all_attributes(more_values)

    def _where_all_types(self, wanted: Mapping[str, bool]) -> None:
        n = len(self._conditions)
        self._parameters += [
            bindparam(f"true_{n}", {key: True for key in wanted if wanted[key]}, JSONB),
            bindparam(f"false_{n}", [key for key in wanted if not wanted[key]], ARRAY(TEXT)),
        ]
        self._where(
            f"(image.types @> :true_{n} AND NOT EXISTS (SELECT FROM jsonb_each(image.types) AS own "
            f"WHERE own.value = 'true' AND own.key = ANY(:false_{n})))"
        )

    def _where_all_attributes(self, wanted: Mapping[str, Sequence[Scalar]]) -> None:
        n = len(self._conditions)
        self._parameters += [
            bindparam(f"keys_{n}", list(wanted), ARRAY(TEXT)),
            bindparam(f"wanted_{n}", {key: list(wanted[key]) for key in wanted}, JSONB),
        ]
        self._where(
            f"(image.attributes ?& :keys_{n} AND NOT EXISTS (SELECT FROM "
            f"jsonb_each(image.attributes) AS own WHERE NOT :wanted_{n} -> own.key @> own.value))"
        )

    def only(self, zarr_url: str) -> None:
        """Keep only the image with this URL."""
        self._parameters.append(bindparam("zarr_url", zarr_url, String))
        self._where("image.zarr_url = :zarr_url", _WITH_URL)

    def _where(self, condition: str, known: str | None = None) -> None:
        self._conditions.append(condition)
        if known is not None:
            self._known.append(known)

    @property
    def _candidates(self) -> str:
        """The blocks in which all conditions may find images, and the most that these can be."""
        known = self._known or [_ALL]
        return (
            f"SELECT block, min(count)::int AS count FROM ({' UNION ALL '.join(known)}) AS known "
            f"GROUP BY block HAVING count(*) = {len(known)}"
        )

    @property
    def blocks(self) -> str:
        """The blocks with images that pass, and how many these are.

        If there are several conditions, or one about units, the images must be read for that.
        """
        if len(self._conditions) == len(self._known) <= 1:
            return self._candidates
        return (
            f"SELECT block, passing.count FROM ({self._candidates}) AS candidate, "
            f"LATERAL (SELECT count(*)::int AS count {self.in_block}) AS passing "
            "WHERE passing.count > 0"
        )

    @property
    def passes(self) -> str:
        """Whether an image passes, as SQL; needs the join `units` to filter by status."""
        return " AND ".join(self._conditions) or "true"

    @property
    def in_block(self) -> str:
        """The images of the block `block` that pass: SQL from FROM on."""
        block = "image.id BETWEEN block << 10 AND (block << 10) + 1023"
        conditions = ["image.dataset_id = :dataset_id", block, *self._conditions]
        units = _WITH_UNITS if self._by_status else ""
        return f"FROM datasetimage AS image{units} WHERE {' AND '.join(conditions)}"

    @property
    def found(self) -> str:
        """All images that pass, in any order: SQL from FROM on."""
        return (
            f"FROM ({self._candidates}) AS candidate, "
            f"LATERAL (SELECT image.* {self.in_block} OFFSET 0) AS image"
        )

    @property
    def units(self) -> str:
        """The join of the latest units to images that have been found."""
        return "" if self.workflowtask_id is None else _WITH_UNITS

    async def run(
        self, session: AsyncSession, statement: str, *parameters: BindParameter[Any]
    ) -> Result[Any]:
        """Execute a statement that is made of this SQL."""
        return await session.execute(text(statement).bindparams(*self._parameters, *parameters))
