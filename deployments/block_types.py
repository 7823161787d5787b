"""Registers the block types of Prefect, which its UI offers for notifications and the like.

A Prefect server does so before it answers for the first time, which takes seconds. For an embedded
stack this process does it, once for each version of Prefect, when all is ready.
"""

import asyncio
import os
import sys
from pathlib import Path

import prefect
from prefect.server.database import provide_database_interface
from prefect.server.models.block_registration import run_block_auto_registration


def main() -> None:
    """Register them, unless this file says that it has been done for this version."""
    marker = Path(sys.argv[1])
    if not marker.exists() or marker.read_text() != prefect.__version__:
        os.nice(19)
        asyncio.run(_register())
        marker.write_text(prefect.__version__)


async def _register() -> None:
    async with await provide_database_interface().session() as session:
        await run_block_auto_registration(session)


if __name__ == "__main__":
    main()
