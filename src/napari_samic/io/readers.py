"""What image files have in common, and the simple kinds: Pillow formats and OME-Zarr.

An opener looks at the header only and answers `ImageSet`, one `LazyArray` for each image in the
file: shape, named axes, and a function that reads one selection. Files are opened anew for each
read, so planes can travel to other threads and processes. Knows no ImagePlane and no model.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import ImageReadError, InputError, SamicError
from napari_samic.core.types import PixelSize

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
ZARR_SUFFIX = ".zarr"
READABLE = (*PILLOW_SUFFIXES, *TIFF_SUFFIXES, ZARR_SUFFIX)
"""Endings that are read, in lower case; case does not matter in the files' names."""
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".lsm", ".qptiff")
"""TIFFs of instruments, by other endings."""
INSTRUMENT_SUFFIXES = (*SLIDE_SUFFIXES, ".czi", ".nd2", ".lif", ".dcm", ".nii", ".nii.gz")
"""Read where they are named, or are all that a folder holds: beside them often lie exports."""

ORIENTATION = 274
"""Number of the tag, in EXIF as in TIFF."""
ORIENTATIONS = {
    2: (False, 1, -1), 3: (False, -1, -1), 4: (False, -1, 1), 5: (True, 1, 1), 6: (True, 1, -1),
    7: (True, -1, -1), 8: (True, -1, 1),
}  # fmt: skip
"""Orientation: whether rows and columns change places, then the step along each."""

_PILLOW = threading.Lock()
_WORK_BYTES = 8  # a pixel, of what is made of it: three of color, or a label and a comparison
_TAIL_BYTES = 65_536  # more than notes take
_DEEP_PNG = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR.{8}\x10([\x02\x04\x06])", re.DOTALL)
_ZARR_MARKS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
Selection = tuple[int | slice, ...]


@dataclass(frozen=True, eq=False)
class LazyArray:
    """An array that is read piece by piece.

    Attributes
    ----------
    shape : tuple of int
    axes : str
        One letter an axis, as tifffile has them: Y X the plane, C S channels. Empty: not known.
    take : callable
        Selection (one int or slice an axis) to pixels.
    dtype : dtype, optional
        Of the stored numbers.
    finish : callable, optional
        Makes of stored pixels, (H, W) or (H, W, C), those that are shown.
    by_part : bool
        A part of a plane takes less time and memory than all of it.
    is_loaded : bool
        It is in memory.
    """

    shape: tuple[int, ...]
    axes: str
    take: Callable[[Selection], NDArray[Any]]
    dtype: np.dtype[Any] | None = None
    finish: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    by_part: bool = False
    is_loaded: bool = False


@dataclass(frozen=True, eq=False)
class ImageSet:
    """What a file holds.

    Attributes
    ----------
    series : sequence of LazyArray
        Each image in full resolution; mostly one.
    remarks : tuple of str
        What was left out or done to it, each in words that fit any file.
    files : tuple of Path
        All that it was read from, if these are several.
    """

    series: Sequence[LazyArray]
    remarks: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one ImageReadError that names the file."""
    try:
        yield
    except SamicError:
        raise
    except MemoryError as error:
        raise too_large(name) from error
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, KeyError...
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        msg = f"{name}: can't be read ({cause}). Open it elsewhere, export it again or remove it."
        raise ImageReadError(msg) from error


def is_zarr(path: Path) -> bool:
    """Whether `path` is a zarr folder: by its ending, or by its metadata."""
    return path.is_dir() and (
        path.suffix.lower() == ZARR_SUFFIX or any((path / mark).is_file() for mark in _ZARR_MARKS)
    )


def too_large(name: str, what: str = "it") -> ImageReadError:
    """The error of an image that does not fit into the memory."""
    msg = f"{name}: {what} needs more memory than there is. Make it smaller, or cut it up."
    return ImageReadError(msg)


def check_memory(shape: Sequence[int], itemsize: int, name: str) -> None:
    """Raise ImageReadError if an image to be read would not fit into the memory that is free.

    Parameters
    ----------
    shape : sequence of int
        Y and X first.
    itemsize : int
        Bytes of a number.
    """
    import psutil

    needed = math.prod(shape) * itemsize + math.prod(shape[:2]) * _WORK_BYTES
    if needed > (free := psutil.virtual_memory().available):
        size = " x ".join(map(str, shape))
        what = f"{size} pixels, {needed / 1e9:.0f} GB where {free / 1e9:.0f} GB are free,"
        raise too_large(name, what)


def read_pillow(path: Path, *, palette_indices: bool = False) -> NDArray[Any]:
    """Read PNG, JPEG or BMP, turned as its EXIF says: the pixels that every viewer shows.

    Parameters
    ----------
    palette_indices : bool
        Give the numbers of a palette image instead of its colors.

    Returns
    -------
    (H, W) or (H, W, 3 or 4), bool, uint8, uint16, int32 or float32
        Alpha beside gray is dropped.

    Raises
    ------
    ImageReadError
        Not an image, truncated, or larger than the memory.
    """
    with reading(path.name), open_pillow(path) as image:
        bands = image.getbands()
        depth = (len(bands),) if len(bands) > 1 else ()
        channels = deep_channels(path)
        size = 4 if bands[0] in "IF" else 1 + (channels is not None)
        check_memory((image.height, image.width, *depth), size, path.name)
        image.load()
        turn = exif_orientation(image)
        if channels is not None:
            return apply_orientation(_deep_pixels(path, channels), turn)
        wanted = {"P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "L", "La": "L"}
        mode = wanted.get(image.mode, image.mode)
        is_as_it_is = mode == image.mode or (image.mode == "P" and palette_indices)
        return apply_orientation(np.array(image if is_as_it_is else image.convert(mode)), turn)


def deep_channels(path: Path) -> tuple[int, ...] | None:
    """Channels, () or (3 or 4,), of a PNG of 16 bits that Pillow cuts to 8; None of other files.

    These hold color, or gray with an alpha, which is dropped.
    """
    with path.open("rb") as file:
        match = _DEEP_PNG.match(file.read(26))
    return {2: (3,), 4: (), 6: (4,)}[match[1][0]] if match else None


def _deep_pixels(path: Path, channels: tuple[int, ...]) -> NDArray[np.uint16]:
    """Stored pixels of such a PNG, (H, W, *channels)."""
    import imagecodecs

    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()), np.uint16)
    return pixels[..., : channels[0]] if channels else pixels[..., 0]


def open_pillow(path: Path) -> Any:
    """Open with Pillow; its own limit of size, which speaks of attacks, does not count."""
    from PIL import Image as PillowImage

    with _PILLOW:  # the limit is one for all threads
        limit, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None
        try:
            return PillowImage.open(path)
        finally:
            PillowImage.MAX_IMAGE_PIXELS = limit


def exif_orientation(image: Any) -> int:
    """Orientation of an image that Pillow opened; 1, as it is, if nothing sensible is noted."""
    with suppress(Exception):  # damaged notes of a camera spoil no picture
        turn = image.getexif().get(ORIENTATION)
        return turn if turn in ORIENTATIONS else 1
    return 1


def has_orientation(path: Path) -> bool:
    """Whether the EXIF of a file of Pillow's turns its image; decodes no pixels for it."""
    with suppress(Exception), open_pillow(path) as image:  # it says why when it is read
        if image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys():
            return exif_orientation(image) != 1
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, _TAIL_BYTES), 2)
            return (
                b"eXIf" in file.read() and exif_orientation(image) != 1
            )  # notes behind the pixels
    return False


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels, (H, W) or (H, W, C), as EXIF's Orientation wants them shown.

    >>> row = np.array([[1, 2, 3]])
    >>> apply_orientation(row, 6).tolist(), apply_orientation(row, 3).tolist()
    ([[1], [2], [3]], [[3, 2, 1]])
    """
    swap, rows, columns = ORIENTATIONS.get(orientation, (False, 1, 1))
    stored = np.swapaxes(pixels, 0, 1) if swap else pixels
    return stored[::rows, ::columns]


def open_zarr(path: Path) -> ImageSet:
    """Level 0 of each image of an OME-Zarr (metadata 0.1 to 0.5), or a bare zarr array.

    Raises
    ------
    ImageReadError
        Not a zarr folder, or a group without an image.
    """
    import zarr

    with reading(path.name):
        node: Any = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            names = getattr(node.metadata, "dimension_names", None) or ()
            return ImageSet([_lazy_zarr(node, "".join(_axis_letter(str(n)) for n in names))])
        return ImageSet([_lazy_zarr(*image) for image in _ome_images(node, path.name)])


def _lazy_zarr(array: Any, axes: str) -> LazyArray:
    shape = tuple(array.shape)
    is_named = len(axes) == len(shape) and axes.count("Y") == axes.count("X") == 1
    named = axes if is_named else ""
    return LazyArray(shape, named, lambda part: np.asarray(array[part]), array.dtype, by_part=True)


def _ome_images(group: Any, name: str) -> list[tuple[Any, str]]:
    """Full resolution and axes of the group's image, or of each that bioformats2raw put in it."""
    if (own := _ome_image(group)) is not None:
        return [own]
    attributes = dict(getattr(group, "attrs", {}))
    if plate := attributes.get("ome", attributes).get("plate"):
        wells = [str(well["path"]) for well in plate.get("wells", ())] or ["A/1"]
        msg = (
            f"{name}: a plate of {len(wells)} wells, expected an image. Give a well of it, as "
            f"{name}/{wells[0]}, or one field, as {name}/{wells[0]}/0."
        )
        raise ImageReadError(msg)
    images: list[tuple[Any, str]] = []
    while (image := _ome_image(group.get(str(len(images))))) is not None:
        images.append(image)
    if not images:
        msg = (
            f"{name}: zarr group without OME 'multiscales'. Give the folder of one image or array."
        )
        raise ImageReadError(msg)
    return images


def _ome_image(node: Any) -> tuple[Any, str] | None:
    attributes = dict(getattr(node, "attrs", {}))
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        return None
    letters = [_axis_letter(axis) for axis in scales[0].get("axes", "tczyx")]
    return node[scales[0]["datasets"][0]["path"]], "".join(letters)


def zarr_pixel_size(path: Path) -> PixelSize | None:
    """As the OME metadata of a lone image tell it; None if they don't."""
    import zarr

    with reading(path.name):
        node: Any = zarr.open(path, mode="r")
        attributes = dict(getattr(node, "attrs", {}))
        scales = attributes.get("ome", attributes).get("multiscales") or [{}]
        axes = [axis for axis in scales[0].get("axes", ()) if isinstance(axis, dict)]
        units = {axis["name"]: axis.get("unit", "") for axis in axes}
        sizes = dict.fromkeys(units, 1.0)
        for place in (scales[0], *scales[0].get("datasets", ())[:1]):
            for step in place.get("coordinateTransformations", ()):
                for name, size in zip(units, step.get("scale", ()), strict=False):
                    sizes[name] *= size
        if units.get("y") != units.get("x"):
            return None
        depth, planes = sizes.get("z", math.nan), units.get("z", "")
        rows, columns = sizes.get("y", 0.0), sizes.get("x", 0.0)
        return PixelSize.of(
            rows, columns, units.get("x", ""), depth if planes else math.nan, planes
        )


def zarr_channel_names(path: Path) -> tuple[str, ...]:
    """Labels of the channels in OME's rendering metadata; () if there are none."""
    import zarr

    with reading(path.name):
        attributes = dict(getattr(zarr.open(path, mode="r"), "attrs", {}))
        channels = attributes.get("ome", attributes).get("omero", {}).get("channels", ())
        return tuple(str(channel.get("label", "")) for channel in channels)


def _axis_letter(axis: Any) -> str:
    """Of a name, or of NGFF's dict of name and type."""
    name, kind = (axis, "") if isinstance(axis, str) else (axis["name"], axis.get("type"))
    if kind in ("channel", "time"):
        return str(kind[0]).upper()
    letter = str(name[:1]).upper()
    return letter if name.lower() in {"t", "c", "z", "y", "x", "channel"} else "Q"


def check_pixels(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return `pixels` if a model could work on them.

    Parameters
    ----------
    pixels : (H, W) or (H, W, C)
        Bool, whole or floating numbers.
    name : str
        For the message.

    Raises
    ------
    InputError
        Another number of axes, a side below 2 pixels, complex numbers, or NaN and infinity.
    """
    if pixels.ndim not in (2, 3):
        raise InputError(f"{name}: shape {pixels.shape}, expected (H, W) or (H, W, channels).")
    if min(pixels.shape[:2]) < 2 or 0 in pixels.shape:
        size = " x ".join(map(str, pixels.shape))
        msg = f"{name}: {size} pixels, expected at least 2 x 2. Leave it out or check its axes."
        raise InputError(msg)
    if pixels.dtype.kind not in "buif":
        msg = f"{name}: {pixels.dtype} pixels, expected bool, whole or floating numbers."
        raise InputError(msg)
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(pixels)).all():
        bad = int(finite.size - np.count_nonzero(finite))
        msg = (
            f"{name}: {bad} of {pixels.size} values are NaN or infinite. "
            "Replace them first, for instance with numpy.nan_to_num."
        )
        raise InputError(msg)
    return pixels
