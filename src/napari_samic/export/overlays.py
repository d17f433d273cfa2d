"""Pictures of results: labels over an image, and many of them on one sheet.

Array in, array out; nothing is written here and no window is opened.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, Image, Prompts

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_FILL = 0.35
_GOLDEN = 0.618033988749895
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_GREEN, _RED = (60, 230, 60), (255, 60, 60)
_SPELLED = str.maketrans({"µ": "u", "μ": "u", "ß": "ss", "×": "x", "–": "-", "±": "+/-"})
_GAP, _GROUND, _INK = 6, 24, (235, 235, 235)


def label_color(label: int) -> tuple[int, int, int]:
    """Color of a label, always the same; neighbors in number are far apart in hue.

    >>> label_color(1) == label_color(1) != label_color(2)
    True
    """
    hue = (0.52 + (label - 1) * _GOLDEN) % 1.0
    value = 1.0 if label % 2 else 0.85
    red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.85, value))
    return red, green, blue


def overlay(
    image: Image,
    labels: NDArray[Any],
    *,
    points: NDArray[Any] | Sequence[Prompts] | None = None,
    truth: NDArray[Any] | None = None,
) -> Image:
    """Overlay of labels on their image: tinted area and outline, clicks as crosses.

    Parameters
    ----------
    image : (H, W, 3) uint8
    labels : (H, W) bool or whole numbers
        0 is background.
    points : (N, 2) float, or sequence of Prompts, optional
        Row and column in pixels, drawn in green; negative points of Prompts in red.
    truth : (H, W) bool or whole numbers, optional
        Its outline is drawn in dashes of white and black.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        Labels or truth of another shape than the image.
    """
    for name, array in (("labels", labels), ("truth", truth)):
        if array is not None and array.shape != image.shape[:2]:
            msg = f"overlay: {name} of {array.shape} for an image of {image.shape[:2]}."
            raise InputError(msg)
    width_px = max(1, round(min(image.shape[:2]) / 250))
    numbers = np.asarray(labels).astype(np.int64)
    out = _tinted(image, numbers, _outline(numbers, width_px))
    if truth is not None:
        edge = _outline(np.asarray(truth).astype(np.int64), width_px)
        row, column = np.indices(edge.shape) // (4 * width_px)
        dash = (row + column) % 2 == 0
        out[edge & dash], out[edge & ~dash] = _WHITE, _BLACK
    for row_column, color in _clicks(points):
        _cross(out, row_column, color, width_px)
    return out


def _tinted(image: Image, labels: NDArray[np.int64], edge: BoolArray) -> Image:
    out = image.astype(np.float32)
    values, place = np.unique(labels, return_inverse=True)
    table = np.array([label_color(int(v)) for v in values], np.float32)  # (labels, 3)
    colors = table[place.reshape(labels.shape)]  # (H, W, 3)
    inside = labels != 0
    out[inside] = (1 - _FILL) * out[inside] + _FILL * colors[inside]
    out[edge] = colors[edge]
    return np.asarray(out + 0.5, dtype=np.uint8)


def _outline(labels: NDArray[np.int64], width_px: int) -> BoolArray:
    """Pixels of each label within `width_px` of another label or background, not of the frame."""
    edge = np.zeros(labels.shape, np.bool_)
    for step in range(1, width_px + 1):
        down = labels[step:] != labels[:-step]
        right = labels[:, step:] != labels[:, :-step]
        edge[step:] |= down
        edge[:-step] |= down
        edge[:, step:] |= right
        edge[:, :-step] |= right
    edge[labels == 0] = False
    return edge


def _clicks(
    points: NDArray[Any] | Sequence[Prompts] | None,
) -> list[tuple[tuple[float, float], tuple[int, int, int]]]:
    if points is None:
        return []
    if isinstance(points, np.ndarray):
        return [((float(r), float(c)), _GREEN) for r, c in points.reshape(-1, 2)]
    return [
        ((float(r), float(c)), _GREEN if positive else _RED)
        for prompts in points
        for (r, c), positive in zip(prompts.points_rc, prompts.is_foreground, strict=True)
    ]


def _cross(
    out: Image, row_column: tuple[float, float], color: tuple[int, int, int], width_px: int
) -> None:
    """Draw into `out`, which is the caller's own copy."""
    row, column = (round(v) for v in row_column)
    arm = 4 * width_px + 1
    thin = width_px // 2
    for tone, long, thick in ((_BLACK, arm + width_px, thin + width_px), (color, arm, thin)):
        for tall, wide in ((long, thick), (thick, long)):
            top, left = max(0, row - tall), max(0, column - wide)
            out[top : max(0, row + tall + 1), left : max(0, column + wide + 1)] = tone


def contact_sheet(
    tiles: Sequence[Image], captions: Sequence[str], *, columns: int = 4, tile_px: int = 256
) -> Image:
    """Lay pictures out in rows, each with a caption below; shapes are kept, edges are filled.

    Parameters
    ----------
    tiles : sequence of (H, W, 3) uint8
        Of any sizes.
    captions : sequence of str
        One for each; what is too long is cut with an ellipsis.
    columns : int
        Fewer are used for fewer tiles.
    tile_px : int
        Side of a tile.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        No tiles, another number of captions, or sizes below 1 column and 16 pixels.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw, ImageFont

    if not tiles or len(tiles) != len(captions) or columns < 1 or tile_px < 16:
        msg = (
            f"contact sheet: {len(tiles)} tiles, {len(captions)} captions, {columns} columns of "
            f"{tile_px} px. Expected a caption a tile, 1 column or more, of 16 px or more."
        )
        raise InputError(msg)
    columns = min(columns, len(tiles))
    size_px = max(11, tile_px // 16)
    strip_px = round(1.7 * size_px)
    pitch = (tile_px + strip_px + _GAP, tile_px + _GAP)
    rows = math.ceil(len(tiles) / columns)
    shape = (rows * pitch[0] + _GAP, columns * pitch[1] + _GAP, 3)
    sheet = PillowImage.fromarray(np.full(shape, _GROUND, np.uint8))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size_px)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        top = _GAP + number // columns * pitch[0]
        left = _GAP + number % columns * pitch[1]
        sheet.paste(PillowImage.fromarray(_letterboxed(tile, tile_px)), (left, top))
        text = _shortened(caption, font, tile_px)
        middle = (left + tile_px / 2, top + tile_px + strip_px / 2)
        draw.text(middle, text, fill=_INK, font=font, anchor="mm")
    return np.array(sheet)


def _letterboxed(tile: Image, side_px: int) -> Image:
    from PIL import Image as PillowImage

    scale = side_px / max(tile.shape[:2])
    height, width = (max(1, round(n * scale)) for n in tile.shape[:2])
    how = PillowImage.Resampling.LANCZOS if scale < 1 else PillowImage.Resampling.NEAREST
    small = np.array(PillowImage.fromarray(tile).resize((width, height), how))
    out = np.full((side_px, side_px, 3), _GROUND + 20, np.uint8)
    top, left = (side_px - height) // 2, (side_px - width) // 2
    out[top : top + height, left : left + width] = small
    return out


def _latin(text: str) -> str:
    """Letters that Pillow's built-in font has: accents go, what is left over becomes '?'."""
    bare = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    kept = "".join(c for c in bare if not unicodedata.combining(c))
    return kept.encode("ascii", "replace").decode("ascii")


def _shortened(text: str, font: FreeTypeFont | ImageFont, width_px: int) -> str:
    line = " ".join(_latin(text).split())
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "...") > width_px:
        line = line[:-1]
    return line + "..."
