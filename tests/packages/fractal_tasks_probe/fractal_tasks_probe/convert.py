"""A converter: makes images named by its arguments, without seeing any."""

from pathlib import Path


def convert(zarr_dir, names, zarr_urls="not given"):
    assert zarr_urls == "not given", "a converter sees no images"
    updates = []
    for name in names:
        Path(zarr_dir, name).mkdir(parents=True, exist_ok=True)
        updates.append(
            {"zarr_url": f"{zarr_dir}/{name}", "attributes": {"well": name}, "types": {"raw": True}}
        )
    return {"image_list_updates": updates}


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(convert)
