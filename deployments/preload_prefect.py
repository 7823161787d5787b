"""Importing this module imports what a Prefect server needs, also what it imports late."""

import prefect.server.api.server  # noqa: F401

from deployments.imported_late import BY_SERVER, import_what_is_there

import_what_is_there(BY_SERVER)
