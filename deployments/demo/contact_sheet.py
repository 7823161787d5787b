"""Draw one contact sheet of a plate: each well's projection, its objects outlined and counted.

It runs in the environment of the collected task package, with what that brings (ngio, numpy, scipy,
scikit-image, Pillow, the fonts of matplotlib). Objects are counted in the label image and must
agree with the rows of the feature table. Whatever is missing ends it with exit code 1 and one line
that says what.
"""

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from ngio import Image, OmeZarrContainer, open_ome_zarr_container
from ngio.utils import NgioError
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from scipy.ndimage import find_objects, gaussian_filter
from skimage.measure import find_contours

TILE, MIN_TILE, MAX_WIDTH = 520, 110, 1640  # pixels; tiles shrink until the sheet fits the width
MARGIN, GAP, HEADER, FOOTER = 40, 20, 104, 84
SMOOTH = 2  # tiles are drawn this much larger, then reduced, for smooth outlines
PERCENTILES = (1.0, 99.7)

PAPER, EMPTY, OUTLINE = "#0b0e14", "#11151f", "#ffb02e"
TEXT, FAINT = "#f2f5fa", "#8d97a8"
SHADES = np.array([[5, 8, 18], [38, 76, 130], [120, 178, 222], [240, 250, 255]], dtype=float)


@dataclass(frozen=True)
class Well:
    name: str
    row: str
    column: int
    plate: str
    intensity: np.ndarray  # (y, x)
    labels: np.ndarray  # (y, x), 0 is background
    objects: int
    channel: str
    microns: tuple[float, float]  # height, width of the field


def main() -> None:
    arguments = _parse_arguments()
    wells = read_wells(arguments.images, arguments.label, arguments.table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(wells, arguments.label, arguments.table).save(arguments.output, optimize=True)
    counts = {well.name: well.objects for well in wells}
    print(json.dumps({"wells": counts, "total": sum(counts.values())}))


def read_wells(images: Path, label: str, table: str) -> list[Well]:
    """The wells of an image list, in plate order."""
    wells: dict[str, Well] = {}
    for entry in _read_image_list(images):
        well = _read_well(entry, label, table)
        if well.name in wells:
            raise SystemExit(f"{images}: well {well.name} has two images; a sheet shows one each")
        wells[well.name] = well
    return sorted(wells.values(), key=lambda well: (len(well.row), well.row, well.column))


def _read_image_list(path: Path) -> list[dict[str, Any]]:
    try:
        images = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"Cannot read the image list {path}: {error}") from error
    if not isinstance(images, list) or not images:
        raise SystemExit(f"{path} must be a JSON list of at least one image")
    for image in images:
        if not isinstance(image, dict) or not {"zarr_url", "attributes"} <= image.keys():
            raise SystemExit(f"{path}: an image needs 'zarr_url' and 'attributes', not {image!r}")
    return images


def _read_well(entry: dict[str, Any], label: str, table: str) -> Well:
    url, name = entry["zarr_url"], str(entry["attributes"].get("well"))
    place = re.fullmatch(r"([A-Z]+)(\d+)", name)
    if place is None:
        raise SystemExit(f"{url}: its attribute 'well' is {name!r}, not a name like 'B03'")
    try:
        container = open_ome_zarr_container(url, mode="r")
        image = container.get_image()
        if not image.is_2d:
            raise SystemExit(f"{url} is not a 2D image: pass the projections")
        labels = container.get_label(label).get_as_numpy(axes_order=("y", "x"))
        objects = _count_objects(container, labels, table)
    except (NgioError, OSError) as error:
        raise SystemExit(f"{url}: {' '.join(str(error).split())}") from error
    except _CountMismatch as error:
        raise SystemExit(f"{url}: label '{label}' and table '{table}' disagree: {error}") from error
    return Well(
        name=name,
        row=place[1],
        column=int(place[2]),
        plate=str(entry["attributes"].get("plate", "plate")),
        intensity=image.get_as_numpy(axes_order=("y", "x"), c=0),
        labels=labels,
        objects=objects,
        channel=image.channel_labels[0],
        microns=_field_size(image),
    )


class _CountMismatch(Exception):
    pass


def _count_objects(container: OmeZarrContainer, labels: np.ndarray, table: str) -> int:
    objects = int(np.count_nonzero(np.unique(labels)))
    rows = len(container.get_feature_table(table).dataframe)
    if objects != rows:
        raise _CountMismatch(f"{objects} objects, {rows} rows")
    return objects


def _field_size(image: Image) -> tuple[float, float]:
    height, width = image.dimensions.get("y"), image.dimensions.get("x")
    return height * image.pixel_size.y, width * image.pixel_size.x


def draw_sheet(wells: list[Well], label: str, table: str) -> Picture.Image:
    """Draw the sheet in the layout of the plate. All tiles have the same scale and contrast."""
    rows = sorted({well.row for well in wells}, key=lambda row: (len(row), row))
    columns = sorted({well.column for well in wells})
    available = (MAX_WIDTH - 2 * MARGIN - (len(columns) - 1) * GAP) // len(columns)
    tile = max(MIN_TILE, min(TILE, available))
    caption = max(8, min(20, tile // 13))
    step_x, step_y = tile + GAP, tile + GAP + 2 * caption
    width = 2 * MARGIN + len(columns) * step_x - GAP
    height = HEADER + len(rows) * step_y - GAP + FOOTER
    sheet = Picture.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, wells, label, table)

    places = {(well.row, well.column): well for well in wells}
    scale = tile / max(side for well in wells for side in well.microns)
    limits = np.percentile(np.concatenate([w.intensity.ravel()[::7] for w in wells]), PERCENTILES)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            left, top = MARGIN + j * step_x, HEADER + i * step_y + 2 * caption
            draw.rectangle((left, top, left + tile - 1, top + tile - 1), fill=EMPTY)
            if well := places.get((row, column)):
                picture = _draw_tile(well, scale, limits)
                corner = (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2)
                sheet.paste(picture, corner)
                _draw_caption(draw, well, (left, top - caption // 2), tile, caption)
    _draw_scale_bar(draw, scale, tile, (width - MARGIN, height - FOOTER + 24))
    return sheet


def _draw_tile(well: Well, scale: float, limits: np.ndarray) -> Picture.Image:
    """Draw one field, `scale` pixels per micrometre, with the outlines of its objects."""
    size = tuple(max(1, round(side * scale)) for side in reversed(well.microns))
    low, high = limits
    shade = np.clip((well.intensity - low) / max(high - low, 1), 0, 1) * (len(SHADES) - 1)
    stops = np.arange(len(SHADES))
    rgb = np.stack([np.interp(shade, stops, SHADES[:, c]) for c in range(3)], axis=-1)
    large = (size[0] * SMOOTH, size[1] * SMOOTH)
    picture = Picture.fromarray(rgb.astype(np.uint8)).resize(large, Picture.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    zoom = np.array(large) / well.labels.shape[::-1]
    for contour in _outlines(well.labels):
        points = [tuple(point) for point in (contour + 0.5) * zoom]
        draw.line(points, fill=OUTLINE, width=4 if size[0] > TILE // 2 else 2, joint="curve")
    return picture.resize(size, Picture.Resampling.LANCZOS)


def _outlines(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Closed contours (n, 2) of all objects as x, y in pixels, a little smoothed."""
    border = 4
    padded = np.pad(labels, border)
    for index, box in enumerate(find_objects(padded), start=1):
        if box is None:
            continue
        rows, columns = (slice(side.start - border, side.stop + border) for side in box)
        mask = gaussian_filter((padded[rows, columns] == index).astype(float), 1)
        offset = np.array([columns.start, rows.start]) - border
        for contour in find_contours(mask, 0.5):
            yield contour[:, ::-1] + offset


def _draw_header(draw: ImageDraw.ImageDraw, wells: list[Well], label: str, table: str) -> None:
    plate = ", ".join(sorted({well.plate for well in wells}))
    total = sum(well.objects for well in wells)
    title = f"{plate}: {_counted(total, 'object')} in {_counted(len(wells), 'well')}"
    subtitle = (
        f"{wells[0].channel} projection, outlines: label '{label}', features: table '{table}'"
    )
    draw.text((MARGIN, 48), title, fill=TEXT, font=_font(28, bold=True), anchor="ls")
    draw.text((MARGIN, 80), subtitle, fill=FAINT, font=_font(16), anchor="ls")


def _draw_caption(
    draw: ImageDraw.ImageDraw, well: Well, place: tuple[int, int], tile: int, size: int
) -> None:
    left, baseline = place
    draw.text((left, baseline), well.name, fill=TEXT, font=_font(size, bold=True), anchor="ls")
    count = _counted(well.objects, "object")
    draw.text((left + tile, baseline), count, fill=OUTLINE, font=_font(size), anchor="rs")


def _draw_scale_bar(
    draw: ImageDraw.ImageDraw, scale: float, tile: int, place: tuple[int, int]
) -> None:
    """Draw a scale bar of a round length, at most a third of a tile, that ends at `place`."""
    longest = tile / 3 / scale
    magnitude = 10 ** np.floor(np.log10(longest))
    microns = magnitude * max(step for step in (1, 2, 5) if step * magnitude <= longest)
    right, top = place
    left = right - round(microns * scale)
    draw.rectangle((left, top, right - 1, top + 4), fill=TEXT)
    draw.text((right, top + 12), f"{microns:g} µm", fill=TEXT, font=_font(16), anchor="rt")


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font DejaVu, because Pillow's own font has no µ."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="JSON file: image list")
    parser.add_argument("--output", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--label", required=True, help="name of the label image")
    parser.add_argument("--table", required=True, help="name of the feature table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
