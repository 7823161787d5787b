"""Makes the tables of Prefect's database, or brings them up to date.

A Prefect server does so when it starts, and keeps the memory that it takes. For an embedded stack
this process does it, while the rest is imported.
"""

import asyncio

from prefect.server.database import provide_database_interface


def main() -> None:
    asyncio.run(provide_database_interface().create_db())


if __name__ == "__main__":
    main()
