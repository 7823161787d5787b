"""What a request can have wrong, or nearly so."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.differential.servers import DIRECTORY, Form, Id, Raw

Place = tuple[Any, ...]

_STRINGS = [
    "",
    " ",
    "\t\n",
    " padded ",
    "two  blanks",
    "line\nbreak",
    "é",
    "\u4e2d\u6587",
    "\U0001f600",
    "a\u0000b",
    "\ud800",
    "\u001b[1m",
    "x" * 300,
    "a;b",
    "$(id)",
    "`id`",
    "'quoted'",
    '"quoted"',
    "<b>",
    "a&b",
    "a|b",
    "a/b",
    "../up",
    "/elsewhere/x",
    f"{DIRECTORY}/zarrs",
    f"{DIRECTORY}/zarrs/",
    f"{DIRECTORY}/zarrs/plate.zarr/A1/0",
    f"{DIRECTORY}/zarrs/plate.zarr/A1/0/",
    f"{DIRECTORY}/zarrs/../x",
    f"{DIRECTORY}/zarrs//x",
    f"{DIRECTORY}/zarrs-sibling/x",
    f"{DIRECTORY}/new/image",
    "s3://bucket/key",
    "https://example.org/x",
    "relative/path",
    "~/x",
    "null",
    "true",
    "1",
    "1.0",
    "NaN",
    "2020-01-01",
    "2020-01-01T00:00:00",
    "2020-01-01T00:00:00+02:00",
    "not@an.email",
    "rwx",
    "done",
    "local",
    "slurm_sudo",
    "parallel",
    "3.12",
    "__wftask_dataset_image_status__",
]
_NUMBERS = [0, -1, 3, 2**31, 2**63, 10**25, 1.0, 1.5, -0.0, 1e300, float("nan"), float("inf")]
_STRUCTURES = [
    None,
    True,
    False,
    [],
    {},
    [None],
    ["a", "a"],
    [1, True, 1.0],
    {"a": None},
    {"": True},
    {" a ": True},
    {"a": True, " a": False},
    {"a": "yes"},
    {"a": 1},
    {"a": 0.0},
    {"a": []},
    {"a": [1, "x"]},
    {"a": {"b": {"c": 1}}},
]
_ODD_BODIES = [
    Raw(""),
    Raw("{"),
    Raw("null"),
    Raw("[]"),
    Raw("{}"),
    Raw("1"),
    Raw('"text"'),
    Raw("[{}]"),
    Raw("{}", "text/plain"),
    Raw("{}", "application/x-www-form-urlencoded"),
]
_IDS = [-1, 0, 10**6, 2**31, 2**63, "abc", "1.0", "1e3", "true", " ", "%00"]


def odd_value(random: Random, place: Place) -> Any:
    """Anything; in the place of an id nothing that could be somebody's."""
    if any("id" in str(part).split("_") or "ids" in str(part).split("_") for part in place):
        return random.choice([-1, 0, 10**6, 2**31, 2**63, 10**25, 1.5, "abc", None, [], {}])
    kind = random.choice([_STRINGS, _STRINGS, _STRINGS, _NUMBERS, _STRUCTURES])
    return random.choice(kind)


def odd_id(random: Random) -> Any:
    return random.choice(_IDS)


def odd_query(random: Random, name: str) -> Any:
    if name.endswith("_id") or name == "id":
        return odd_id(random)
    if random.random() < 0.3:
        return random.choice(["", "0", "-1", "1", "2", "1000", "abc", "true", "false", "null"])
    value = random.choice([*_STRINGS, *_NUMBERS])
    return value.replace("\ud800", "") if isinstance(value, str) else value


def odd_body(random: Random) -> Raw:
    return random.choice(_ODD_BODIES)


def mutated(random: Random, body: Any) -> Any:
    """A body with something changed: a field taken away, added, doubled, or of another value."""
    if isinstance(body, Form):
        return _mutated_form(random, body)
    place = random.choice(list(places(body)))
    here = at(body, place)
    ways = ["value", "value", "value"] if place else ["surplus"]
    if place and not isinstance(place[-1], int):
        ways += ["without", "null"]
    if isinstance(here, dict):
        ways.append("surplus")
    if isinstance(here, list) and here:
        ways += ["doubled", "empty"]
    way = random.choice(ways)
    if way == "surplus" and isinstance(here, dict):
        return changed(body, (*place, "surplus"), random.choice([None, 1, "x", {}]))
    if way == "doubled":
        return changed(body, place, [*here, here[-1]])
    if way == "empty":
        return changed(body, place, [])
    if way == "null":
        return changed(body, place, None)
    if way == "without":
        return without(body, place)
    return changed(body, place, odd_value(random, place)) if place else body


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """All places in a body, with how to come there."""
    yield place
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, each in inner:
        yield from places(each, (*place, key))


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def changed(value: Any, place: Place, new: Any) -> Any:
    """A copy with another value in this place."""
    if not place:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    inner = at(value, place[:1]) if len(place) > 1 else None
    copy[place[0]] = changed(inner, place[1:], new)
    return copy


def without(value: Any, place: Place) -> Any:
    """A copy without what is in this place."""
    above = at(value, place[:-1])
    if isinstance(above, list):
        smaller: Any = [each for n, each in enumerate(above) if n != place[-1]]
    else:
        smaller = {key: each for key, each in above.items() if key != place[-1]}
    return changed(value, place[:-1], smaller)


def is_plain(body: Any) -> bool:
    """Whether places of the body can be changed."""
    return not isinstance(body, (Raw, Form, Id)) and isinstance(body, (dict, list))


def _mutated_form(random: Random, form: Form) -> Form:
    fields = dict(form.fields)
    name = random.choice([*fields, "surplus", "pip_extras", "package_version"])
    # A package that could be installed is never asked for.
    if name in ("package", "package_version"):
        fields[name] = random.choice(["", " ", "a b", "-", "\u00e9", "a;b"])
    else:
        fields[name] = json.dumps(random.choice([*_NUMBERS[:6], "", "x", None]))
    return Form(fields, form.files)
