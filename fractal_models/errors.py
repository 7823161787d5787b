"""Errors of which people read the message: what is wrong, and how to mend it.

All errors of ours are below `FractalError`; those that one subject has stand beside it. The command
line shows their messages without a traceback, and `api/errors.py` has the table that says which of
them are answers to requests, with what status.
"""


class FractalError(Exception):
    """An error that was foreseen; its message is for the person who can mend it."""


class NotFoundError(FractalError):
    """Nothing with this name exists, or this user may not see it."""

    def __init__(self, what: str, name: object) -> None:
        super().__init__(f"{what} {name} not found.")
        self.what, self.name = what, name


class ForbiddenError(FractalError):
    """The user may see something, but not do this with it; the message says what."""


class UnavailableError(FractalError):
    """Something that is needed does not answer now; it may do so later."""


class RefusedError(FractalError):
    """The request is understood, but it cannot be done as things are."""


class ProfileError(RefusedError):
    """A user cannot use a resource: there is no profile, or its OS user is missing or root."""


class JobRefusedError(RefusedError):
    """The job cannot be submitted; the message says why and what to do."""


class NotNowError(JobRefusedError):
    """The job cannot be submitted now, but perhaps later."""


class DatasetBusyError(NotNowError):
    """Another job on the dataset has not ended."""


class NothingToDoError(NotNowError):
    """Only images that are not done were asked for, and all images are done."""


class ResourceClosedError(NotNowError):
    """Administrators have closed the resource for new jobs (`prevent_new_submissions`)."""
