"""Lists by pages."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from api.errors import unprocessable


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a list is asked for, from 1; without a size, all of the list is one page."""

    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int | None, Query(ge=1, le=1_000_000)] = None

    def __post_init__(self) -> None:
        if self.page_size is None and self.page > 1:
            raise unprocessable(f"Page {self.page} needs a page_size.")

    @property
    def offset(self) -> int:
        """How many items come before the page."""
        return (self.page - 1) * (self.page_size or 0)


PagingDep = Annotated[Paging, Depends()]
