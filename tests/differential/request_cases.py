"""Random requests, valid and invalid, to every operation of the contract, on both servers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from tests.differential import oddities
from tests.differential.bodies import bodies
from tests.differential.comparison import Difference, differences
from tests.differential.contract import Operation, operations
from tests.differential.findings import Finding
from tests.differential.known import reason_of
from tests.differential.servers import DIRECTORY, Echo, Id, Pair, Request
from tests.differential.world import KINDS, World

_CASES_PER_WORLD = 40
_ATTEMPTS = 10  # to make a request smaller

# Lists of what everybody has; the other lists are of one project or workflow.
_LISTS = {
    "/api/v2/project/": "project",
    "/api/v2/dataset/": "dataset",
    "/api/v2/job/": "job",
    "/api/v2/task/": "task",
    "/api/v2/task-group/": "task_group",
    "/api/v2/task-group/activity/": "activity",
    "/api/v2/workflow-template/": "template",
    "/admin/v2/job/": "job",
    "/admin/v2/linkuserproject/": "project",
    "/admin/v2/project/": "project",
    "/admin/v2/profile/": "profile",
    "/admin/v2/resource/": "resource",
    "/admin/v2/task/": "task",
    "/admin/v2/task-group/": "task_group",
    "/admin/v2/task-group/activity/": "activity",
    "/auth/group/": "group",
    "/auth/users/": "user",
}


class RequestCases:
    """Asks both servers; a case is known by the seed and its number."""

    def __init__(self, pair: Pair, world: World, document: dict[str, Any], seed: int) -> None:
        self._pair, self._world, self._seed = pair, world, seed
        every = list(operations(document))
        # Bodies have the most that can be wrong.
        self._operations = every + 3 * [each for each in every if each.content_type]
        self._seen: set[tuple[str, ...]] = set()
        self.asked = 0

    def run(self, numbers: range) -> Iterator[Finding]:
        for number in numbers:
            if number % _CASES_PER_WORLD == 0:
                self._world.forget()
            random = Random(f"{self._seed}/{number}")
            operation = self._operations[number % len(self._operations)]
            request = self._request(random, operation)
            yield from self._findings(f"{self._seed}/{number}", operation, request)

    def _findings(self, case: str, operation: Operation, request: Request) -> Iterator[Finding]:
        self.asked += 1
        for difference in self._differences(operation, request):
            finding = Finding(
                case,
                operation.name,
                str(request),
                difference,
                reason_of(operation.name, difference),
            )
            if finding.known is None and finding.signature not in self._seen:
                self._seen.add(finding.signature)
                finding = self._reduced(operation, request, finding)
            yield finding

    def _differences(self, operation: Operation, request: Request) -> list[Difference]:
        """Of the answers, and of what is there afterwards."""
        self._need(request)
        kind = _LISTS.get(operation.path) if operation.method == "GET" else None
        if kind is not None:
            self._need_kinds([kind])
        ours, reference = self._pair.ask(request)
        ids = [server.ids for server in self._pair.servers]
        found = differences(ours, reference, ids, kind)
        if ours.ok != reference.ok:
            self._world.forget()
        if operation.method == "GET" or not (ours.ok and reference.ok):
            return found
        for look in list(self._world.looks()):
            answers = self._pair.ask(look)
            seen = differences(*answers, ids)
            if not found:
                found = [replace(each, where=f"then {look.path} {each.where}") for each in seen]
            if seen or not answers[0].ok:
                self._world.forget()
        return found

    def _reduced(self, operation: Operation, request: Request, finding: Finding) -> Finding:
        """The smallest request to a fresh world that shows the same; the finding as it is, if only
        the requests before make it."""

        def shows(candidate: Request) -> Difference | None:
            self._world.forget()
            for difference in self._differences(operation, candidate):
                same = replace(finding, difference=difference)
                if same.signature == finding.signature:
                    return difference
            return None

        difference = shows(request)
        if difference is None:
            return replace(finding, alone=False)
        for candidate in _smaller(request, shows):
            request, difference = candidate, shows(candidate) or difference
        self._world.forget()
        return replace(finding, request=str(request), difference=difference)

    def _need(self, request: Request) -> None:
        kinds = [str(each) for each in _ids((request.parameters, request.query, request.body))]
        self._need_kinds([kind for kind in kinds if not kind.startswith(("default", "person"))])

    def _need_kinds(self, kinds: list[str]) -> None:
        try:
            for kind in kinds:
                self._world.need(kind)
        except RuntimeError:  # what was done to this world leaves no room for more
            self._world.forget()
            for kind in kinds:
                self._world.need(kind)

    def _request(self, random: Random, operation: Operation) -> Request:
        odd = random.random()
        parameters = {
            name: oddities.odd_id(random) if odd < 0.06 else Id(KINDS[name])
            for name in operation.parameters
        }
        query = {
            name: self._query_value(random, name, schema)
            for name, schema in operation.query.items()
            if random.random() < 0.45 or name in ("workflow_id", "dataset_id", "workflowtask_id")
        }
        if 0.06 <= odd < 0.2 and query:
            name = random.choice(sorted(query))
            query[name] = oddities.odd_query(random, name)
        return Request(
            _person(random, operation),
            operation.method,
            operation.path,
            parameters,
            query,
            self._body(random, operation),
        )

    def _query_value(self, random: Random, name: str, schema: dict[str, Any]) -> Any:
        if name in KINDS:
            return Id(KINDS[name])
        if name == "id" or "email" in name:
            return self._world.emails["stranger"] if "email" in name else 10**6
        if name in ("page", "page_size"):
            return random.choice([1, 1, 2, 10])
        if name == "zarr_url":
            return f"{DIRECTORY}/zarrs/plate.zarr/A1/0"
        if "timestamp" in name:
            return random.choice(["2020-01-01T00:00:00+00:00", "2100-01-01T00:00:00Z"])
        options = [schema, *schema.get("anyOf", [])]
        if any(option.get("type") == "boolean" for option in options):
            return random.choice(["true", "false"])
        if any(option.get("type") == "integer" for option in options):
            return random.choice([0, 1, 5])
        choices = [choice for option in options for choice in option.get("enum", [])]
        return random.choice(choices or ["a", "request", "1", "parallel", "done"])

    def _body(self, random: Random, operation: Operation) -> Any:
        if operation.content_type is None:
            return None
        chance = random.random()
        if chance < 0.03:
            return None
        if chance < 0.07 and operation.content_type == "application/json":
            return oddities.odd_body(random)
        if chance < 0.2 and operation.method in ("PUT", "PATCH"):
            return Echo()
        body = random.choice(bodies(operation.name))
        if chance < 0.4 and isinstance(body, dict):
            body = {
                key: body[key] for key in random.sample(list(body), random.randint(1, len(body)))
            }
        for _ in range(random.choice([0, 1, 1, 1, 1, 2])):
            body = oddities.mutated(random, body)
        return body


def _person(random: Random, operation: Operation) -> str:
    own = "owner" if operation.path.startswith("/api/v2/") else "admin"
    others = ["owner", "stranger", "admin", "nobody"]
    return own if random.random() < 0.88 else random.choice(others)


def _ids(value: Any) -> Iterator[Id]:
    if isinstance(value, Id):
        yield value
    elif isinstance(value, dict):
        yield from _ids(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _ids(each)


def _smaller(request: Request, shows: Callable[[Request], Difference | None]) -> Iterator[Request]:
    """Ever smaller requests that show the same."""
    attempts = 0

    def smaller(candidate: Request) -> bool:
        nonlocal attempts
        attempts += 1
        return attempts <= _ATTEMPTS and shows(candidate) is not None

    for name in list(request.query):
        rest = {key: value for key, value in request.query.items() if key != name}
        if smaller(candidate := replace(request, query=rest)):
            request = candidate
            yield request
    if not oddities.is_plain(request.body):
        return
    for place in sorted(oddities.places(request.body), key=len):
        try:
            body = oddities.without(request.body, place) if place else request.body
        except (KeyError, IndexError, TypeError):  # it went with what was around it
            continue
        if place and smaller(candidate := replace(request, body=body)):
            request = candidate
            yield request
