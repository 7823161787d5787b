"""A program on a host that vanishes: it holds the lock of a job, and a statement of it runs.

It takes the URL of the database and the id of the job, prints `ready`, and then how its two
connections ended, one that waits for an answer and one that asks when it reads a line.
"""

import asyncio
import sys

from sqlalchemy import make_url

from flows.process.lock import lock_job
from fractal_models.database import connect

_LONG = "SELECT pg_sleep(600)"


async def main() -> None:
    url = make_url(sys.argv[1])
    await lock_job(url, int(sys.argv[2]), lambda _: None)
    waiting, asking = await connect(url), await connect(url)
    answer = asyncio.create_task(_outcome(waiting.execute(_LONG), "waiting"))
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(answer, _outcome(asking.execute(_LONG), "asking"))


async def _outcome(answer: "asyncio.Future[str]", what: str) -> None:
    try:
        await answer
    except Exception as error:
        print(f"{what}: {error!r}", flush=True)


asyncio.run(main())
