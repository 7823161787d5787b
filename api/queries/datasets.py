"""Datasets of several projects."""

from operator import eq
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from api.queries.conditions import asked_for, contains
from api.queries.images import image_count
from api.queries.sharing import owner_email
from fractal_models.tables import DatasetV2, LinkUserProjectV2, ProjectV2


def datasets_of(
    user_id: int | None,
    *,
    only_owned: bool,
    project_name: str | None,
    dataset_name: str | None,
) -> Select[Any]:
    """The datasets of a user's projects, those with a star first, and then the newest."""
    dataset, project = DatasetV2, aliased(ProjectV2, name="project")
    columns: list[Any] = [
        dataset.id,
        dataset.name,
        dataset.project_id,
        project,
        dataset.timestamp_created,
        dataset.zarr_dir,
        dataset.is_starred,
        owner_email(dataset.project_id).label("owner_email"),
        image_count().label("image_count"),
    ]
    query: Select[Any] = (
        select(*columns)
        .join(project, col(project.id) == col(dataset.project_id))
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(dataset.project_id))
        .where(LinkUserProjectV2.user_id == user_id, col(LinkUserProjectV2.is_verified))
        .order_by(col(dataset.is_starred).desc(), col(dataset.id).desc())
    )
    return query.where(
        *asked_for(
            (eq, col(LinkUserProjectV2.is_owner), only_owned or None),
            (contains, col(project.name), project_name),
            (contains, col(dataset.name), dataset_name),
        )
    )
