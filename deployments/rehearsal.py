"""Importing this module makes the statements of jobs once, for all processes forked from here."""

import asyncio

from flows.job.rehearsal import rehearse
from fractal_models.settings import Settings, read_settings

# Not `get_settings`: a process may have other settings, and reads them itself.
asyncio.run(rehearse(read_settings(Settings).async_database_url))
