"""Who reads a list: looked up by the statement that reads it.

Lists are what clients ask for most. So for them, the login, the right and the list are one question
to PostgreSQL, and its statement is compiled once: SQLAlchemy needs longer for that than PostgreSQL
for most lists. What the user may not see is not read.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import (
    ARRAY,
    Dialect,
    Integer,
    String,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    select,
    true,
)
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import Claims, login_tokens
from api.errors import not_logged_in
from api.lists import PROJECT_ID, READER, Document, JsonDocument
from api.services import Cookie, ServicesDep, Token
from fractal_models.database import reading
from fractal_models.errors import NotFoundError
from fractal_models.rights import require_profile, require_superuser, require_verified
from fractal_models.tables import DatasetV2, LinkUserProjectV2, UserOAuth
from fractal_models.urls import InvalidUrl, absolute_path

_USER: Any = UserOAuth.metadata.tables["user_oauth"].alias("reader")
_LINK: Any = LinkUserProjectV2.metadata.tables["linkuserprojectv2"].alias("part")
_IS_LOGGED_IN = and_(
    _USER.c.id == READER.id,
    _USER.c.is_active,
    _USER.c.login_generation == bindparam("generation", type_=Integer()),
)
_TAKES_PART = exists().where(  # and then they may read
    _LINK.c.project_id == PROJECT_ID, _LINK.c.user_id == READER.id, _LINK.c.is_verified
)


@cache
def _statement(document: Document, as_superuser: bool, in_project: bool, dialect: Dialect) -> Any:
    columns = [_USER.c[name] for name in ("email", "is_superuser", "is_verified", "profile_id")]
    may_read = [_USER.c.is_superuser] if as_superuser else []
    if in_project:
        columns.append(_TAKES_PART.label("takes_part"))
        may_read.append(_TAKES_PART)
    columns.append(case((and_(true(), *may_read), document)).label("document"))
    return select(*columns).where(_IS_LOGGED_IN).compile(dialect=dialect)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, as their token claims; as a superuser, and what is in a project, if so."""

    sessions: async_sessionmaker[AsyncSession]
    claims: Claims
    as_superuser: bool
    project_id: int | None = None

    async def answer(self, document: Document, **values: Any) -> JsonDocument:
        """A list; `values` are its parameters."""
        return JsonDocument(await self.read(document, **values))

    async def read(self, document: Document, **values: Any) -> str:
        """The text of a list.

        Raises:
            HTTPException: nobody is logged in with this token any more.
            ForbiddenError: the user may not read it.
            NotFoundError: the user has no part in the project.
        """
        values |= {
            "reader_id": self.claims.user_id,
            "generation": self.claims.generation,
            "in_project": self.project_id,
        }
        kind = (self.as_superuser, self.project_id is not None)
        async with reading(self.sessions) as connection:
            statement = _statement(document, *kind, connection.dialect)
            found: Any = (await connection.execute(statement, values)).first()
        if found is None:
            raise not_logged_in()
        if self.as_superuser:
            require_superuser(found)
        else:
            require_verified(found)
            require_profile(found)
        if self.project_id is not None and not found.takes_part:
            raise NotFoundError("Project", self.project_id)
        text: str = found.document
        return text


def _reader(*, as_superuser: bool) -> Callable[..., Awaitable[Reader]]:
    async def reader(token: Token, cookie: Cookie, services: ServicesDep) -> Reader:
        claims = login_tokens(services.settings).claims(token or cookie)
        if claims is None:
            raise not_logged_in()
        return Reader(services.sessions, claims, as_superuser)

    return reader


VerifiedReader = Annotated[Reader, Depends(_reader(as_superuser=False))]
SuperuserReader = Annotated[Reader, Depends(_reader(as_superuser=True))]


async def _project_reader(project_id: int, reader: VerifiedReader) -> Reader:
    return replace(reader, project_id=project_id)


ProjectReader = Annotated[Reader, Depends(_project_reader)]


# --- who looks at data -------------------------------------------------------------------------

_DATASET: Any = DatasetV2.metadata.tables["datasetv2"].alias("dataset")
_PLACES = bindparam("places", type_=ARRAY(String()))


@cache
def _folders_statement(dialect: Dialect) -> Any:
    """Of the folders `places`, those which a user may look at as of a dataset; and their own."""
    of_datasets = (
        select(_DATASET.c.zarr_dir)
        .join(_LINK, _LINK.c.project_id == _DATASET.c.project_id)
        .where(_LINK.c.user_id == READER.id, _LINK.c.is_verified)
        .where(_DATASET.c.zarr_dir == any_(_PLACES))
    )
    found = func.array(of_datasets.scalar_subquery()).label("of_datasets")
    columns = [_USER.c[name] for name in ("email", "is_verified", "project_dirs")]
    return select(*columns, found).where(_IS_LOGGED_IN).compile(dialect=dialect)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at data, as their token claims."""

    sessions: async_sessionmaker[AsyncSession]
    claims: Claims

    async def folder_of(self, path: str) -> tuple[str, str]:
        """A path in its standard spelling, and the folder of the user's viewer paths it lies in.

        Raises:
            HTTPException: nobody is logged in with this token any more.
            ForbiddenError: the user is not verified.
            NotFoundError: it is no path, or lies in none of these.
        """
        try:
            place = absolute_path(path)
        except InvalidUrl as error:
            raise NotFoundError("A file", path) from error
        places = [str(each) for each in PurePosixPath(place).parents]
        values = {
            "reader_id": self.claims.user_id,
            "generation": self.claims.generation,
            "places": places,
        }
        async with reading(self.sessions) as connection:
            statement = _folders_statement(connection.dialect)
            found: Any = (await connection.execute(statement, values)).first()
        if found is None:
            raise not_logged_in()
        require_verified(found)
        folders = {*found.project_dirs, *found.of_datasets}
        folder = next((each for each in places if each in folders), None)
        if folder is None:
            raise NotFoundError("A file", place)
        return place, folder


async def viewer(token: Token, cookie: Cookie, services: ServicesDep) -> Viewer:
    claims = login_tokens(services.settings).claims(token or cookie)
    if claims is None:
        raise not_logged_in()
    return Viewer(services.sessions, claims)
