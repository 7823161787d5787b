"""Schemas of datasets and their image lists."""

from typing import Self

from pydantic import Field, model_validator

from fractal_models.images import AttributeFilters, Scalar, SingleImage, TypeFilters
from fractal_models.schemas.base import (
    Folder,
    Input,
    Name,
    OpenInput,
    Output,
    Page,
    ProjectDir,
    RelativePath,
    Timestamp,
)
from fractal_models.schemas.project import ProjectRead
from fractal_models.spooled_images import SpooledImages
from fractal_models.urls import not_below


class DatasetCreate(Input):
    """A new, empty dataset. If its folder is not given, it is derived from the project."""

    name: Name
    project_dir: ProjectDir | None = None
    zarr_subfolder: RelativePath | None = None

    @model_validator(mode="after")
    def _subfolder_is_of_a_folder(self) -> Self:
        if self.zarr_subfolder is not None and self.project_dir is None:
            raise ValueError("zarr_subfolder needs project_dir, in which it is")
        return self


class DatasetUpdate(Input):
    """The fields of a dataset that can be changed."""

    name: Name = ""


class DatasetImport(OpenInput):
    """A dataset with its images, as it was exported. Older exports also have filters."""

    name: Name
    zarr_dir: Folder
    images: SpooledImages = Field(default_factory=SpooledImages)

    @model_validator(mode="after")
    def _images_are_in_folder(self) -> Self:
        # Those in a folder are neighbours in the alphabet. The folder itself may be an image.
        if outside := not_below(self.images.ends, self.zarr_dir):
            url = outside[0].removesuffix("/")
            raise ValueError(f"{url!r} does not lie in zarr_dir {self.zarr_dir!r}")
        return self


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
    """A dataset in a list with datasets of several projects."""

    owner_email: str
    image_count: int


class DatasetExport(Output):
    """A dataset with its images."""

    name: str
    zarr_dir: str
    images: list[SingleImage]


class DatasetDump(Output):
    """A dataset at the time when a job was submitted, without its image list."""

    id: int
    name: str
    project_id: int
    timestamp_created: str
    zarr_dir: str


class ImageQuery(OpenInput):
    """Which images to list."""

    type_filters: TypeFilters = {}
    attribute_filters: AttributeFilters = {}


class ImageQueryWithZarrUrl(ImageQuery):
    """Which images to list, or the one image with a given Zarr URL."""

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
