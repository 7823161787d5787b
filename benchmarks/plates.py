"""Image lists of plates, as a converter makes them."""

from typing import Any

_PER_PLATE = 5000


def images_of_plates(folder: str, number: int) -> list[dict[str, Any]]:
    """So many images in a folder, as an export tells them."""
    return [
        {
            "zarr_url": f"{folder}/plate_{n // _PER_PLATE}.zarr/{n % 8}/{n % 24}/{n}",
            "origin": None,
            "attributes": {
                "plate": f"plate_{n // _PER_PLATE}.zarr",
                "well": f"{'ABCDEFGH'[n % 8]}{n % 24:02}",
                "acquisition": n % 3,
            },
            "types": {"is_3D": n % 2 == 0},
        }
        for n in range(number)
    ]
