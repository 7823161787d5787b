"""Second phase of a converter: makes one image."""

from pathlib import Path


def convert_compute(zarr_url, init_args):
    Path(zarr_url).mkdir(parents=True, exist_ok=True)
    return {"image_list_updates": [{"zarr_url": zarr_url, "attributes": init_args}]}


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(convert_compute)
