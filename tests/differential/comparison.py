"""What differs between two answers, apart from ids, times and what is named by each server."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.differential.servers import Answer
from tests.differential.world import KINDS

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")
# Of a server's own words, folders and keys only the type is compared.
_OWN = {
    "log",
    "warning",
    "executor_error_log",
    "working_dir",
    "working_dir_user",
    "access_token",
    "logfile",
    "venv_path",
    "path",
    "FRACTAL_DEFAULT_GROUP_NAME",
}
_ABSENT = "<absent>"


@dataclass(frozen=True)
class Difference:
    """`where` is "status", or a place in the body or in what is seen of it afterwards."""

    where: str
    ours: Any
    reference: Any

    def __str__(self) -> str:
        return f"{self.where}: ours {_told(self.ours)}, reference {_told(self.reference)}"


def differences(
    ours: Answer, reference: Answer, ids: list[Mapping[str, int]], kind: str | None = None
) -> list[Difference]:
    """Of the statuses, and of the bodies of successes; of a list of things of this kind only those
    with known ids. Errors that both tell are in each server's own words."""
    if ours.status != reference.status:
        if reference.status >= 500 and ours.status < 500:
            return []  # it has crashed: nothing is to be learned from it
        told = [f"{each.status} {_detail(each)}" for each in (ours, reference)]
        return [Difference("status", *told)]
    if not ours.ok:
        return []
    bodies = [
        plain(_known_ones(each.body, kind, known), known)
        for each, known in zip((ours, reference), ids, strict=True)
    ]
    return list(between(*bodies))


def between(ours: Any, reference: Any, where: str = "body") -> Iterator[Difference]:
    """What differs between two values; `true`, `1` and `1.0` do."""
    if isinstance(ours, dict) and isinstance(reference, dict):
        for key in sorted({*ours, *reference}):
            place = f"{where}.{'*' if key.startswith('/') else key}"  # by the URL of an image
            if key not in reference or key not in ours:
                yield Difference(place, ours.get(key, _ABSENT), reference.get(key, _ABSENT))
            else:
                yield from between(ours[key], reference[key], place)
    elif isinstance(ours, list) and isinstance(reference, list):
        if len(ours) != len(reference):
            yield Difference(f"{where}[]", ours, reference)
        else:
            for each, other in zip(ours, reference, strict=True):
                yield from between(each, other, f"{where}[]")
    elif type(ours) is not type(reference) or repr(ours) != repr(reference):
        yield Difference(where, ours, reference)


def plain(value: Any, ids: Mapping[str, int], key: str = "") -> Any:
    """Without what differs between any two servers."""
    if isinstance(value, dict):
        if value and all(each.isdecimal() for each in value):  # by ids
            ordered = sorted(value.items(), key=lambda item: int(item[0]))
            return {f"<{n}>": plain(inner, ids) for n, (_, inner) in enumerate(ordered)}
        return {each: plain(inner, ids, each) for each, inner in value.items()}
    if isinstance(value, list):
        if key == "types":  # of a dataset's images, in no order
            return sorted(value)
        return [plain(inner, ids, key.removesuffix("s")) for inner in value]
    if key == "group_ids_name" and isinstance(value, int):
        return "<id>"
    if isinstance(value, int) and not isinstance(value, bool) and _is_id(key):
        return f"<{KINDS[key]}>" if ids.get(KINDS.get(key, "")) == value else "<id>"
    if key in _OWN and value is not None:
        return f"<{type(value).__name__}>"
    if isinstance(value, str):
        return _TIME.sub("<time>", value)
    return value


def _is_id(key: str) -> bool:
    return key == "id" or key.endswith(("_id", "v2_id"))


def _known_ones(body: Any, kind: str | None, ids: Mapping[str, int]) -> Any:
    if kind is None:
        return body
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        items = _known_ones(body["items"], kind, ids)
        return {**body, "items": items, "total_count": "<number>", "page_size": "<number>"}
    if isinstance(body, list) and body and isinstance(body[0], list):  # by the name of a package
        named = [(name, _known_ones(each, kind, ids)) for name, each in body]
        return [[name, each] for name, each in named if each]
    if isinstance(body, list):
        return [each for each in body if not isinstance(each, dict) or _is_known(each, kind, ids)]
    return body


def _is_known(item: dict[str, Any], kind: str, ids: Mapping[str, int]) -> bool:
    return item.get("id", item.get(f"{kind}_id")) == ids.get(kind)


def _detail(answer: Answer) -> str:
    detail = answer.body.get("detail") if isinstance(answer.body, dict) else answer.body
    return _told(detail) if not answer.ok else ""


def _told(value: Any) -> str:
    told = value if isinstance(value, str) else json.dumps(value, default=str)
    return told if len(told) < 300 else f"{told[:300]}..."
