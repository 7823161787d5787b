"""Login and logout by token."""

from typing import Annotated

from fastapi import APIRouter, Depends, status
from fastapi.security import OAuth2PasswordRequestForm

from api.auth import login_tokens
from api.errors import bad_request
from api.request_body import Body, takes
from api.services import CurrentUser, SettingsDep, UserManagerDep
from fractal_models.schemas.user import BearerResponse

router = APIRouter(prefix="/auth/token", tags=["Authentication"])

_Credentials = Annotated[OAuth2PasswordRequestForm, Depends()]


@router.post("/login/")
@takes(Body.LOGIN)
async def login(
    credentials: _Credentials, users: UserManagerDep, settings: SettingsDep
) -> BearerResponse:
    """A token for the header `Authorization: Bearer <token>`. The username is the email."""
    user = await users.authenticate(credentials)
    if user is None or not user.is_active:
        raise bad_request("LOGIN_BAD_CREDENTIALS")
    token = await login_tokens(settings).write_token(user)
    return BearerResponse(access_token=token, token_type="bearer")


@router.post("/logout/", status_code=status.HTTP_204_NO_CONTENT)
async def logout(_: CurrentUser) -> None:
    """The client forgets its token, which ends by itself. A new password ends all of a user."""
