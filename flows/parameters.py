"""The parameters of a flow run of `run-job`: what the job is to do."""

from typing import Any

from pydantic import BaseModel, NonNegativeInt, ValidationError

from fractal_models.errors import JobRefusedError
from fractal_models.images import AttributeFilters, Scalar, TypeFilters, is_beyond_64_bits
from fractal_models.schemas.base import problems_of
from fractal_models.schemas.job import Images, JobCreate
from fractal_models.schemas.schedule import ScheduledJob
from fractal_models.tables import JobV2, ProjectV2, UserOAuth


class JobRequest(BaseModel):
    """The parameters of `run-job`; the docstring of that flow describes them."""

    user: str
    project: str
    workflow: str
    dataset: str
    first_task: NonNegativeInt | None = None
    last_task: NonNegativeInt | None = None
    images: Images = "all"
    attribute_filters: AttributeFilters = {}
    type_filters: TypeFilters = {}
    slurm_account: str | None = None
    worker_init: str | None = None

    @classmethod
    def of(cls, job: JobV2) -> "JobRequest":
        """The parameters for another job like this one."""
        images: Images = "not done" if job.only_not_done else "all"
        return cls._like(job, job.user_email, job.project_id, images)

    @classmethod
    def for_schedule(
        cls, user: UserOAuth, project: ProjectV2, wanted: ScheduledJob
    ) -> "JobRequest":
        """The parameters for the jobs of a schedule."""
        return cls._like(wanted, user.email, project.id, wanted.images)

    @classmethod
    def _like(
        cls, wanted: JobV2 | ScheduledJob, user: str, project_id: int | None, images: Images
    ) -> "JobRequest":
        return cls(
            user=user,
            project=str(project_id),
            workflow=str(wanted.workflow_id),
            dataset=str(wanted.dataset_id),
            first_task=wanted.first_task_index,
            last_task=wanted.last_task_index,
            images=images,
            attribute_filters=wanted.attribute_filters,
            type_filters=wanted.type_filters,
            slurm_account=wanted.slurm_account,
            worker_init=wanted.worker_init,
        )

    def as_parameters(self) -> dict[str, Any]:
        """The parameters in a form that Prefect can list.

        Prefect's API fails on integers of more than 64 bits, so each of these becomes the nearest
        floating-point number. The job's row keeps the exact values to filter by.
        """
        parameters = self.model_dump(mode="json")
        parameters["attribute_filters"] = {
            key: list(dict.fromkeys(map(_listable, values)))
            for key, values in self.attribute_filters.items()
        }
        return parameters

    def as_submitted(self) -> JobCreate:
        """The request in the form that the REST API takes.

        Raises:
            JobRefusedError: the API would refuse the request.
        """
        try:
            return JobCreate(
                first_task_index=self.first_task,
                last_task_index=self.last_task,
                slurm_account=self.slurm_account,
                worker_init=self.worker_init,
                attribute_filters=self.attribute_filters,
                type_filters=self.type_filters,
            )
        except ValidationError as error:
            raise JobRefusedError(problems_of(error)) from error


def _listable(value: Scalar) -> Scalar:
    return float(value) if is_beyond_64_bits(value) else value
