"""Schemas of datasets and their image lists."""

from fractal_models.images import AttributeFilters, Scalar, SingleImage, TypeFilters
from fractal_models.schemas.base import AbsolutePath, Input, Name, NonEmpty, Output, Page, Timestamp
from fractal_models.schemas.project import ProjectRead


class DatasetCreate(Input):
    """A new, empty dataset; its folder is derived from the project unless it is named."""

    name: Name
    project_dir: AbsolutePath | None = None
    zarr_subfolder: NonEmpty | None = None


class DatasetUpdate(Input):
    """What can be changed of a dataset."""

    name: Name = ""


class DatasetImport(Input):
    """A dataset with its images, as exported."""

    name: Name
    zarr_dir: AbsolutePath
    images: list[SingleImage] = []


class DatasetRead(Output):
    """A dataset, without its image list (see `images/query/`)."""

    id: int
    name: str
    project_id: int
    project: ProjectRead
    timestamp_created: Timestamp
    zarr_dir: str
    is_starred: bool


class DatasetReadExpanded(DatasetRead):
    """A dataset among those of several projects."""

    owner_email: str
    image_count: int


class DatasetExport(Output):
    """A dataset with its images."""

    name: str
    zarr_dir: str
    images: list[SingleImage]


class DatasetDump(Output):
    """A dataset as it stood when a job was submitted, without its image list."""

    id: int
    name: str
    project_id: int
    timestamp_created: str
    zarr_dir: str


class ImageQuery(Input):
    """Which images to list."""

    type_filters: TypeFilters = {}
    attribute_filters: AttributeFilters = {}


class ImageQueryWithZarrUrl(ImageQuery):
    """Which images to list, or the one with a given Zarr URL."""

    zarr_url: str | None = None


class ImagePage(Page[SingleImage]):
    """One page of images, with all attribute values and types of the dataset."""

    attributes: dict[str, list[Scalar]]
    types: list[str]


class SingleImageWithWarnings(SingleImage):
    """An image, and whether its latest unit logged warnings."""

    has_warnings: bool | None = None


class ImagePageWithWarnings(Page[SingleImageWithWarnings]):
    """One page of images with their warnings."""

    attributes: dict[str, list[Scalar]]
    types: list[str]
