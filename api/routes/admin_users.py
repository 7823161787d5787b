"""Administration of users, beyond their accounts: act as one of them, a table of all."""

import csv
import io

from fastapi import APIRouter, Response
from pydantic import AwareDatetime

from api.auth import login_tokens
from api.dependencies import SessionDep, SettingsDep, Superuser
from api.lookups import find
from api.queries.users import table_of_users
from fractal_models.errors import RefusedError
from fractal_models.schemas.user import BearerResponse
from fractal_models.tables import UserOAuth

router = APIRouter(prefix="/admin/v2", tags=["Administration"])

_IMPERSONATION_SECONDS = 2 * 60 * 60


@router.get("/impersonate/{user_id}/")
async def impersonate_user(
    user_id: int, _: Superuser, session: SessionDep, settings: SettingsDep
) -> BearerResponse:
    """A token with which one is another user, for two hours."""
    user = await find(session, UserOAuth, user_id)
    if not user.is_active:
        raise RefusedError(f"User {user.email} is not active, and cannot log in.")
    token = await login_tokens(settings, _IMPERSONATION_SECONDS).write_token(user)
    return BearerResponse(access_token=token, token_type="bearer")


@router.get("/users-csv/", response_class=Response)
async def table_users(
    _: Superuser,
    session: SessionDep,
    exclude_zero_jobs: bool = False,
    start_timestamp_min: AwareDatetime | None = None,
    start_timestamp_max: AwareDatetime | None = None,
) -> Response:
    """A CSV table of the users with a profile, and how many jobs they started in a time."""
    users = await table_of_users(
        session, start_timestamp_min, start_timestamp_max, only_with_jobs=exclude_zero_jobs
    )
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(users.keys())
    writer.writerows(users)
    return Response(
        table.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="users.csv"'},
    )
