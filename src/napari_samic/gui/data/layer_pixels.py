"""Pixels of the chosen image layer, slice by slice, as models take them.

Reads from what the layer showed when it was chosen, so a layer deleted in the middle of a job does
no harm. One normalization for the whole stack, fitted once. Threads may share it. Must not know Qt;
sees a napari layer only as something with `data`, `rgb`, `multiscale`, `name` and `source`.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import Image, ImagePlane, PixelSize, is_large, row_blocks
from napari_samic.io.images import pixel_size, stack_axes
from napari_samic.io.normalize import Normalization, fit_normalization, read_rgb
from napari_samic.io.paths import list_source, stem_of
from napari_samic.io.readers import check_pixels
from napari_samic.io.text_files import is_name, writable

FILES = "napari-samic files"
"""Metadata of a layer that was read from several files: their paths, slice by slice."""
FILE = "napari-samic file"
"""Metadata of a layer that we read from one file: its path, as napari's own readers note it."""
STORED = "napari-samic stored"
"""Metadata of a layer that we read as napari's reader had: numbers as stored, colors or not."""
CHANNEL = "napari-samic channel"
"""Metadata of a layer that is a channel of an image: the axis, maybe -1, and which channel."""
LEVELS = "napari-samic levels"
"""Metadata of a layer whose levels we made of a large file: it is the finest that counts."""
Channel = tuple[int, int]
KEPT = 6
"""RGB images that are kept in memory; of large ones a single one."""
CLICKED_PX = 2**26
"""Pixels up to which an image can be clicked in: models see it as a whole."""
LARGEST_PX = 4096 * 4096
"""Of a multiscale image, the finest level with planes up to this is annotated."""
SAMPLED = 8
"""Planes that the normalization is fitted to."""
_LONG = 200  # bytes of a name, which leave room for a place in a stack and for endings


class LayerPixels:
    """See the module.

    Parameters
    ----------
    layers : sequence of image layers
        One; or two or three of one shape, which become red, green and blue.
    name : str, optional
        Of the image in prompt files; the default is the file's stem, else the layer's name.
    by_file : bool
        A layer of several files, such as a folder: each slice is called by its file.

    Attributes
    ----------
    stack_shape : tuple of int
        () for a lone image.
    shape : (H, W)
    factor : float
        Pixels of the finest level along one of ours; 1 unless multiscale.
    filed : dict of index to Path
        Slices of which `sources` knows a file with the same pixels.

    Raises
    ------
    InputError
        Not an image of two or more dimensions, or layers of different shapes.
    """

    def __init__(self, layers: Sequence[Any], name: str = "", *, by_file: bool = True) -> None:
        first = layers[0]
        self.file = file_of(first)
        self._unit, self._depth_unit, self._scale = _scale_of(first)
        is_whole = self.file and CHANNEL not in getattr(first, "metadata", {})
        self.name = name or (_stem(Path(self.file)) if is_whole else _tame(str(first.name)))
        self.filed: dict[tuple[int, ...], Path] = {}
        self._rgb = bool(first.rgb)
        levels = [_level(layer) for layer in layers]
        self._arrays = [array for array, _ in levels]
        self._channel: Channel | None = None
        if len(layers) == 1:
            self._channel = getattr(first, "metadata", {}).get(CHANNEL)
        self.factor = levels[0][1]
        shapes = {tuple(array.shape) for array in self._arrays}
        if len(shapes) > 1 or (len(layers) > 1 and self._rgb):
            raise InputError(
                f"{self.name}: channels of different shapes, or RGB ones. Pick others."
            )
        shape = shapes.pop()
        spatial = shape[:-1] if self._rgb else shape
        if len(spatial) < 2:
            raise InputError(f"{self.name}: shape {shape}, expected at least rows and columns.")
        self.stack_shape = tuple(int(n) for n in spatial[:-2])
        self.shape = (int(spatial[-2]), int(spatial[-1]))
        self.files = _files_of(first, self.file, math.prod(self.stack_shape)) if by_file else ()
        self._by_label: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self._normalization: Normalization | None = None
        self._kept: OrderedDict[tuple[int, ...], Image] = OrderedDict()

    def overlaps(self, other: LayerPixels) -> bool:
        """Whether they share an array, as a channel and the image that it is one of."""
        return any(mine is theirs for mine in self._arrays for theirs in other._arrays)

    @property
    def is_large(self) -> bool:
        """A lone image that is read, segmented and shown part by part, as far as may be."""
        return not self.stack_shape and is_large(self.shape)

    @property
    def is_clicked(self) -> bool:
        """Whether it is small enough to be clicked in."""
        return math.prod(self.shape) <= CLICKED_PX

    def label(self, index: tuple[int, ...]) -> str:
        """Name of a slice, as `ImagePlane.label`."""
        return self.plane(index).label

    def index_of(self, label: str) -> tuple[int, ...] | None:
        """The slice of that name; None if there is none."""
        if not self._by_label:
            self._by_label = {self.label(i): i for i in self.indices()}
        return self._by_label.get(label)

    def plane(self, index: tuple[int, ...]) -> ImagePlane:
        """One slice, not read yet."""
        read = partial(self._raw, index)
        path = Path(self.file) if self.file else None
        plane = ImagePlane(
            self.name, index, read, self.stack_shape, path,
            kind=self._kind, read_part=partial(self._raw_part, index),
        )  # fmt: skip
        if not self.files:
            return plane
        file = self.files[int(np.ravel_multi_index(index, self.stack_shape)) if index else 0]
        return replace(plane, name=_stem(file), index=(), stack_shape=(), path=file)

    @property
    def _kind(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        tail = tuple(int(n) for n in self._arrays[0].shape[len(self.stack_shape) + 2 :])
        depth = (len(self._arrays),) if len(self._arrays) > 1 else tail
        return (*self.shape, *depth), np.dtype(self._arrays[0].dtype)

    def _raw(self, index: tuple[Any, ...]) -> NDArray[Any]:
        parts = [np.asarray(array[index]) for array in self._arrays]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)

    def _raw_part(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        return check_pixels(self._raw((*index, rows, columns)), self.name)

    def normalization(self) -> Normalization:
        """How pixels become RGB; reads some slices the first time."""
        with self._lock:
            if self._normalization is None:
                fitted = fit_normalization([self.plane(i) for i in self.sample()])
                if self._channel is not None:  # so that it also fits files with all channels
                    fitted = replace(fitted, channels=(self._channel[1],), channel_count=0)
                self._normalization = fitted
            return self._normalization

    def sample(self) -> list[tuple[int, ...]]:
        """Some slices from all over the stack."""
        count = math.prod(self.stack_shape)
        picks = np.unique(np.linspace(0, count - 1, min(count, SAMPLED)).round().astype(int))
        return [tuple(int(i) for i in np.unravel_index(p, self.stack_shape or (1,)))[
            : len(self.stack_shape)
        ] for p in picks]  # fmt: skip

    @property
    def layer_size(self) -> PixelSize | None:
        """Of a pixel by the layer's scale; None if that has no unit of length."""
        depth, rows, columns = self._scale
        rows, columns = rows * self.factor, columns * self.factor
        return PixelSize.of(rows, columns, self._unit, depth, self._depth_unit)

    def pixel_size(self, index: tuple[int, ...]) -> PixelSize | None:
        """Of a slice, by the layer or else by its file; reads a header."""
        path = self.plane(index).path
        if self.layer_size is not None or path is None or self.factor != 1:
            return self.layer_size
        return pixel_size(path)

    @cached_property
    def stack_axes(self) -> str:
        """Letters of the stack's axes by the file; "" if it does not name them."""
        return stack_axes(Path(self.file), self.stack_shape) if self.file else ""

    def image(self, index: tuple[int, ...]) -> Image:
        """(H, W, 3) uint8 of a slice; read once, then kept for a while.

        Raises
        ------
        InputError
            It can't be read or normalised.
        """
        normalization = self.normalization()
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image = read_rgb(self.plane(index), normalization)
        with self._lock:
            self._kept[index] = image
            while len(self._kept) > (1 if is_large(self.shape) else KEPT):
                self._kept.popitem(last=False)
        return image

    def forget(self) -> None:
        """The layer's pixels changed: read them anew."""
        with self._lock:
            self._kept.clear()
            self._normalization = None
            self.filed.clear()

    def after(self, index: tuple[int, ...], count: int = 2) -> list[tuple[int, ...]]:
        """The next slices along the last axis of the stack."""
        if not index:
            return []
        last = range(index[-1] + 1, min(index[-1] + 1 + count, self.stack_shape[-1]))
        return [(*index[:-1], i) for i in last]

    def indices(self) -> list[tuple[int, ...]]:
        """Every slice, in order."""
        return list(product(*(range(n) for n in self.stack_shape)))


class LayerNames:
    """A name for each layer, fixed when first asked for.

    No two share their prompts, unless they show the same pixels of the same file, as an image that
    was removed and opened again.
    """

    def __init__(self) -> None:
        self._named: list[tuple[Any, str, tuple[str, ...]]] = []

    @property
    def layers(self) -> list[Any]:
        """Those that were asked for, in that order."""
        return [layer for layer, _, _ in self._named]

    def of(self, layer: Any) -> str:
        """The name; "stem (2)" if another layer has the stem."""
        return self._entry(layer)[0]

    def open(self, layer: Any, layers: Sequence[Any] = ()) -> LayerPixels:
        """Pixels of a layer, or of several as its colors, under its name."""
        name, labels = self._entry(layer)
        layers = layers or (layer,)
        return LayerPixels(layers, name, by_file=bool(labels))

    def _entry(self, layer: Any) -> tuple[str, tuple[str, ...]]:
        for named_layer, name, labels in self._named:
            if named_layer is layer:
                return name, labels
        pixels = LayerPixels((layer,))
        labels = tuple(_stem(path) for path in pixels.files)
        if not self._is_free(labels, pixels):
            labels, pixels = (), LayerPixels((layer,), by_file=False)
        stem, number = pixels.name, 2
        while not self._is_free((pixels.name,), pixels):
            name, number = f"{stem} ({number})", number + 1
            pixels = LayerPixels((layer,), name, by_file=bool(labels))
        self._named.append((layer, pixels.name, labels))
        return pixels.name, labels

    def _is_free(self, names: Sequence[str], pixels: LayerPixels) -> bool:
        """Whether no other image of these names shows something else."""
        for layer, name, labels in self._named:
            common = set(names).intersection((name, *labels))
            if common:
                other = LayerPixels((layer,), name, by_file=bool(labels))
                if not _show_same(pixels, other, sorted(common)):
                    return False
        return True


def _show_same(pixels: LayerPixels, other: LayerPixels, names: Sequence[str]) -> bool:
    """Whether images of the same names are of the same files and, in a few planes, the same."""
    pairs = [(pixels.index_of(name), other.index_of(name)) for name in names]
    if pairs == [(None, None)] and pixels.stack_shape == other.stack_shape:  # the name of a stack
        pairs = [(index, index) for index in pixels.sample()]
    planes = [
        (pixels.plane(index), other.plane(other_index))
        for index, other_index in pairs
        if index is not None and other_index is not None
    ]
    if len(planes) < len(pairs) or any(_place(a) != _place(b) for a, b in planes):
        return False
    with suppress(SamicError, OSError, ValueError):
        picks = (planes[0], planes[len(planes) // 2], planes[-1])
        return all(shows_same(a, b) for a, b in picks)
    return False


def shows_same(first: ImagePlane, other: ImagePlane) -> bool:
    """Whether two planes have the same pixels; large ones are read part by part."""
    reads = (first.read_part, other.read_part)
    if first.kind is None or other.kind is None or None in reads or not first.is_large:
        return _is_same(first.read(), other.read())
    shape = first.kind[0]
    return shape == other.kind[0] and all(
        _is_same(*(read(rows, slice(0, shape[1])) for read in reads if read is not None))
        for rows in row_blocks(shape)
    )


def _is_same(first: NDArray[Any], other: NDArray[Any]) -> bool:
    is_alike = first.dtype == other.dtype and first.shape == other.shape
    return is_alike and bool(np.all(first == other))


def _place(plane: ImagePlane) -> tuple[Path | None, tuple[int, ...]]:
    return plane.path and plane.path.absolute(), plane.index


def file_of(layer: Any) -> str:
    """The file or folder that a layer was read from, also where it was read as one of a folder.

    "" if that is not known.
    """
    listed: Sequence[str] = getattr(layer, "metadata", {}).get(FILES) or ()
    if len(listed) == 1:
        return str(listed[0])
    path = getattr(getattr(layer, "source", None), "path", None)
    path = path or getattr(layer, "metadata", {}).get(FILE)
    return str(path) if path and "://" not in str(path) else ""


def _scale_of(layer: Any) -> tuple[str, str, tuple[float, float, float]]:
    """Unit of a layer's rows and columns, "" if it has two, of its planes, and their distances."""
    units = ["pixel"] * 3 + [str(unit) for unit in getattr(layer, "units", ())]
    scale = (math.nan, *(float(n) for n in getattr(layer, "scale", (1.0, 1.0))))
    unit = units[-1] if units[-1] == units[-2] else ""
    return unit, units[-3], (scale[-3], scale[-2], scale[-1])


def _files_of(layer: Any, path: str, count: int) -> tuple[Path, ...]:
    """The files of a layer that was read from several, one for each slice; () if not known."""
    listed = getattr(layer, "metadata", {}).get(FILES)
    if count == 1 and CHANNEL in getattr(layer, "metadata", {}):
        return ()  # its file is called as all of its channels
    if listed is None and path and Path(path).is_dir() and count > 1:
        with suppress(InputError):  # a folder that napari stacked, in the order it counts in
            listed = list_source(path)
    files = tuple(Path(file) for file in listed or ())
    stems = {_stem(file) for file in files}
    return files if len(files) == count == len(stems) else ()


def _stem(path: Path) -> str:
    """Name of a file without its ending, or, if no result can be called so, as near as can be."""
    stem = stem_of(path)
    is_fit = is_name(stem) and writable(stem) == stem and len(stem.encode()) <= _LONG
    return stem if is_fit else _tame(writable(stem))


def _tame(name: str) -> str:
    """A layer's name as a file can have it, so that its slices can be files of that name."""
    tame = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .") or "image"
    if len(tame.encode()) <= _LONG:
        return tame
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]  # tells it from others that begin alike
    return f"{tame.encode()[: _LONG - 10].decode(errors='ignore')}-{mark}"


def _level(layer: Any) -> tuple[Any, float]:
    """The array to annotate, and how many pixels of the finest level one of its pixels is."""
    if not getattr(layer, "multiscale", False):
        return layer.data, 1.0
    levels = list(layer.data)
    if LEVELS in getattr(layer, "metadata", {}):
        return levels[0], 1.0
    axis = -2 if layer.rgb else -1
    for level in levels:
        height, width = (int(n) for n in level.shape[axis - 1 : axis + 1 or None])
        if height * width <= LARGEST_PX:
            return level, levels[0].shape[axis] / level.shape[axis]
    return levels[-1], levels[0].shape[axis] / levels[-1].shape[axis]
