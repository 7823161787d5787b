"""The Fractal schema: tables, schemas, sessions, settings, rights, rules of images and workflows.

This package does not import Prefect, and has nothing to do with HTTP. The tables can be imported
from here; they are loaded only when used, so that code that needs only the settings starts fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractal_models.tables import *  # noqa: F403


def __getattr__(name: str) -> Any:
    from fractal_models import tables

    if name in tables.__all__:
        return getattr(tables, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
