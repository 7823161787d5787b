"""Random workflows on random image lists: what a job leaves on both servers."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from tests.differential.comparison import Difference, between
from tests.differential.findings import Finding
from tests.differential.known import reason_of
from tests.differential.play import TYPES, ZARR_DIR, Stage

_AT_ONCE = 6
_ATTEMPTS = 15  # to make a case smaller
_NAMES = ["i0", "i1", "i2", "i3"]
_NEW = ["n0", "n1"]
STATUS = "__wftask_dataset_image_status__"
_ODD_OUTPUTS: list[Any] = [
    None,
    [],
    "text",
    1,
    {"surplus": 1},
    {"image_list_updates": None},
    {"image_list_removals": None},
    {"image_list_updates": {}},
    {"image_list_updates": ["x"]},
    {"image_list_updates": [{}]},
    {"image_list_updates": [{"zarr_url": None}]},
    {"image_list_updates": [{"zarr_url": "relative"}]},
    {"image_list_updates": [{"zarr_url": "/elsewhere/x"}]},
    {"image_list_updates": [{"zarr_url": "s3://bucket/x"}]},
    {"image_list_updates": [{"zarr_url": ZARR_DIR}]},
    {"image_list_updates": [{"zarr_url": f"{ZARR_DIR}-sibling/x"}]},
    {"image_list_updates": [{"zarr_url": f"{ZARR_DIR}/../up"}]},
    {"image_list_removals": [f"{ZARR_DIR}/unknown"]},
    {"image_list_removals": [1]},
    {"parallelization_list": []},
]
_ODD_LISTS: list[Any] = [
    None,
    {},
    {"parallelization_list": None},
    {"parallelization_list": {}},
    {"parallelization_list": [{}]},
    {"parallelization_list": ["x"]},
    {"parallelization_list": [{"zarr_url": f"{ZARR_DIR}/i0", "surplus": 1}]},
    {"parallelization_list": [{"zarr_url": "relative"}]},
    {"image_list_updates": []},
]
_ODD_TEXTS = ["", "{", "NaN", "\u00e9", '{"image_list_updates": [{"zarr_url": "x"}']
_LOGS = ["WARNING: odd", "a Warning of something", "UserWarning: x", "warning", "no warnin"]
_ATTRIBUTES: list[Any] = ["A", "B", 1, 2.0, 1.5, True, 10**25, "", None, [1], {"x": 1}]


_PLACES = ["job", "images", "tasks", "latest", "types", "attributes", "log"]
_RANKS = {place: rank for rank, place in enumerate(_PLACES, 1)}


@dataclass(frozen=True)
class WorkflowTask:
    """A task of the stage, and what it is told to do."""

    task: int  # its place in `TYPES` and `Stage.TASK_TYPES`
    type_filters: dict[str, bool]
    args_parallel: dict[str, Any]
    args_non_parallel: dict[str, Any]


@dataclass(frozen=True)
class Case:
    images: list[dict[str, Any]]
    tasks: list[WorkflowTask]
    submissions: list[dict[str, Any]]

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class WorkflowCases:
    def __init__(self, stages: list[Stage], seed: int, reduce: bool = True) -> None:
        self._stages, self._seed, self._reduce = stages, seed, reduce
        self._seen: set[tuple[str, ...]] = set()
        self.played = 0

    def run(self, numbers: range) -> Iterator[Finding]:
        with ThreadPoolExecutor(2 * _AT_ONCE) as pool:
            cases = [random_case(Random(f"{self._seed}/workflow/{n}")) for n in numbers]
            for first in range(0, len(cases), _AT_ONCE):
                played = [
                    (n, case, self._play(pool, case))
                    for n, case in zip(
                        numbers[first : first + _AT_ONCE],
                        cases[first : first + _AT_ONCE],
                        strict=True,
                    )
                ]
                for number, case, seen in played:
                    self.played += 1
                    if found := _differences(seen):
                        yield self._finding(pool, f"{self._seed}/workflow/{number}", case, found)

    def _play(self, pool: ThreadPoolExecutor, case: Case) -> list[Future[Any]]:
        return [pool.submit(stage.play, case) for stage in self._stages]

    def _finding(
        self, pool: ThreadPoolExecutor, name: str, case: Case, differences: list[Difference]
    ) -> Finding:
        found = _most_telling(name, case, differences)
        if not self._reduce or found.known is not None or found.signature in self._seen:
            return found
        self._seen.add(found.signature)
        where = found.difference.where
        for smaller in _smaller(case, lambda other: self._shows(pool, other, where)):
            same = self._shows(pool, smaller, where)
            found = _most_telling(name, smaller, [same]) if same else found
        return found

    def _shows(self, pool: ThreadPoolExecutor, case: Case, where: str) -> Difference | None:
        found = _differences(self._play(pool, case))
        return next((each for each in found if each.where == where), None)


def _most_telling(name: str, case: Case, differences: list[Difference]) -> Finding:
    """The first that is not known, and that the others may follow from."""
    ordered = sorted(
        differences,
        key=lambda each: _RANKS.get(
            each.where.partition(".")[2].partition(".")[0].partition("[")[0], 0
        ),
    )
    findings = [
        Finding(name, "workflow", str(case), each, reason_of("workflow", each, case))
        for each in ordered
    ]
    return next((each for each in findings if each.known is None), findings[0])


def _differences(seen: list[Future[Any]]) -> list[Difference]:
    ours, reference = (each.result() for each in seen)
    return list(between(ours, _settled(reference), "after"))


def _settled(seen: Any) -> Any:
    """What the reference leaves, with what it calls submitted after the end of a job as failed.

    It does not go back to the units whose outputs it could not read or merge; here nothing is
    submitted when a job has ended.
    """
    if isinstance(seen, list):
        return [_settled(each) for each in seen]
    if not isinstance(seen, dict):
        return "failed" if seen == "submitted" else seen
    settled = {key: _settled(each) for key, each in seen.items()}
    for of in ("images", "units"):
        if f"num_submitted_{of}" in settled:
            settled[f"num_failed_{of}"] += settled[f"num_submitted_{of}"]
            settled[f"num_submitted_{of}"] = 0
    if "units" in settled:
        settled["units"].sort()
    return settled


def _smaller(case: Case, shows: Callable[[Case], Difference | None]) -> Iterator[Case]:
    """Ever smaller cases that show the same."""
    attempts = 0
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(case):
            attempts += 1
            if attempts > _ATTEMPTS:
                return
            if shows(candidate):
                case, smaller = candidate, True
                yield case
                break


def _candidates(case: Case) -> Iterator[Case]:
    if len(case.submissions) > 1:
        yield replace(case, submissions=case.submissions[:-1])
    for n in range(len(case.tasks)):
        if len(case.tasks) > 1 and not any(
            each.get("first_task_index") or each.get("last_task_index") for each in case.submissions
        ):
            yield replace(case, tasks=case.tasks[:n] + case.tasks[n + 1 :])
    for n in range(len(case.images)):
        yield replace(case, images=case.images[:n] + case.images[n + 1 :])
    for n, submission in enumerate(case.submissions):
        for key in submission:
            rest = {each: value for each, value in submission.items() if each != key}
            yield replace(
                case, submissions=[*case.submissions[:n], rest, *case.submissions[n + 1 :]]
            )
    for n, task in enumerate(case.tasks):
        for kind in ("args_parallel", "args_non_parallel"):
            do = getattr(task, kind)["do"]
            for name in do:
                fewer = {"do": {key: value for key, value in do.items() if key != name}}
                tasks = [*case.tasks[:n], replace(task, **{kind: fewer}), *case.tasks[n + 1 :]]
                yield replace(case, tasks=tasks)


def random_case(random: Random) -> Case:
    names = random.sample(_NAMES, random.randint(0 if random.random() < 0.2 else 1, 4))
    images = [
        {
            "zarr_url": f"{ZARR_DIR}/{name}",
            "attributes": _attributes(random, odd=False),
            "types": _types(random),
        }
        for name in names
    ]
    tasks = [_workflow_task(random) for _ in range(random.choice([1, 1, 2, 2, 3]))]
    submissions = [_submission(random, len(tasks))]
    if random.random() < 0.4:
        again = _submission(random, len(tasks))
        if random.random() < 0.7:
            again["attribute_filters"] = {STATUS: random.choice([["failed", "unset"], ["done"]])}
            if random.random() < 0.8:  # the tasks after it are given other images, as is known
                again["last_task_index"] = again.setdefault("first_task_index", 0)
        submissions.append(again)
    return Case(images, tasks, submissions)


def _submission(random: Random, tasks: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if random.random() < 0.2:
        body["type_filters"] = _types(random)
    if random.random() < 0.2:
        body["attribute_filters"] = {"well": random.choice([["A"], ["A", "B"], ["C"]])}
    if random.random() < 0.25:
        body["first_task_index"] = random.randrange(tasks)
    if random.random() < 0.25:
        body["last_task_index"] = random.randrange(body.get("first_task_index", 0), tasks)
    return body


def _workflow_task(random: Random) -> WorkflowTask:
    number = random.randrange(len(TYPES))
    is_compound = TYPES[number].endswith("compound")
    action = _list_action if is_compound else _action
    return WorkflowTask(
        number,
        _types(random) if random.random() < 0.15 else {},
        {"do": {name: _action(random, name) for name in ["", *_NAMES, *_NEW]}},
        {"do": {"": action(random, "")}},
    )


def _list_action(random: Random, name: str) -> dict[str, Any]:
    """What a unit does whose output is a list of what to run."""
    chance = random.random()
    if chance < 0.15:
        return {"output": random.choice(_ODD_LISTS)}
    if chance < 0.25:
        return _action(random, name)
    chosen = [random.choice([*_NAMES, *_NEW]) for _ in range(random.randint(0, 4))]
    return {
        "output": {
            "parallelization_list": [
                {
                    "zarr_url": f"{ZARR_DIR}/{each}",
                    **random.choice([{}, {"init_args": {}}, {"init_args": {"x": 1}}]),
                }
                for each in chosen
            ]
        }
    }


def _action(random: Random, name: str) -> dict[str, Any]:
    action: dict[str, Any] = {}
    chance = random.random()
    if chance < 0.4:
        return action
    if chance < 0.5:
        action["exit"] = random.choice([1, 3, 255])
    if random.random() < 0.15:
        action["log"] = random.choice(_LOGS)
    chance = random.random()
    if chance < 0.1:
        action["output"] = random.choice(_ODD_OUTPUTS)
    elif chance < 0.14:
        action["text"] = random.choice(_ODD_TEXTS)
    else:
        action["output"] = _output(random, name)
    return action


def _output(random: Random, name: str) -> dict[str, Any]:
    output: dict[str, Any] = {}
    own = name or random.choice(_NAMES)
    if random.random() < 0.85:
        output["image_list_updates"] = [
            _update(random, own) for _ in range(random.choice([0, 1, 1, 1, 2]))
        ]
        if output["image_list_updates"] and random.random() < 0.08:
            output["image_list_updates"] *= 2
    if random.random() < 0.12:
        removed = random.choice([own, *_NAMES])
        output["image_list_removals"] = [f"{ZARR_DIR}/{removed}"]
    return output


def _update(random: Random, own: str) -> dict[str, Any]:
    name = random.choice([own, own, f"{own}-new", f"{own}-new", *_NEW, *_NAMES])
    update: dict[str, Any] = {"zarr_url": f"{ZARR_DIR}/{name}"}
    if random.random() < 0.5:
        update["origin"] = f"{ZARR_DIR}/{random.choice([own, own, own, *_NAMES, 'unknown'])}"
        if random.random() < 0.1:
            update["origin"] = None
    if random.random() < 0.5:
        update["attributes"] = _attributes(random, odd=True)
    if random.random() < 0.4:
        update["types"] = _types(random)
        if random.random() < 0.1:
            update["types"] = random.choice([None, {"a": "yes"}, {"a": 1}, {"a": None}, {"a": 2}])
    if random.random() < 0.03:
        update["surplus"] = 1
    if random.random() < 0.03:
        update["zarr_url"] += "/"
    return update


def _attributes(random: Random, odd: bool) -> dict[str, Any]:
    chosen = random.sample(["well", "n", "x"], random.randint(0, 3))
    values = _ATTRIBUTES if odd and random.random() < 0.3 else _ATTRIBUTES[:2]
    return {name: random.choice(values) for name in chosen}


def _types(random: Random) -> dict[str, bool]:
    chosen = random.sample(["a", "b"], random.choice([0, 1, 1, 2]))
    return {name: random.random() < 0.5 for name in chosen}
