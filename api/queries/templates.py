"""Workflow templates: which a user sees, and their versions in one place."""

from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.rights import shared_with
from fractal_models.tables import UserOAuth, WorkflowTemplate


def grouped_templates(user: UserOAuth, *where: ColumnElement[bool]) -> Select[Any]:
    """Author, name and versions (newest first) of templates; the user's own go first."""
    version = func.json_build_object(
        *("template_id", WorkflowTemplate.id, "template_version", WorkflowTemplate.version)
    )
    newest_first = aggregate_order_by(version, col(WorkflowTemplate.version).desc())
    return (
        select(
            col(UserOAuth.email).label("user_email"),
            col(WorkflowTemplate.name).label("template_name"),
            func.json_agg(newest_first).label("templates"),
        )
        .join(UserOAuth, col(UserOAuth.id) == col(WorkflowTemplate.user_id))
        .where(shared_with(user, WorkflowTemplate), *where)
        .group_by(col(WorkflowTemplate.user_id), col(UserOAuth.email), col(WorkflowTemplate.name))
        .order_by(
            col(WorkflowTemplate.user_id) != user.id,
            col(UserOAuth.email),
            col(WorkflowTemplate.name),
        )
    )


async def authors_seen_by(session: AsyncSession, user: UserOAuth) -> list[str]:
    """The emails of those who made templates that the user sees."""
    found = await session.execute(
        select(col(UserOAuth.email))
        .join(WorkflowTemplate, col(WorkflowTemplate.user_id) == col(UserOAuth.id))
        .where(shared_with(user, WorkflowTemplate))
        .distinct()
        .order_by(col(UserOAuth.email))
    )
    return list(found.scalars())
