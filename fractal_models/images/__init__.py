"""The rules of images: what an image is, which images a task sees, how its output changes the list.

Pure functions and Pydantic schemas; no database. A stored image list is a list of plain dicts
(`Image`), which are checked only once, when they come in, so that 100,000 images stay cheap.
"""

from fractal_models.images.filters import (
    STATUS_ATTRIBUTE,
    AttributeFilters,
    FilterError,
    TypeFilters,
    is_beyond_64_bits,
    merge_type_filters,
    passes_types,
    task_type_filters,
)
from fractal_models.images.identity import identity
from fractal_models.images.merge import ImageListError, MergeResult, merge_images, named_images
from fractal_models.images.outputs import (
    ImageListUpdate,
    InitOutput,
    InvalidTaskOutput,
    ParallelizationItem,
    TaskOutput,
    parse_init_output,
    parse_task_output,
)
from fractal_models.images.schema import (
    Image,
    ImageAttributes,
    ImageError,
    ImageTypes,
    Scalar,
    SingleImage,
    SingleImageUpdate,
    ZarrUrl,
    check_keys,
)

__all__ = [
    "STATUS_ATTRIBUTE",
    "AttributeFilters",
    "FilterError",
    "Image",
    "ImageAttributes",
    "ImageError",
    "ImageListError",
    "ImageListUpdate",
    "ImageTypes",
    "InitOutput",
    "InvalidTaskOutput",
    "MergeResult",
    "ParallelizationItem",
    "Scalar",
    "SingleImage",
    "SingleImageUpdate",
    "TaskOutput",
    "TypeFilters",
    "ZarrUrl",
    "check_keys",
    "identity",
    "is_beyond_64_bits",
    "merge_images",
    "merge_type_filters",
    "named_images",
    "parse_init_output",
    "parse_task_output",
    "passes_types",
    "task_type_filters",
]
