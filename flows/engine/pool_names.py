"""The name of a resource's work pool, which stays when the resource is renamed."""

import re
from collections.abc import Container
from itertools import count

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Resource

# What Prefect refuses in names, and the beginning that it keeps for itself.
_REFUSED, _RESERVED = re.compile(r"[/%&<>]"), "prefect"


def pool_name(resource_name: str, taken: Container[str]) -> str:
    """The name of a new work pool: that of its resource, as far as Prefect takes it.

    Another resource may have left its first name to its work pool.
    """
    name = _REFUSED.sub("-", resource_name)
    if name.lower().startswith(_RESERVED):
        name = f"fractal-{name}"
    more = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in more if each not in taken)


async def new_pool_name(session: AsyncSession, resource_name: str) -> str:
    """The name of the work pool of a resource that is about to be made."""
    return pool_name(resource_name, set(await session.exec(select(col(Resource.work_pool)))))
