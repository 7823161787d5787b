"""First phase of a compound task: one copy to be made per image."""


def copy_init(zarr_dir, zarr_urls, suffix="_copy"):
    return {
        "parallelization_list": [
            {"zarr_url": url + suffix, "init_args": {"origin": url}} for url in zarr_urls
        ]
    }


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(copy_init)
