"""What is there before jobs run, as `up` is told by the process that prepares it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Initialised:
    """Who and what exists now. `work_pool` is that of the resource, if one was given.

    `admin_is_new` says that the admin was created just now; `has_first_password`, that the password
    is still the generated one. `kept` names what existed before and has other values than those
    given now. `jobs_user` is the OS user whom the profile names.
    """

    admin_email: str
    admin_is_new: bool
    has_first_password: bool
    work_pool: str | None
    kept: list[str]
    jobs_user: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What is there now. `going_on` names the jobs that an earlier start left.

    `jobs_run_as` says as which OS user jobs run, if that process runs as root.
    """

    initialised: Initialised
    going_on: list[str]
    jobs_run_as: str

    def write(self) -> str:
        """All of this as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, written: str) -> "Prepared":
        """What `write` has written."""
        found = json.loads(written)
        return cls(Initialised(**found.pop("initialised")), **found)
