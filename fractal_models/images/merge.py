"""Computes the image list after a workflow task."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fractal_models.images.identity import identity
from fractal_models.images.outputs import ImageListUpdate, TaskOutput
from fractal_models.images.schema import Image, ImageError
from fractal_models.urls import not_below


class ImageListError(ImageError):
    """The outputs of a task cannot be merged into the image list; the message names the URLs."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The new image list, and the URLs of the images that were added, updated and removed."""

    images: list[Image]
    added: list[str]
    updated: list[str]
    removed: list[str]

    @property
    def num_new(self) -> int:
        return len(self.added)

    @property
    def written(self) -> list[Image]:
        """The images that were added or updated, in the order of the list."""
        urls = {*self.added, *self.updated}
        return [image for image in self.images if image["zarr_url"] in urls]


def merge_images(
    images: Sequence[Image],
    outputs: Iterable[TaskOutput],
    *,
    input_images: Iterable[Image],
    zarr_dir: str,
    output_types: Mapping[str, bool],
) -> MergeResult:
    """Merge the outputs of a task's successful units into a dataset's image list.

    Of a long list, `images` need only have the input images and those that the outputs name.

    An update starts from the attributes and types of its `origin`, if this is another image;
    otherwise from the image's own. In both cases these are the values before the task, so the order
    of outputs matters only for new images, which are appended in the order in which they first
    appear. If the origin is not in the list, its name is kept, but the update starts from nothing.
    An image that is in the list keeps its place; it also keeps its `origin` if the update names no
    other.

    Args:
        images: the dataset's list, each URL once; neither the list nor its images are changed (the
            result shares the images that stay the same).
        outputs: the outputs of the units that succeeded.
        input_images: the images that these units were given; if there are neither updates nor
            removals at all, these images count as updated.
        zarr_dir: the dataset's folder; new images must lie below it.
        output_types: the task's output types, set on every new or updated image.

    Raises:
        ImageListError: contradicting updates of an image, update and removal of the same image,
            removal of an unknown image, a new image outside `zarr_dir`.
    """
    known = {image["zarr_url"]: image for image in images}
    updates, removals = _collect(outputs)
    if not updates and not removals:
        return _all_updated(images, input_images, output_types)
    added = [url for url in updates if url not in known]
    _check_removals(updates, removals, known)
    _check_added(added, zarr_dir)

    merged = dict(known)
    for url, update in updates.items():
        merged[url] = _updated(update, known, output_types)
    for url in removals:
        del merged[url]
    return MergeResult(
        images=list(merged.values()),
        added=added,
        updated=[url for url in updates if url in known],
        removed=list(removals),
    )


def named_images(outputs: Iterable[TaskOutput]) -> set[str]:
    """The URLs of the images that outputs are about, and of those from which they were made."""
    named: set[str] = set()
    for output in outputs:
        named.update(output.image_list_removals)
        for update in output.image_list_updates:
            named.update({update.zarr_url, update.origin or update.zarr_url})
    return named


def _all_updated(
    images: Sequence[Image], input_images: Iterable[Image], output_types: Mapping[str, bool]
) -> MergeResult:
    given = {image["zarr_url"] for image in input_images}
    return MergeResult(
        images=[
            {**image, "types": {**image["types"], **output_types}}
            if image["zarr_url"] in given
            else image
            for image in images
        ],
        added=[],
        updated=[image["zarr_url"] for image in images if image["zarr_url"] in given],
        removed=[],
    )


def _updated(
    update: ImageListUpdate, known: Mapping[str, Image], output_types: Mapping[str, bool]
) -> Image:
    image = known.get(update.zarr_url, _NO_IMAGE)
    origin, start = update.origin, image
    if origin is not None and origin != update.zarr_url:
        start = known.get(origin, _NO_IMAGE)
    elif image is not _NO_IMAGE:
        origin = image["origin"]
    attributes = {**start["attributes"], **(update.attributes or {})}
    return {
        "zarr_url": update.zarr_url,
        "origin": origin,
        "attributes": {key: value for key, value in attributes.items() if value is not None},
        "types": {**start["types"], **(update.types or {}), **output_types},
    }


_NO_IMAGE: Image = {"origin": None, "attributes": {}, "types": {}}


def _collect(
    outputs: Iterable[TaskOutput],
) -> tuple[dict[str, ImageListUpdate], dict[str, None]]:
    """Updates by URL, and the URLs to remove (as an ordered set), both in order of appearance."""
    updates: dict[str, ImageListUpdate] = {}
    removals: dict[str, None] = {}
    contradicted: dict[str, None] = {}
    for output in outputs:
        for update in output.image_list_updates:
            first = updates.setdefault(update.zarr_url, update)
            if first is not update and _content(first) != _content(update):
                contradicted[update.zarr_url] = None
        removals.update(dict.fromkeys(output.image_list_removals))
    if contradicted:
        raise ImageListError(
            f"The task's outputs update {_named(contradicted)} more than once and differently: "
            "each image must be updated by one unit, or by all in the same way."
        )
    return updates, removals


def _content(update: ImageListUpdate) -> Hashable:
    """A key that is equal for updates with the same content."""
    return (
        update.origin,
        frozenset((key, identity(value)) for key, value in (update.attributes or {}).items()),
        frozenset((update.types or {}).items()),
    )


def _check_removals(
    updates: Mapping[str, ImageListUpdate], removals: Iterable[str], known: Mapping[str, Image]
) -> None:
    if both := [url for url in removals if url in updates]:
        raise ImageListError(
            f"The task's outputs both update and remove {_named(both)}: list each image either in "
            "image_list_updates or in image_list_removals."
        )
    if unknown := [url for url in removals if url not in known]:
        raise ImageListError(
            f"The task's outputs remove {_named(unknown)}, not in the dataset's image list: "
            "image_list_removals must name images of the dataset."
        )


def _check_added(added: Iterable[str], zarr_dir: str) -> None:
    if outside := not_below(added, zarr_dir):
        raise ImageListError(
            f"The task's outputs add {_named(outside)}, not below the dataset's zarr_dir "
            f"{zarr_dir!r}: tasks must write new images below zarr_dir (add others to the "
            "dataset by hand)."
        )


_MAX_NAMED = 5


def _named(urls: Iterable[str]) -> str:
    """The URLs for a message: `'/a', '/b' and 3 more`."""
    urls = list(urls)
    names = ", ".join(repr(url) for url in urls[:_MAX_NAMED])
    return names if len(urls) <= _MAX_NAMED else f"{names} and {len(urls) - _MAX_NAMED} more"
