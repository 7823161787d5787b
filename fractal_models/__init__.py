"""The Fractal schema: SQLModel tables, Pydantic schemas, sessions, settings, the rules of images.

Knows nothing of Prefect or HTTP. The tables can be imported from here: they are looked up when they
are asked for, as who needs the settings only need not wait for them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractal_models.tables import *  # noqa: F403


def __getattr__(name: str) -> Any:
    from fractal_models import tables

    if name in tables.__all__:
        return getattr(tables, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
