"""Second phase of a compound task: makes one copy."""

import sys


def copy_compute(zarr_url, init_args, fail_on=()):
    if zarr_url.rsplit("/", 1)[-1] in fail_on:
        sys.exit("this copy cannot be made")
    return {"image_list_updates": [{"zarr_url": zarr_url, "origin": init_args["origin"]}]}


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(copy_compute)
