"""TIFF files: each series at full resolution, in the pixels that viewers show.

Series, axes and the files of a set are those of the file's own metadata, as tifffile reads them.
Palettes, MinIsWhite, CMYK and the Orientation tag are seen to here. Knows no ImagePlane.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import ImageReadError
from napari_samic.core.types import PixelSize
from napari_samic.io.readers import (
    ORIENTATION,
    ORIENTATIONS,
    TIFF_SUFFIXES,
    ImageSet,
    LazyArray,
    Selection,
    apply_orientation,
    check_memory,
    reading,
)
from napari_samic.io.text_files import is_name

MADE_BY = "napari-samic"
"""Software tag of our copies of slices, whose resolution is that of the layer."""
_CENTIMETER = 3  # ResolutionUnit
_WHITE_IS_0, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6  # Photometric
_SPACES = {_YCBCR: "YCbCr", 8: "LAB"}  # as Pillow calls them
_PLAIN = (1, 5, 8, 32773, 32946, 50000)  # Compression that is none, or changes no number
_ALPHA = ((1,), (2,))  # ExtraSamples
_LARGE, _MOST_PACKED = 64_000_000, 30_000
"""Bytes of a page that need a file to match, and how far empty tiles can be packed."""
_SLIDES = ("svs", "ndpi", "scn", "bif", "qpi", "philips", "avs")  # kinds of series in tifffile
_BY_PAGE = ("shaped", "generic", "uniform", "ome", "imagej")  # kinds, of pages that stand alone
_Stamp = tuple[int, int, int]  # of a file: its inode, when it was changed, and its size
_ASIDE = ("Thumbnail", "Label", "Macro", "Map")  # series of these, by name


def open_tiff(path: Path, *, palette_indices: bool = False) -> ImageSet:
    """Each series of a TIFF, OME-TIFF or ImageJ TIFF that is no thumbnail.

    Parameters
    ----------
    palette_indices : bool
        Give stored numbers instead of what they look like: no palette, MinIsWhite or CMYK.

    Raises
    ------
    ImageReadError
        Not a TIFF, or a header that is damaged. A set that lacks a file raises when it is read.
    """
    import tifffile

    with reading(path.name):
        _check_chain(path)
        group = _set_of(path)
        if group.fault:
            return ImageSet(
                [LazyArray((2, 2), "YX", partial(_refuse, group.fault))], (), group.files
            )
        first = group.files[0] if group.files else path
        stamp = None if group.files else _stamp_of(path)
        with tifffile.TiffFile(first, omexml=group.companion or None) as file:
            if not file.series:
                raise ValueError("it holds no image")
            numbers = _full_resolution(file.series)
            is_cut = len(numbers) < len(file.series)
            is_pyramid = any(_has_unmarked_levels(file.series[number]) for number in numbers)
            parts = [_lazy(file, number, stamp, as_stored=palette_indices) for number in numbers]
            has_orientation = file.pages.first.tags.valueof(ORIENTATION) in ORIENTATIONS
    remarks = {
        f"opened with the other {len(group.files) - 1} files of its set": len(group.files) > 1,
        "the thumbnail or other side images in it are left out": is_cut,
        "smaller pages are taken for levels of a pyramid and left out": is_pyramid,
        "images of its set whose files are not beside it are left out": group.is_part,
        "its OME metadata are in a file that is not beside it": group.is_lost,
        "turned as its Orientation tag says": has_orientation,
    }
    return ImageSet(parts, tuple(text for text, holds in remarks.items() if holds), group.files)


def _full_resolution(series: Any) -> list[int]:
    numbers = [n for n, part in enumerate(series) if math.prod(part.shape)]
    main = [n for n in numbers if not _is_aside(series[n])]
    return main or numbers


def _is_aside(series: Any) -> bool:
    is_of_slide = series.kind in _SLIDES and series.name in _ASIDE
    return is_of_slide or series.keyframe.is_reduced or series.keyframe.is_mask


def _has_unmarked_levels(series: Any) -> bool:
    """Whether there are smaller pages of which nothing but the size says that they are the same."""
    pages = [level.keyframe for level in series.levels[1:] if series.kind == "generic"]
    return any(not page.is_reduced and not page.is_subifd for page in pages)


def _lazy(file: Any, number: int, stamp: _Stamp | None, *, as_stored: bool) -> LazyArray:
    """One series of a file with that stamp; without, of a set."""
    series = file.series[number]
    shape = tuple(int(n) for n in series.shape)
    named = series.axes if all(series.axes.count(a) == 1 for a in "YX") else ""
    if stamp is None:
        places = [_Place.of(page) for page in series.pages]
        take = partial(_take_of_set, tuple(places), shape, series.keyframe.shape)
    else:
        index = _Index.of(file, series, stamp)
        take = partial(_take, Path(file.filehandle.path), number, index)
    finish = _DisplayPixels.of(series.keyframe, as_stored=as_stored)
    by_part = _has_small_parts(series)
    return LazyArray(shape, named, take, np.dtype(series.dtype), finish, by_part)


def _refuse(fault: str, _: Selection) -> NDArray[Any]:
    raise ImageReadError(fault)


# --- pixels -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Index:
    """Where each page of a series is in its file: to find them anew takes longer than to read one.

    Attributes
    ----------
    offsets : (N,) int64
    shape, page_shape : tuple of int
    dtype : dtype
    stamp : _Stamp
        Of the file that they were found in.
    """

    offsets: NDArray[np.int64]
    shape: tuple[int, ...]
    page_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stamp: _Stamp

    @classmethod
    def of(cls, file: Any, series: Any, stamp: _Stamp) -> _Index | None:
        """None where a page can't be read by itself."""
        if series.kind not in _BY_PAGE or series.dataoffset is not None or not _is_paged(series):
            return None
        pages = list(series.pages)
        if any(page is None or page.parent is not file for page in pages):
            return None
        offsets = np.array([page.offset for page in pages], np.int64)
        return cls(offsets, series.shape, series.keyframe.shape, np.dtype(series.dtype), stamp)

    def take(self, path: Path, selection: Selection) -> NDArray[Any] | None:
        """As `LazyArray.take`; None if the file, or one of the pages, is not what it was."""
        import tifffile

        if _stamp_of(path) != self.stamp:
            return None
        numbers, lead, inner = _chosen(self.shape, self.page_shape, selection)
        pages = []
        with tifffile.TiffFile(path) as file:
            for number in numbers:
                file.filehandle.seek(int(self.offsets[number]))
                page = tifffile.TiffPage(file, index=number)
                if page.shape != self.page_shape or page.dtype != self.dtype:
                    return None
                _check_claim(page, file)
                pages.append(_pixels(page, inner))
        return _stacked(pages, lead)


def _stamp_of(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _is_paged(series: Any) -> bool:
    """Whether each place along the axes before those of a page is a page."""
    shape, page_shape = tuple(series.shape), tuple(series.keyframe.shape)
    lead = len(shape) - len(page_shape)
    return shape[lead:] == page_shape and len(series) == math.prod(shape[:lead])


def _has_small_parts(series: Any) -> bool:
    """Whether a part of a page can be read without much of the others: it has tiles or strips."""
    if series.dataoffset is not None:
        return True
    chunk_bytes = math.prod(series.keyframe.chunks) * series.dtype.itemsize
    return _is_paged(series) and chunk_bytes <= _LARGE


def _take(path: Path, number: int, index: _Index | None, selection: Selection) -> NDArray[Any]:
    import tifffile

    if index is not None and (pixels := index.take(path, selection)) is not None:
        return pixels
    with tifffile.TiffFile(path) as file:
        series = file.series[number]
        _check_claim(series.keyframe, file)
        if series.dataoffset is not None:  # one block, also where ImageJ wrote a single page header
            dtype = np.dtype(file.byteorder + series.dtype.char)
            block = file.filehandle.memmap_array(dtype, series.shape, series.dataoffset)
            return np.array(block[selection], dtype=series.dtype)
        if not _is_paged(series):
            check_memory(series.shape, series.dtype.itemsize, path.name)
            return np.asarray(series.asarray()[selection])
        numbers, lead, inner = _chosen(series.shape, series.keyframe.shape, selection)
        return _stacked([_page(series, n, inner) for n in numbers], lead)


def _page(series: Any, number: int, inner: Selection) -> NDArray[Any]:
    page = series.pages[number]
    if page is None:
        raise ValueError(f"page {number} of {len(series)} is missing")
    return _pixels(page, inner)


def _pixels(page: Any, inner: Selection) -> NDArray[Any]:
    """A part of a page; decodes no more than its tiles or strips."""
    if all(part == slice(None) for part in inner):
        return np.asarray(page.asarray())
    import zarr

    with page.aszarr() as store:
        return np.asarray(zarr.open_array(store, mode="r")[inner])


def _check_claim(page: Any, file: Any) -> None:
    """Raise ValueError if a page is far larger than its file can hold."""
    size = file.filehandle.size
    if page.nbytes > _LARGE and page.nbytes > _MOST_PACKED * size:
        raise ValueError(f"claims {page.nbytes} bytes a page in a file of {size}")


def _chosen(
    shape: tuple[int, ...], page_shape: tuple[int, ...], selection: Selection
) -> tuple[list[int], tuple[int, ...], Selection]:
    """Pages that a selection is of, the shape of their stack, and what to take of each."""
    lead = len(shape) - len(page_shape)
    numbers = np.arange(math.prod(shape[:lead])).reshape(shape[:lead])[selection[:lead]]
    return [int(n) for n in np.ravel(numbers)], np.shape(numbers), selection[lead:]


def _stacked(pages: Sequence[NDArray[Any]], lead: tuple[int, ...]) -> NDArray[Any]:
    return np.stack(pages).reshape(lead + pages[0].shape)


@dataclass(frozen=True)
class _Place:
    """Where a page of a set is; an empty `file` if it is nowhere."""

    file: str
    number: int

    @classmethod
    def of(cls, page: Any) -> _Place:
        return cls("", 0) if page is None else cls(page.parent.filehandle.path, page.index)

    def read(self, inner: Selection) -> NDArray[Any]:
        import tifffile

        if not self.file:
            raise ValueError("a page of the set is missing")
        with tifffile.TiffFile(self.file) as file:
            return _pixels(file.pages[self.number], inner)


def _take_of_set(
    places: Sequence[_Place],
    shape: tuple[int, ...],
    page_shape: tuple[int, ...],
    selection: Selection,
) -> NDArray[Any]:
    numbers, lead, inner = _chosen(shape, page_shape, selection)
    return _stacked([places[n].read(inner) for n in numbers], lead)


# --- colors ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _DisplayPixels:
    """Stored pixels, (H, W) or (H, W, C), to those that viewers show.

    Attributes
    ----------
    photometric : int
        As the tag.
    bits : int
        Of a sample.
    is_alpha : bool
        The last of two samples is no channel.
    colors : (N, 3) uint8, (N,) uint8 or None
        Of the palette.
    orientation : int
    """

    photometric: int
    bits: int
    is_alpha: bool
    colors: NDArray[np.uint8] | None
    orientation: int

    @classmethod
    def of(cls, page: Any, *, as_stored: bool) -> _DisplayPixels | None:
        """None if the stored pixels are those."""
        turn = int(page.tags.valueof(ORIENTATION) or 1)
        if as_stored:
            return None if turn == 1 else cls(-1, 0, is_alpha=False, colors=None, orientation=turn)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else page.bitspersample[0]
        is_alpha = page.samplesperpixel == 2 and page.extrasamples[:1] in _ALPHA
        colors = None if page.colormap is None else _colors(page.colormap)
        kind = int(page.photometric)
        if kind == _YCBCR and page.compression not in _PLAIN:
            kind = _RGB  # what a decoder of JPEG makes of it
        if turn == 1 and not is_alpha and kind not in (_WHITE_IS_0, _PALETTE, _CMYK, *_SPACES):
            return None
        return cls(kind, bits, is_alpha, colors, turn)

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        kind, depth = self.photometric, pixels.shape[2] if pixels.ndim == 3 else 1
        if kind == _PALETTE and self.colors is not None and depth == 1:
            pixels = self.colors[np.asarray(pixels, dtype=np.intp)]
        elif kind == _CMYK and depth == 4:
            pixels = _cmyk_to_rgb(pixels)
        elif kind in _SPACES and depth == 3 and pixels.dtype == np.uint8:
            pixels = _of_space(pixels, _SPACES[kind])
        elif kind == _WHITE_IS_0 and pixels.dtype.kind in "bu":
            pixels = ~pixels if pixels.dtype.kind == "b" else (1 << self.bits) - 1 - pixels
        if self.is_alpha and depth == 2:
            pixels = pixels[..., 0]
        return apply_orientation(pixels, self.orientation)


def display_palette(path: Path) -> tuple[NDArray[np.uint8] | None, bool]:
    """Palette of a file's first page, (N, 3), None of others; and whether 0 is white."""
    import tifffile

    with reading(path.name), tifffile.TiffFile(path) as file:
        page = file.pages.first
        palette = None if page.colormap is None else _rows(page.colormap)
        return palette, int(page.photometric) == _WHITE_IS_0


def _rows(colormap: NDArray[np.uint16]) -> NDArray[np.uint8]:
    rows = np.asarray(colormap).T  # (N, 3)
    return np.asarray(rows >> 8 if rows.max() > 255 else rows, dtype=np.uint8)


def _colors(colormap: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Rows of a palette; one gray each where it has no other colors."""
    eight = _rows(colormap)
    return eight[:, 0] if (eight == eight[:, :1]).all() else eight


def _of_space(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    from PIL import Image as PillowImage

    rows, columns = pixels.shape[:2]
    return np.asarray(PillowImage.frombytes(name, (columns, rows), pixels.tobytes()).convert("RGB"))


def _cmyk_to_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    full = np.iinfo(pixels.dtype).max
    light = 1.0 - pixels.astype(np.float32) / full
    return np.asarray(light[..., :3] * light[..., 3:] * full + 0.5, dtype=pixels.dtype)


# --- what may be wrong with a file --------------------------------------------------------------


def _check_chain(path: Path) -> None:
    """Raise ValueError if the chain of pages comes back to a page: to follow it has no end.

    NDPI is left out: it has 64-bit places in a 32-bit file.
    """
    if path.suffix.lower() == ".ndpi":
        return
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return  # tifffile says what is wrong
        is_big = struct.unpack(f"{order}H", head[2:4])[0] == 43
        count, entry, place = ("Q", 20, "Q") if is_big else ("H", 12, "I")
        offset = struct.unpack_from(f"{order}{place}", head, 8 if is_big else 4)[0]
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise ValueError(f"its page {len(seen)} is followed by an earlier one, without end")
            seen.add(offset)
            offset = _next_page(file, offset, f"{order}{count}", entry, f"{order}{place}")


def _next_page(file: BinaryIO, offset: int, count: str, entry: int, place: str) -> int:
    """Where the page after the one at `offset` is; 0 after the last, and where the file ends."""
    try:
        file.seek(offset)
        entries = struct.unpack(count, file.read(struct.calcsize(count)))[0]
        file.seek(entries * entry, 1)
        return int(struct.unpack(place, file.read(struct.calcsize(place)))[0])
    except (struct.error, OSError, OverflowError):
        return 0


# --- sets of OME-TIFFs --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Set:
    """Files that one OME-TIFF speaks of.

    Attributes
    ----------
    files : tuple of Path
        All that are there, that with the metadata first; () if it stands alone.
    is_part : bool
        Images of which no file is there are left out.
    is_lost : bool
        The metadata are in a file that is not there.
    companion : str
        The metadata, where they are in a file of their own.
    fault : str
        Why the set can't be read.
    """

    files: tuple[Path, ...] = ()
    is_part: bool = False
    is_lost: bool = False
    companion: str = ""
    fault: str = ""


def _set_of(path: Path) -> _Set:
    """The OME-TIFF set that `path` belongs to; it is faulty if an image lacks some of its files."""
    root, companion = _ome_root(path), ""
    elsewhere = root.find("{*}BinaryOnly") if root is not None else None
    if elsewhere is not None:
        master = _beside(path, elsewhere.get("MetadataFile", ""))
        if master is None or master == path:
            return _Set(is_lost=True)
        if master.suffix.lower() in TIFF_SUFFIXES:
            path, root = master, _ome_root(master)
        else:
            companion = master.read_text(encoding="utf-8")
            root = ElementTree.fromstring(companion)
    if root is None:
        return _Set()
    images = [
        _files_of(element, path, root.get("UUID")) for element in root if _is(element, "Image")
    ]
    existing = [[file for name in names if (file := _beside(path, name))] for names in images]
    members = tuple(dict.fromkeys([path, *(file for files in existing for file in files)]))
    for names, files in zip(images, existing, strict=True):
        if files and len(files) < len(names):
            lost = next(name for name in names if _beside(path, name) is None)
            fault = (
                f"{path.name}: its set of {len(names)} files lacks {len(names) - len(files)}, as "
                f"{lost}. Put them beside it, or export the image to one file."
            )
            return _Set(members, fault=fault)
    is_part = any(existing) and not all(existing)
    companion = _without_folders(root) or companion
    return _Set(members if len(members) > 1 or companion else (), is_part, companion=companion)


def _beside(path: Path, name: str) -> Path | None:
    """The file of a name in the folder of another; None if it is not there, or would be elsewhere.

    A set is looked for nowhere else: it may come from somebody else.
    """
    if name == path.name:
        return path
    with suppress(OSError):  # a name that is too long
        if is_name(name) and path.with_name(name).is_file():
            return path.with_name(name)
    return None


def _without_folders(root: ElementTree.Element) -> str:
    """The metadata with no file that is elsewhere, which tifffile would open; "" if there is none.

    Parameters
    ----------
    root : Element
        Is left as it is.
    """
    metadata = copy.deepcopy(root)
    names = [
        element
        for element in metadata.iter()
        if _is(element, "UUID") and "FileName" in element.attrib
    ]
    far = [element for element in names if not is_name(element.get("FileName"))]
    for element in far:
        element.set("FileName", "")
    return ElementTree.tostring(metadata, encoding="unicode") if far else ""


def _ome_root(path: Path) -> ElementTree.Element | None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not file.is_ome:
            return None
        try:
            return ElementTree.fromstring(file.ome_metadata)
        except ElementTree.ParseError:
            return None  # tifffile reads the pages without it


def tiff_pixel_size(path: Path) -> PixelSize | None:
    """As OME, ImageJ or this package wrote it; None if the file does not tell.

    A resolution alone is no size: most programs write that of a screen.
    """
    import tifffile

    with reading(path.name), tifffile.TiffFile(path) as file:
        if file.is_ome:
            return _ome_pixel_size(path)
        page = file.pages.first
        columns, rows = page.resolution
        tags = file.imagej_metadata or {}
        unit = str(tags.get("unit", "")).replace(r"\u00B5", "µ")
        if page.software == MADE_BY and page.resolutionunit == _CENTIMETER:
            unit = "cm"
        if rows <= 0 or columns <= 0:
            return None
        depth = float(tags.get("spacing", "nan")) if tags.get("slices", 1) > 1 else math.nan
        if page.software == MADE_BY:
            depth = 1e-4 * float(_shaped(file).get("depth_um", "nan"))
        return PixelSize.of(1 / rows, 1 / columns, unit, depth)


def slice_stack(path: Path) -> tuple[str, tuple[int, ...]] | None:
    """Of our copy of a slice, letters ("" if not known) and lengths of its stack's axes."""
    import tifffile

    with suppress(ImageReadError, OSError), reading(path.name), tifffile.TiffFile(path) as file:
        of = _shaped(file)
        if "stack_shape" in of:
            return str(of.get("stack_axes", "")), tuple(int(n) for n in of["stack_shape"])
    return None


def _shaped(file: Any) -> dict[str, Any]:
    """What tifffile's own description of a file says."""
    return dict((file.shaped_metadata or ({},))[0])


def _ome_pixel_size(path: Path) -> PixelSize | None:
    """That of all images of the file; None if they differ."""
    root = _ome_root(path)
    sizes = set()
    for pixels in () if root is None else (e for e in root.iter() if _is(e, "Pixels")):
        height, width = (float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "YX")
        rows, columns = (pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX")
        is_volume = int(pixels.get("SizeZ", "1")) > 1
        depth = float(pixels.get("PhysicalSizeZ", "nan")) if is_volume else math.nan
        planes = pixels.get("PhysicalSizeZUnit", "µm")
        sizes.add(PixelSize.of(height, width, columns, depth, planes) if rows == columns else None)
    return sizes.pop() if len(sizes) == 1 else None


def tiff_channel_names(path: Path) -> tuple[str, ...]:
    """Names of the channels as OME tells them; () if it does not, or of images that differ."""
    root = _ome_root(path)
    names = set()
    for pixels in () if root is None else (e for e in root.iter() if _is(e, "Pixels")):
        names.add(tuple(e.get("Name", "") for e in pixels if _is(e, "Channel")))
    return names.pop() if len(names) == 1 else ()


def _files_of(image: ElementTree.Element, path: Path, own: str | None) -> list[str]:
    """Names of an image's files in the set; the one that is open may have been renamed."""
    names: dict[str, None] = {}
    for data in image.iter():
        if _is(data, "TiffData"):
            named = next((element for element in data if _is(element, "UUID")), None)
            is_own = named is None or (own is not None and named.text == own)
            name = path.name if named is None or is_own else named.get("FileName", path.name)
            names[name] = None
    return list(names)


def _is(element: ElementTree.Element, tag: str) -> bool:
    return element.tag.rpartition("}")[2] == tag
