"""What a move would do, and what stands in its way: decided from facts, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.moving.database import ImageList, OpenActivity, OpenJob, Space
from flows.reports.quantities import count, memory

# The schemas that are understood, by Alembic's revision, with the first version that has each.
REVISIONS = {
    "daecd41f37da": "2.24.0",
    "d4027db95431": "2.24.1",
    "3ddaf7271fc3": "2.25.0",
    "0c5e3f92c3a8": "2.25.4",
}
_RIGHT = "fractal-server 2.24.0 to 2.26.0"

# Measured with benchmarks/moving.py: bytes that the new tables take for each of the old ones, and
# rows (images count too) that are moved in a second on a slow machine.
_GROWTH = 4.0
_ROWS_PER_SECOND = 20_000
_MANY = 10  # more are counted, not named


@dataclass(frozen=True)
class Facts:
    """What was found in the database of the one who gives it."""

    others: Sequence[str]
    jobs: Sequence[OpenJob]
    activities: Sequence[OpenActivity]
    lists: Sequence[ImageList]
    rows: Mapping[str, int]
    space: Space
    misfits: Sequence[str] = ()
    broken: Sequence[tuple[str, str, int]] = ()
    unknown_tables: Sequence[str] = ()
    new_passwords: Sequence[str] = ()

    @property
    def images(self) -> int:
        return sum(each.images for each in self.lists)

    @property
    def seconds(self) -> float:
        """How long the move may take."""
        return (sum(self.rows.values()) + self.images) / _ROWS_PER_SECOND


@dataclass(frozen=True)
class Plan:
    """`deeds` are what would be done; `hindrances`, what must be mended first."""

    deeds: list[str]
    hindrances: list[str] = field(default_factory=list)


def is_understood(revision: str) -> bool:
    return revision in REVISIONS


def wrong_version(revision: str) -> str:
    """Why a database of another version is not taken."""
    return (
        f"Its schema, {revision}, is not one of {_RIGHT}. If it is older, install fractal-server "
        "2.25.4 and run `fractalctl set-db` on it first; if it is newer, this version of "
        "fractal-prefect does not know it."
    )


def plan_of_adoption(facts: Facts) -> Plan:
    """What `db adopt` would do."""
    deeds = _deeds(facts)
    deeds += [f"{each}: it is ended as failed." for each in _open(facts)]
    if doubled := [each for each in facts.lists if each.doubled]:
        number = sum(each.doubled for each in doubled)
        deeds.append(
            f"{_datasets(doubled)}: {count(number, 'image')} in the list a second time: kept in "
            "fractal_server.kept_images."
        )
    hindrances = _hindrances(facts)
    if unusable := [each for each in facts.lists if each.unusable]:
        hindrances.append(
            f"{_datasets(unusable)}: images without a zarr_url, or with one of more than 2,000 "
            "bytes."
        )
    if odd := [each for each in facts.lists if each.odd]:
        hindrances.append(
            f"{_datasets(odd)}: images with fields that are not zarr_url, origin, attributes or "
            "types."
        )
    return Plan(deeds, hindrances)


def plan_of_return(facts: Facts) -> Plan:
    """What `db return` would do."""
    deeds = _deeds(facts)
    if number := facts.rows.get("schedule"):
        deeds.append(
            f"{count(number, 'schedule')}: kept in fractal_prefect.kept_schedule, as "
            "fractal-server has none."
        )
    if facts.new_passwords:
        deeds.append(
            "fractal-server does not understand the passwords that were set here. Give these users "
            f"new ones there: {_named(facts.new_passwords)}."
        )
    hindrances = [
        f"{each}: wait for its end, or end it, as fractal-server cannot go on with it."
        for each in _open(facts)
    ]
    if unusable := [each for each in facts.lists if each.unusable]:
        hindrances.append(
            f"{_datasets(unusable)}: too many images for fractal-server, whose lists have at most "
            "256 MiB. Split or delete it."
        )
    return Plan(deeds, _hindrances(facts) + hindrances)


def _deeds(facts: Facts) -> list[str]:
    minutes = max(1, round(facts.seconds / 60))
    free = "" if facts.space.free is None else f" ({_size(facts.space.free)} are free)"
    rows = ", ".join(f"{table} {number:,}" for table, number in facts.rows.items() if number)
    return [
        f"Rows to move: {rows or 'none'}.",
        f"Images to move: {facts.images:,}, of {len(facts.lists):,} datasets.",
        f"Time: at most about {minutes} min, in one transaction. Space: about "
        f"{_size(_needed(facts))} where PostgreSQL has its data{free}; as much as it has now is "
        "free again at the end.",
    ]


def _hindrances(facts: Facts) -> list[str]:
    found = []
    if facts.others:
        found.append(
            "Others are connected to the database, perhaps a server that runs jobs. Stop them: "
            f"{_named(facts.others)}."
        )
    if facts.space.free is not None and facts.space.free < _needed(facts):
        found.append(
            f"Space: about {_size(_needed(facts))} are needed where PostgreSQL has its data, "
            f"{_size(facts.space.free)} are free."
        )
    if facts.unknown_tables:
        found.append(
            "The schema `public` has tables that are of neither program; move them to another "
            f"schema: {_named(facts.unknown_tables)}."
        )
    found += facts.misfits
    found += [
        f"{table}: {count(number, 'row')} against a rule: {rule}."
        for table, rule, number in facts.broken
    ]
    return found


def _open(facts: Facts) -> Iterator[str]:
    for job in facts.jobs:
        yield f"Job {job.id} of {job.user_email} on dataset {job.dataset_id} is submitted"
    for each in facts.activities:
        yield f"Activity {each.id} ({each.action} {each.pkg_name} {each.version}) has not ended"


def _needed(facts: Facts) -> int:
    return round(_GROWTH * facts.space.used)


def _datasets(lists: Sequence[ImageList]) -> str:
    return f"Datasets {_named([str(each.dataset_id) for each in lists])}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY:,} more" if len(names) > _MANY else ""
    return f"{', '.join(names[:_MANY])}{more}"


def _size(number: int) -> str:
    return memory(number / 1024)
