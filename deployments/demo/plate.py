"""Make a small OME-Zarr plate out of the real microscope image that ngio ships.

It runs in the environment of the collected task package, with what that brings (ngio, numpy, scipy,
Pillow), and prints the images as a Fractal image list.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ngio import ImageInWellPath, create_empty_plate, create_ome_zarr_from_array
from ngio.ome_zarr_meta.ngio_specs import Channel
from ngio.resources import SampleInfo, get_sample_info
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

PLATE = "plate.zarr"
MAX_WELLS = 384
FIRST_ROW, FIRST_COLUMN = "B", 3  # the outermost wells of a real plate are often left empty
COLUMNS_PER_ROW = 1.5  # 8 x 12 and 16 x 24 wells
WINDOW = 256  # pixels of the sample that one well sees
ENLARGE = 2
PLANES = 5
BLUR = 1.5  # pixels per plane away from the focus
FADE = 1.0  # planes after which the light is down to 1/e


def main() -> None:
    arguments = _parse_arguments()
    sample = get_sample_info("Cardiomyocyte")
    plane = np.asarray(Image.open(sample.img_path), dtype=np.float32)
    images = make_plate(arguments.output.resolve() / PLATE, arguments.wells, plane, sample)
    json.dump(images, sys.stdout, indent=2)
    print()


def make_plate(
    plate: Path, wells: int, plane: np.ndarray, sample: SampleInfo
) -> list[dict[str, Any]]:
    """Write `plate` with `wells` wells, replacing what was there; return its Fractal image list."""
    rows = max(1, round(math.sqrt(wells / COLUMNS_PER_ROW)))
    columns = math.ceil(wells / rows)
    positions = [divmod(index, columns) for index in range(wells)]
    names = [(chr(ord(FIRST_ROW) + row), f"{FIRST_COLUMN + col:02d}") for row, col in positions]

    plate.parent.mkdir(parents=True, exist_ok=True)
    create_empty_plate(
        plate,
        name=plate.name,
        images=[ImageInWellPath(row=row, column=col, path="0") for row, col in names],
        overwrite=True,
    )
    images = []
    for index, ((row, column), (letter, number)) in enumerate(zip(positions, names, strict=True)):
        window = _window(plane, row / max(1, rows - 1), column / max(1, columns - 1))
        url = f"{plate}/{letter}/{number}/0"
        _write_image(url, _stack(window, focus=1 + index % (PLANES - 2)), sample)
        images.append(
            {
                "zarr_url": url,
                "attributes": {"plate": plate.name, "well": f"{letter}{number}"},
                "types": {"is_3D": True},
            }
        )
    return images


def _window(plane: np.ndarray, down: float, right: float) -> np.ndarray:
    """The part of the sample at a relative position (0 to 1 on both axes)."""
    top = round(down * (plane.shape[0] - WINDOW))
    left = round(right * (plane.shape[1] - WINDOW))
    return plane[top : top + WINDOW, left : left + WINDOW]


def _stack(window: np.ndarray, focus: int) -> np.ndarray:
    """A z stack (planes, y, x) of 16 bits: one plane in focus, the others blurred and dimmer."""
    sharp = np.clip(zoom(window, ENLARGE, order=3), 0, 255) * 257
    planes = [
        gaussian_filter(sharp, BLUR * abs(z - focus)) * math.exp(-(((z - focus) / FADE) ** 2))
        for z in range(PLANES)
    ]
    return np.stack(planes).round().astype(np.uint16)


def _write_image(url: str, stack: np.ndarray, sample: SampleInfo) -> None:
    image = create_ome_zarr_from_array(
        url,
        stack[np.newaxis],
        axes_names="czyx",
        channels_meta=[Channel.default_init("DAPI", wavelength_id="A01_C01", color="0000FF")],
        pixelsize=sample.pixelsize / ENLARGE,
        z_spacing=sample.z_spacing,
        levels=3,
        name=sample.name,
        overwrite=True,
    )
    image.add_table("well_ROI_table", image.build_image_roi_table("image"), backend="csv")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, help=f"folder in which {PLATE} is made"
    )
    parser.add_argument("--wells", type=int, default=4, help=f"1 to {MAX_WELLS}, 4 by default")
    arguments = parser.parse_args()
    if arguments.output.exists() and not arguments.output.is_dir():
        parser.error(f"--output {arguments.output} is a file: name a folder")
    if not 1 <= arguments.wells <= MAX_WELLS:
        parser.error(f"--wells is {arguments.wells}: choose 1 to {MAX_WELLS}")
    return arguments


if __name__ == "__main__":
    main()
