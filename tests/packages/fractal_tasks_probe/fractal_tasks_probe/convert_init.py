"""First phase of a converter: one unit of the second phase per name."""


def convert_init(zarr_dir, names):
    return {
        "parallelization_list": [
            {"zarr_url": f"{zarr_dir}/{name}", "init_args": {"well": name}} for name in names
        ]
    }


if __name__ == "__main__":
    from fractal_tasks_probe._run import run

    run(convert_init)
