"""Errors whose messages are for people: what is wrong, and how to mend it.

All our errors derive from `FractalError`; an error that belongs to one subject is in the module of
that subject. The command line shows their messages without a traceback. A table in `api/errors.py`
says which errors are answers to requests, and with which status.
"""


class FractalError(Exception):
    """An error that was foreseen; the message is for the person who can mend it."""


class NotFoundError(FractalError):
    """Nothing with this name exists, or this user may not see it."""

    def __init__(self, what: str, name: object) -> None:
        super().__init__(f"{what} {name} not found.")
        self.what, self.name = what, name


class ForbiddenError(FractalError):
    """The user may see something, but not do this with it; the message says what."""


class UnavailableError(FractalError):
    """Something that is needed does not answer now, but may later."""


class RefusedError(FractalError):
    """A request is understood, but not possible as things are."""


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
