"""Image data for viewers, as Fractal's `fractal-data` serves it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.data_files import answer_with
from api.readers import Viewer, viewer

router = APIRouter(prefix="/data", tags=["Data"])


@router.head("/files/{path:path}", include_in_schema=False)
@router.get("/files/{path:path}", response_class=Response)
async def read_data_file(
    path: str, request: Request, viewer: Annotated[Viewer, Depends(viewer)]
) -> Response:
    """A file below one of the user's allowed viewer paths, or a range of its bytes."""
    place, folder = await viewer.folder_of(f"/{path}")
    return await answer_with(place, folder, request.headers, head=request.method == "HEAD")
