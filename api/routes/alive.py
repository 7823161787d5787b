"""Is the server there, and which?"""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from pydantic import BaseModel

from fractal_models.schemas.base import CONTRACT_VERSION

router = APIRouter(prefix="/api/alive", tags=["Server"])


class Alive(BaseModel):
    """`version` is that of the REST contract, which clients compare with their own."""

    alive: bool = True
    version: str = CONTRACT_VERSION
    fractal_prefect_version: str


@router.get("/")
async def alive() -> Alive:
    """Answers as soon as requests are served."""
    return Alive(fractal_prefect_version=_own_version())


def _own_version() -> str:
    try:
        return version("fractal-prefect")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
