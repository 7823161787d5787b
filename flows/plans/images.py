"""The image list as it is expected to be before each workflow task of a job.

A task is taken to change what it is given, as `merge_images` has it for a task that tells no
updates. One whose output types contradict what it takes makes new images instead: as many, if it
has a unit per image, and else an unknown number, as converters do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.units.plan import COMPOUND, CONVERTERS
from fractal_models.image_kinds import ImageKind
from fractal_models.images import (
    Image,
    ImageListUpdate,
    Scalar,
    TaskOutput,
    merge_images,
    passes_types,
)


@dataclass(frozen=True, slots=True)
class NewImages:
    """Images that a task makes, the one at the place `made_by`; their number is not known."""

    made_by: int
    types: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Given:
    """The images that a task is given: those of `kinds`, and some of `new`."""

    kinds: Sequence[ImageKind]
    new: Sequence[NewImages]

    @property
    def number(self) -> int:
        """How many there are without the new ones."""
        return sum(kind.number for kind in self.kinds)


class ExpectedImages:
    """An image list that changes with each task, in the order of the tasks."""

    def __init__(self, kinds: Sequence[ImageKind]) -> None:
        self.kinds = list(kinds)
        self.new: list[NewImages] = []

    @property
    def number(self) -> int:
        return sum(kind.number for kind in self.kinds)

    def given(
        self,
        type_filters: Mapping[str, bool],
        workflowtask_id: int,
        statuses: Sequence[Scalar] | None,
    ) -> Given:
        """The images that pass these filters; by status only if `statuses` says which."""
        return Given(
            [
                kind
                for kind in self.kinds
                if kind.passes
                and passes_types(kind.types, type_filters)
                and (statuses is None or kind.statuses.get(workflowtask_id, "unset") in statuses)
            ],
            [new for new in self.new if _may_pass(new.types, type_filters)],
        )

    def run(self, task: Mapping[str, Any], given: Given) -> None:
        """Change the list as a workflow task (as a job keeps it) is expected to, given these."""
        output_types: dict[str, bool] = task["task"]["output_types"]
        makes_new = makes_new_images(task)
        if task["task_type"] in CONVERTERS or (makes_new and task["task_type"] != "parallel"):
            self.new.append(NewImages(task["order"], output_types))
            return
        if makes_new:  # those of before were written to the same places
            done = [kind for kind in given.kinds if _is_done(kind, task)]
            given = replace(given, kinds=[kind for kind in given.kinds if kind not in done])
        self._merge(given, output_types, makes_new)
        if given.new:
            self.new.append(NewImages(given.new[0].made_by, {**given.new[0].types, **output_types}))

    def _merge(self, given: Given, output_types: Mapping[str, bool], makes_new: bool) -> None:
        """Merge what units would tell, with one image for each kind of images."""
        by_url = {f"/{n}": kind for n, kind in enumerate(self.kinds)}
        images: list[Image] = [
            {"zarr_url": url, "origin": None, "attributes": {}, "types": dict(kind.types)}
            for url, kind in by_url.items()
        ]
        inputs = [image for image in images if by_url[image["zarr_url"]] in given.kinds]
        updates = [
            ImageListUpdate(zarr_url=f"/new{image['zarr_url']}", origin=image["zarr_url"])
            for image in inputs
            if makes_new
        ]
        if makes_new and not updates:
            return
        merged = merge_images(
            images,
            [TaskOutput(image_list_updates=updates)],
            input_images=inputs,
            zarr_dir="/",
            output_types=output_types,
        )
        self.kinds = [
            replace(by_url[image["zarr_url"]], types=image["types"])
            if image["zarr_url"] in by_url
            else replace(by_url[image["origin"]], types=image["types"], statuses={}, examples=())
            for image in merged.images
        ]


def makes_new_images(task: Mapping[str, Any]) -> bool:
    """Whether what a workflow task makes cannot be the images that it was given."""
    wanted, made = own_type_filters(task), task["task"]["output_types"]
    return any(wanted.get(key, value) is not value for key, value in made.items())


def own_type_filters(task: Mapping[str, Any]) -> dict[str, bool]:
    """The types that images must have for a workflow task, whatever the job's filters are."""
    return {**task["task"]["input_types"], **task["type_filters"]}


def makes_unknown(task: Mapping[str, Any]) -> bool:
    """Whether a workflow task makes a number of units or images that cannot be planned."""
    if task["task_type"] == "parallel":
        return False
    return task["task_type"] in COMPOUND | CONVERTERS or makes_new_images(task)


def changed_before(task: Mapping[str, Any], given: Given) -> int:
    """How many of the images a workflow task has changed before, and would change again."""
    if task["task_type"] in CONVERTERS or makes_new_images(task):
        return 0
    types = task["task"]["output_types"]
    return sum(
        kind.number
        for kind in given.kinds
        if _is_done(kind, task) and passes_types(kind.types, types)
    )


def _is_done(kind: ImageKind, task: Mapping[str, Any]) -> bool:
    return kind.statuses.get(task["id"]) == "done"


def _may_pass(types: Mapping[str, bool], type_filters: Mapping[str, bool]) -> bool:
    """Whether images may pass that have these types, and perhaps others."""
    return all(types.get(key, wanted) is wanted for key, wanted in type_filters.items())
