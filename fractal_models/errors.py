"""Errors of which people read the message: what is wrong, and how to mend it.

All errors of ours are below `FractalError`; those that one subject has stand beside it. The command
line shows their messages without a traceback, and `api/errors.py` has the table that says which of
them are answers to requests, with what status.
"""


class FractalError(Exception):
    """What went wrong was foreseen; the message is for the person who can mend it."""


class NotFoundError(FractalError):
    """Nothing of that name is there, or it is not for this user to see."""

    def __init__(self, what: str, name: object) -> None:
        super().__init__(f"{what} {name} not found.")
        self.what, self.name = what, name


class ForbiddenError(FractalError):
    """The user sees it, but may not do this with it; the message says what."""


class UnavailableError(FractalError):
    """Something that is needed does not answer at present; later it may."""


class RefusedError(FractalError):
    """What is asked for is understood, but not possible as things are."""


class ProfileError(RefusedError):
    """A user has no way into a resource: no profile, or one that names nobody who could be that."""


class JobRefusedError(RefusedError):
    """The job cannot be submitted; the message says why and what to do."""


class NotNowError(JobRefusedError):
    """The job cannot be submitted at this moment, but could at another."""


class DatasetBusyError(NotNowError):
    """Another job on the dataset has not ended."""


class NothingToDoError(NotNowError):
    """All images are done, and only others were asked for."""


class ResourceClosedError(NotNowError):
    """Administrators let no new jobs begin on the resource."""
