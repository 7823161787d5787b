"""How long others wait while one user imports a large dataset, and another one exports one.

    python -m benchmarks.neighbours [--images 200000] [--workers 1]

On a stack of its own. Milliseconds of `/api/alive/` and of a page of 50 images, each asked for by a
connection of its own, as a new visitor does; and how much memory the processes of the REST API take
at most, beyond what they had.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.plates import images_of_plates
from deployments.demo.client import FractalClient
from deployments.stack import Stack, StackOptions, running_stack

PASSWORD, PAGE_SIZE, OTHERS, IDLE_SECONDS, PAUSE_SECONDS = "of the benchmark", 50, 2000, 10, 0.005
MIB = 1 << 20


@dataclass(frozen=True)
class Api:
    """An API, as its users see it."""

    url: str
    headers: dict[str, str]
    datasets: str
    folder: str


@dataclass
class Waits:
    """How long each answer took, in milliseconds, by what was asked for; and memory in MiB."""

    answers: dict[str, list[float]]
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1, help="processes of the REST API")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="fractal-benchmark-", ignore_cleanup_errors=True
    ) as folder:
        stack_options = StackOptions(
            data_dir=Path(folder),
            port=0,
            prefect_port=0,
            admin_password=PASSWORD,
            api_workers=options.workers,
        )
        with (
            running_stack(stack_options) as stack,
            ProcessPoolExecutor(2, mp_context=get_context("spawn")) as users,
        ):
            report(stack, users, Path(folder), options.images)


def report(stack: Stack, users: ProcessPoolExecutor, folder: Path, images: int) -> None:
    api = make_api(stack)
    page = f"{api.datasets}{import_dataset(api, write(api, folder, OTHERS))}/images/query/"
    ask = partial(ask_others, api, page)
    large = write(api, folder, images)
    print(f"\n{images:,} images, {large.stat().st_size / MIB:.0f} MiB; milliseconds")
    print(f"{'':34}{'median':>8}{'99 %':>8}{'most':>8}{'answers':>9}{'seconds':>9}{'MiB':>6}")
    began = time.monotonic()
    tell("nobody else", watch(stack, ask, lambda: time.monotonic() - began < IDLE_SECONDS), 0.0)
    importing = users.submit(timed_import, api, large)
    waits = watch(stack, ask, lambda: not importing.done())
    dataset, seconds = importing.result()
    tell("an import", waits, seconds)
    exporting = users.submit(export, api, dataset)
    waits = watch(stack, ask, lambda: not exporting.done())
    tell("an export", waits, exporting.result())
    importing = users.submit(timed_import, api, large)
    again = exports(users, api, dataset, importing)
    waits = watch(stack, ask, lambda: next(again))
    tell("an import, and exports", waits, importing.result()[1])


def make_api(stack: Stack) -> Api:
    client = FractalClient(stack.api_url, stack.initialised.admin_email, PASSWORD)
    project = client.post("/api/v2/project/", {"name": "benchmark"})["id"]
    return Api(
        stack.api_url,
        client.authorization,
        f"/api/v2/project/{project}/dataset/",
        client.get("/auth/current-user/")["project_dirs"][0],
    )


def write(api: Api, folder: Path, images: int) -> Path:
    """A file with a dataset, as an export is."""
    place = folder / f"{images}.json"
    listed = images_of_plates(api.folder, images)
    place.write_text(json.dumps({"name": "large", "zarr_dir": api.folder, "images": listed}))
    return place


def client_of(api: Api) -> httpx.Client:
    return httpx.Client(base_url=api.url, headers=api.headers, timeout=600, verify=False)


def import_dataset(api: Api, place: Path) -> int:
    headers = {"content-type": "application/json"}
    with client_of(api) as client, place.open("rb") as file:
        answer = client.post(f"{api.datasets}import/", content=file, headers=headers)
    return int(answer.raise_for_status().json()["id"])


def timed_import(api: Api, place: Path) -> tuple[int, float]:
    began = time.perf_counter()
    return import_dataset(api, place), time.perf_counter() - began


def export(api: Api, dataset: int) -> float:
    """The seconds that an export takes."""
    began = time.perf_counter()
    with client_of(api) as client, client.stream("GET", f"{api.datasets}{dataset}/export/") as got:
        got.raise_for_status()
        for _ in got.iter_raw():
            pass
    return time.perf_counter() - began


def exports(
    users: ProcessPoolExecutor, api: Api, dataset: int, until: "Future[Any]"
) -> Iterator[bool]:
    """Export again and again until something else has ended."""
    while not until.done():
        exporting = users.submit(export, api, dataset)
        while not exporting.done():
            yield True
        exporting.result()
    yield False


def ask_others(api: Api, page: str, answers: dict[str, list[float]]) -> None:
    for name, path, body in (
        ("/api/alive/", "/api/alive/", None),
        (f"a page of {PAGE_SIZE}", f"{page}?page_size={PAGE_SIZE}", {}),
    ):
        with client_of(api) as client:
            began = time.perf_counter()
            got = client.get(path) if body is None else client.post(path, json=body)
            answers.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        got.raise_for_status()
        time.sleep(PAUSE_SECONDS)


def watch(
    stack: Stack, ask: Callable[[dict[str, list[float]]], None], goes_on: Callable[[], bool]
) -> Waits:
    before = most = memory_of_api(stack)
    answers: dict[str, list[float]] = {}
    while goes_on():
        ask(answers)
        most = max(most, memory_of_api(stack))
    return Waits(answers, (most - before) / MIB)


def memory_of_api(stack: Stack) -> int:
    """The bytes that its processes have for themselves."""
    process, taken = psutil.Process(stack.parts["api"].pid), 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory = each.memory_info()
            taken += memory.rss - memory.shared
    return taken


def tell(when: str, waits: Waits, seconds: float) -> None:
    for name, took in waits.answers.items():
        late = statistics.quantiles([*took, max(took)], n=100, method="inclusive")[98]
        took_most = f"{statistics.median(took):8.1f}{late:8.1f}{max(took):8.1f}{len(took):9}"
        print(f"{f'{name}, {when}':34}{took_most}{seconds:9.1f}{waits.memory:6.0f}", flush=True)


if __name__ == "__main__":
    main()
