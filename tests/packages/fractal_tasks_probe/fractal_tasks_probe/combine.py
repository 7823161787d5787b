"""A non-parallel task: sees all images at once, keeps the first and removes the others."""


def combine(zarr_dir, zarr_urls):
    first, *others = zarr_urls
    return {
        "image_list_updates": [{"zarr_url": first, "attributes": {"combined": len(zarr_urls)}}],
        "image_list_removals": others,
    }


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(combine)
