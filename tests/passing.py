"""Which images pass filters, told anew in Python, for comparison with what PostgreSQL finds."""

from collections.abc import Iterable, Mapping, Sequence

from fractal_models.images import Image, Scalar, identity


def passing(
    images: Iterable[Image],
    type_filters: Mapping[str, bool],
    attribute_filters: Mapping[str, Sequence[Scalar]],
) -> list[Image]:
    """The images that pass every filter, in their order."""
    wanted = [
        (key, {identity(value) for value in values}) for key, values in attribute_filters.items()
    ]
    return [
        image
        for image in images
        if all(image["types"].get(key, False) is value for key, value in type_filters.items())
        and all(identity(image["attributes"].get(key)) in values for key, values in wanted)
    ]
