"""Breaks a stack in many ways, and sees with a real Prometheus that each alert fires and ends.

    python -m benchmarks.alerts [--units 1000000] [--only FractalApiDown ...]

The alerts are those of docs/alerts.yml. First, scrapes are timed with so many units in the history.
`prometheus` must be in PATH (Debian has a package), or named by --prometheus. FractalSqueueSilent
is only tried if it is asked for: it wants a cluster, as root on Debian; so does FractalFolderFull
want root.
"""

import argparse
import asyncio
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.breakage import BREAKS, Ground
from deployments.services import Service, usable_port
from deployments.stack import Stack, StackOptions, running_stack
from tests.cluster_machine import KNOWN_HOSTS
from tests.lab import Lab, logged_in

ALERTS = Path(__file__).parents[1] / "docs" / "alerts.yml"
PASSWORD, TOKEN = secrets.token_urlsafe(), secrets.token_urlsafe()
LONGEST_SECONDS = 60.0
SETTLE_SECONDS = 20.0  # until nothing is left of what was broken before
SCRAPES = 50
CONFIG = """\
global: {{scrape_interval: 2s, scrape_timeout: 2s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: fractal
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A Prometheus that scrapes the API of a stack and knows the example alerts."""

    def __init__(self, port: int) -> None:
        self._alerts = f"http://127.0.0.1:{port}/api/v1/alerts"

    async def seconds_until(self, alert: str, fires: bool) -> float | None:
        """How long it takes until an alert fires, or does not; None if it takes too long."""
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=5) as client:
            while (took := time.monotonic() - began) < LONGEST_SECONDS:
                found = (await client.get(self._alerts)).json()["data"]["alerts"]
                firing = {
                    each["labels"]["alertname"] for each in found if each["state"] == "firing"
                }
                if (alert in firing) == fires:
                    return took
                await asyncio.sleep(0.5)
        return None


@contextmanager
def running_prometheus(program: str, stack: Stack) -> Iterator[Prometheus]:
    port = usable_port("127.0.0.1", 0, "--port")
    with tempfile.TemporaryDirectory(prefix="fractal-prometheus-") as folder:
        config = Path(folder, "prometheus.yml")
        target = stack.api_url.removeprefix("http://")
        config.write_text(CONFIG.format(alerts=ALERTS, token=TOKEN, target=target))
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        options += [f"--web.listen-address=127.0.0.1:{port}"]
        prometheus = Service("prometheus", [program, *options], {}, Path(folder, "log"))
        prometheus.start()
        try:
            _wait_until_ready(prometheus, f"http://127.0.0.1:{port}/-/ready")
            yield Prometheus(port)
        finally:
            prometheus.stop()


def _wait_until_ready(prometheus: Service, url: str) -> None:
    while True:
        prometheus.check()
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.1)


async def time_scrapes(ground: Ground, units: int) -> None:
    """Tell how long a scrape takes when the history has so many units."""
    job = await ground.job("true", 1)
    async with ground.sql() as connection:
        run = await connection.fetchval("SELECT id FROM historyrun WHERE job_id = $1", job["id"])
        await connection.execute(
            "INSERT INTO historyunit (history_run_id, status, logfile, has_warnings, zarr_urls) "
            "SELECT $1, 'done', '/log', false, ARRAY['/image-' || n] FROM generate_series(1, $2) n",
            run,
            units,
        )
    took = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        (await ground.lab.client.get("/metrics")).raise_for_status()
        took.append(1000 * (time.perf_counter() - began))
    median, longest = statistics.median(took), max(took)
    print(f"a scrape at {units:,} units: median {median:.1f} ms, longest {longest:.1f}", flush=True)


async def see_alerts(ground: Ground, prometheus: Prometheus, alerts: list[str]) -> int:
    """How many alerts did not fire or end in time."""
    wrong = 0
    print(f"{'alert':26} {'fires after':>12} {'ends after':>11}", flush=True)
    for alert in alerts:
        await asyncio.sleep(SETTLE_SECONDS)
        if await prometheus.seconds_until(alert, fires=False) is None:
            print(f"{alert} fires before anything is broken")
        async with BREAKS[alert](ground):
            fired = await prometheus.seconds_until(alert, fires=True)
        ended = await prometheus.seconds_until(alert, fires=False)
        await ground.left.aclose()
        wrong += fired is None or ended is None
        told = ["never" if each is None else f"{each:.1f} s" for each in (fired, ended)]
        print(f"{alert:26} {told[0]:>12} {told[1]:>11}", flush=True)
    return wrong


async def measure(stack: Stack, program: str, options: argparse.Namespace) -> int:
    email = stack.initialised.admin_email
    async with logged_in(stack, email, PASSWORD) as client:
        lab = Lab(client, Path(stack.environment["FRACTAL_DATA_DIR"], "projects"))
        project = await lab.ok("POST", "/api/v2/project/", json={"name": "alerts"})
        lab.project_id = project["id"]
        ground = Ground(stack, lab)
        await time_scrapes(ground, options.units)
        alerts = options.only or [each for each in BREAKS if each != "FractalSqueueSilent"]
        with running_prometheus(program, stack) as prometheus:
            return await see_alerts(ground, prometheus, alerts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--prometheus", default=shutil.which("prometheus"))
    parser.add_argument("--only", nargs="+", choices=BREAKS)
    options = parser.parse_args()
    if options.prometheus is None:
        sys.exit("There is no prometheus in PATH: install it, or name it with --prometheus.")
    os.environ["FRACTAL_METRICS_TOKEN"] = TOKEN
    os.environ["FRACTAL_SSH_KNOWN_HOSTS"] = str(KNOWN_HOSTS)
    with tempfile.TemporaryDirectory(
        prefix="fractal-alerts-", ignore_cleanup_errors=True
    ) as folder:
        stack_options = StackOptions(
            data_dir=Path(folder), port=0, prefect_port=0, admin_password=PASSWORD, api_workers=2
        )
        with running_stack(stack_options) as stack:
            wrong = asyncio.run(measure(stack, options.prometheus, options))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
