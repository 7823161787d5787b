"""The name of a resource's work pool, which does not change when the resource is renamed."""

import re
from collections.abc import Container
from itertools import count

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Resource

# What Prefect refuses in names, and the prefix that it reserves for itself.
_REFUSED, _RESERVED = re.compile(r"[/%&<>]"), "prefect"


def pool_name(resource_name: str, taken: Container[str]) -> str:
    """The name of a new work pool: the resource's name, with what Prefect refuses replaced.

    A number is added if the name is taken: another resource may have been renamed after its work
    pool had got this name.
    """
    name = _REFUSED.sub("-", resource_name)
    if name.lower().startswith(_RESERVED):
        name = f"fractal-{name}"
    more = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in more if each not in taken)


async def new_pool_name(session: AsyncSession, resource_name: str) -> str:
    """The name for the work pool of a resource that is about to be created."""
    return pool_name(resource_name, set(await session.exec(select(col(Resource.work_pool)))))
