"""A parallel task: succeeds, or fails on some images in the way it is told to."""

import os
import signal
import sys
import time
from pathlib import Path


def process(zarr_url, seconds=0.0, until=None, fail_on=(), how="exit", output=None, warn=False):
    print(f"processing {zarr_url}", flush=True)
    if warn:
        print("WARNING: this image looks odd", flush=True)
    time.sleep(seconds)
    while until is not None and not Path(until).exists():
        time.sleep(0.05)
    if zarr_url.rsplit("/", 1)[-1] in fail_on:
        if how == "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "output":
            return output
        sys.exit("this image cannot be processed")
    return None


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(process)
