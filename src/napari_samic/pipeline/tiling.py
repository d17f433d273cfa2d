"""Tiled inference: a large image in overlapping tiles of the references' size.

A network sees an image shrunk to one side, so that in an image much larger than the references all
objects would be far smaller than those that it learned. Tiles have the size that the references
have. An object in the overlap of two tiles is known by its mask: one that a tile cuts gives way to
the same one seen whole, and pieces of one that no tile sees whole get one number.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_samic.core.types import (
    BoolArray,
    HeatMap,
    IntArray,
    Job,
    JobProgress,
    Prompts,
    Segmentation,
    row_blocks,
)
from napari_samic.io.files import TEMP_SUFFIX, output_error
from napari_samic.pipeline.lookahead import in_order

LARGE_PX = 2048
"""Images up to this are seen as a whole, unless tiles are asked for: photos of one scene come in
many sizes."""
RATIO = 2.0
"""Times the references' size from which objects look too small."""
OVERLAP = 0.25
"""Of neighboring tiles, as a share of their side."""
SAME = 0.5
"""Masks that share this much of the smaller one, where both tiles look, are of one object."""
EDGE_PX = 2
"""An object that comes so near to the inner edge of a tile is taken for cut."""

Window = tuple[slice, slice]


def tile_side(shape: tuple[int, ...], reference_px: int, tile_px: int = 0) -> int | None:
    """Side of the tiles that an image is cut into; None if it is seen as a whole.

    Parameters
    ----------
    shape : (H, W, ...)
    reference_px : int
        Longest side of the largest reference.
    tile_px : int
        Side asked for; 0: decided by the references.

    Examples
    --------
    >>> tile_side((12288, 12288, 3), 512), tile_side((1080, 1920, 3), 512)
    (512, None)
    """
    longest = max(shape[:2])
    if tile_px:
        return tile_px if longest > tile_px else None
    is_large = longest > LARGE_PX and longest > RATIO * reference_px
    return reference_px if is_large else None


def windows(shape: tuple[int, ...], side_px: int) -> list[Window]:
    """Rows and columns of each tile, row by row; evenly spaced, `OVERLAP` of a side at least.

    >>> [(int(rows.start), int(columns.start)) for rows, columns in windows((40, 100), 40)]
    [(0, 0), (0, 30), (0, 60)]
    """
    rows, columns = (_spans(length, side_px) for length in shape[:2])
    return list(itertools.product(rows, columns))


def _spans(length: int, side_px: int) -> list[slice]:
    if length <= side_px:
        return [slice(0, length)]
    step = max(1.0, side_px * (1 - OVERLAP))
    count = int(np.ceil((length - side_px) / step)) + 1
    starts = np.linspace(0, length - side_px, count).round().astype(int)
    return [slice(int(start), int(start) + side_px) for start in starts]


def segment_tiles(
    predict: Callable[[int, Window], Segmentation],
    shape: tuple[int, ...],
    places: Sequence[Window],
    *,
    instances: bool = True,
    has_heat_map: bool = True,
    scratch: Path | None = None,
    workers: int = 1,
) -> Job[Segmentation]:
    """Segment an image tile by tile; a job with a step for each.

    Parameters
    ----------
    predict : callable
        Segments the tile of a number, from 0, and a window; its labels number the objects.
    shape : (H, W, ...)
    places : sequence of Window
        As `windows` gives them.
    instances : bool
        Number the objects; else every pixel gets its object's class.
    has_heat_map : bool
        Whether the maps are put together, too: four bytes a pixel, in memory.
    scratch : Path, optional
        Folder for a file without a name that holds the labels; the result's are a map of it.
        Default: in memory.
    workers : int
        Tiles that are segmented at once, in threads.

    Raises
    ------
    OutputError
        The disk of `scratch` refuses.
    """
    mosaic = Mosaic((shape[0], shape[1]), has_heat_map=has_heat_map, scratch=scratch)
    with closing(in_order(predict, places, workers)) as results:
        for i, window in enumerate(places):
            yield JobProgress(i, len(places), f"tile {i + 1} of {len(places)}")
            mosaic.add(next(results), window)
    return mosaic.segmentation(instances=instances)


@dataclass(eq=False)
class _Placed:
    """An object of the mosaic, by its number."""

    prompts: Prompts
    score: float
    box: Window
    is_cut: bool
    area_px: int = 0


class _StoredLabels:
    """(H, W) int32 in a file that has no name, and goes with the last that uses it.

    Plain writes, no memory map: on a full disk a map kills the process.
    """

    def __init__(self, shape: tuple[int, int], folder: Path) -> None:
        self.shape, self._folder = shape, folder
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115
                dir=folder, prefix=".", suffix=TEMP_SUFFIX
            )
            self._file.truncate(4 * math.prod(shape))
        except OSError as error:
            raise output_error(folder, error) from error

    def __getitem__(self, window: Window) -> IntArray:
        rows, columns = (range(n)[part] for part, n in zip(window, self.shape, strict=True))
        out = np.empty((len(rows), len(columns)), np.int32)
        for row, line in zip(rows, out, strict=True):
            self._file.seek(4 * (row * self.shape[1] + columns.start))
            self._file.readinto(line.data)
        return out

    def __setitem__(self, window: Window, labels: IntArray) -> None:
        rows, columns = (range(n)[part] for part, n in zip(window, self.shape, strict=True))
        try:
            for row, line in zip(rows, np.ascontiguousarray(labels), strict=True):
                self._file.seek(4 * (row * self.shape[1] + columns.start))
                self._file.write(line.data)
            self._file.flush()
        except OSError as error:
            raise output_error(self._folder, error) from error

    def mapped(self) -> IntArray:
        """All of it, not to be written to; parts are read when they are looked at."""
        return np.memmap(self._file, np.int32, "r", shape=self.shape)


class Mosaic:
    """Results of tiles, stitched to one; tiles come as `windows` gives them.

    A pixel keeps the number that it got first; a table says which number that is now, as pieces
    may be joined and objects replaced later. So only a tile's own pixels are ever at hand.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the whole image.
    has_heat_map : bool
    scratch : Path, optional
        As of `segment_tiles`.
    """

    def __init__(
        self, shape: tuple[int, int], *, has_heat_map: bool = True, scratch: Path | None = None
    ) -> None:
        self._labels: IntArray | _StoredLabels = (
            np.zeros(shape, np.int32) if scratch is None else _StoredLabels(shape, scratch)
        )
        self._table = np.zeros(1, np.int32)
        self._objects: dict[int, _Placed] = {}
        self._count = 0
        self._windows: list[Window] = []
        self._heat = np.zeros(shape, np.float32) if has_heat_map else None
        self._agreements: dict[int, list[float]] = {}

    def add(self, result: Segmentation, window: Window) -> None:
        """Put the result of one tile, numbered by its objects, at its place."""
        tile = self._table[self._labels[window]]
        before = tile.copy()
        more = np.zeros(len(result.objects), np.int32)
        self._table = np.append(self._table[: self._count + 1], more)
        areas_px = dict(zip(*np.unique(before, return_counts=True), strict=True))
        covered = self._covered(window)
        places = ndimage.find_objects(result.labels, max_label=len(result.objects))
        for i, place in enumerate(places):
            if place is not None:
                inside: BoolArray = result.labels[place] == i + 1
                placed = _Placed(
                    _moved(result.objects[i], window),
                    float(result.scores[i]),
                    _within(place, window),
                    self._is_cut(place, window),
                )
                same = self._same(inside, before[place], covered[place], areas_px)
                self._place(placed, inside, same, tile, window)
        self._labels[window] = tile
        self._windows.append(window)
        for label, agreement in result.agreement.items():
            self._agreements.setdefault(label, []).append(agreement)
        if self._heat is not None and result.heat_map is not None:
            part = self._heat[window]
            np.maximum(part, result.heat_map.values, out=part)

    def segmentation(self, *, instances: bool = True) -> Segmentation:
        """All that was put, numbered row by row of the tiles; else one value a class."""
        kept = [k for k, placed in self._objects.items() if placed.area_px]
        values = np.zeros(self._count + 1, np.int32)
        for number, k in enumerate(kept, start=1):
            values[k] = number if instances else self._objects[k].prompts.label
        table = values[self._table[: self._count + 1]]
        for rows in row_blocks(self._labels.shape):
            block = (rows, slice(None))
            self._labels[block] = table[self._labels[block]]
        return Segmentation(
            self._locked(),
            np.array([self._objects[k].score for k in kept], np.float32),
            tuple(self._objects[k].prompts for k in kept),
            None if self._heat is None else HeatMap(self._heat),
            {label: float(np.mean(values)) for label, values in self._agreements.items()},
        )

    def _locked(self) -> IntArray:
        if isinstance(self._labels, _StoredLabels):
            return self._labels.mapped()
        self._labels.setflags(write=False)
        return self._labels

    def _covered(self, window: Window) -> BoolArray:
        """Where earlier tiles have looked, of a window."""
        self._windows = [other for other in self._windows if other[0].stop > window[0].start]
        covered = np.zeros([part.stop - part.start for part in window], bool)
        for other in self._windows:
            rows, columns = (
                slice(max(a.start, b.start) - a.start, max(0, min(a.stop, b.stop) - a.start))
                for a, b in zip(window, other, strict=True)
            )
            covered[rows, columns] = True
        return covered

    def _is_cut(self, place: Window, window: Window) -> bool:
        """Whether an object of a tile ends at an edge that is not one of the image."""
        return any(
            (part.start < EDGE_PX and tile.start > 0)
            or (part.stop > tile.stop - tile.start - EDGE_PX and tile.stop < length)
            for part, tile, length in zip(place, window, self._labels.shape, strict=True)
        )

    @staticmethod
    def _same(
        inside: BoolArray, under: IntArray, covered: BoolArray, areas_px: dict[int, int]
    ) -> list[int]:
        """Numbers of earlier objects that are the one of mask `inside`, of those `under` it."""
        numbers, shared = np.unique(under[inside], return_counts=True)
        own = int((inside & covered).sum())
        return [
            int(k)
            for k, n in zip(numbers, shared, strict=True)
            if k and n > SAME * min(own, areas_px[k])
        ]

    def _place(
        self, placed: _Placed, inside: BoolArray, same: list[int], tile: IntArray, window: Window
    ) -> None:
        """Paint an object on a tile, where nothing is yet; `same` are the one that it is of."""
        same = [k for k in same if k in self._objects]  # those of this tile may have joined some
        if any(not self._objects[k].is_cut for k in same):
            return
        area_px = int(inside.sum())
        if not placed.is_cut and any(self._objects[k].area_px > area_px / SAME for k in same):
            return  # a part of it
        place = _inside(placed.box, window)
        if same and placed.is_cut:
            number = min(same)
            for k in same:
                if k != number:
                    self._renumber(k, number, tile, window)
                    self._objects[number] = _joined(self._objects[number], self._objects.pop(k))
            self._objects[number] = _joined(self._objects[number], placed)
        else:
            for k in same:
                self._renumber(k, 0, tile, window)
                del self._objects[k]
            self._count += 1
            number = self._count
            self._table[number] = number
            self._objects[number] = placed
        part = tile[place]
        is_free = inside & (part == 0)
        part[is_free] = number
        self._objects[number].area_px += int(is_free.sum())

    def _renumber(self, k: int, number: int, tile: IntArray, window: Window) -> None:
        """Give the pixels of an object to another, or to the ground."""
        self._table[self._table == k] = number
        part = tile[_inside(self._objects[k].box, window)]
        part[part == k] = number


def _inside(box: Window, window: Window) -> Window:
    """The part of a box that is in a window, in the window."""
    rows, columns = (
        slice(max(0, part.start - tile.start), max(0, part.stop - tile.start))
        for part, tile in zip(box, window, strict=True)
    )
    return rows, columns


def _within(place: Window, window: Window) -> Window:
    """A part of a window, in the whole image."""
    rows, columns = (
        slice(tile.start + part.start, tile.start + part.stop)
        for part, tile in zip(place, window, strict=True)
    )
    return rows, columns


def _moved(prompts: Prompts, window: Window) -> Prompts:
    """Prompts of a tile, in the whole image."""
    start = np.array([part.start for part in window])
    box = None if prompts.box_rc is None else prompts.box_rc + np.tile(start, 2)
    return replace(prompts, points_rc=prompts.points_rc + start, box_rc=box)


def _joined(first: _Placed, second: _Placed) -> _Placed:
    """One object of two pieces, asked for by the prompts of both."""
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first.box, second.box, strict=True)
    )
    pieces = (first.prompts, second.prompts)
    boxes = [p.box_rc for p in pieces if p.box_rc is not None]
    prompts = replace(
        first.prompts,
        points_rc=np.concatenate([p.points_rc for p in pieces]),
        is_foreground=np.concatenate([p.is_foreground for p in pieces]),
        box_rc=np.r_[np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]] if boxes else None,
    )
    score, area_px = max(first.score, second.score), first.area_px + second.area_px
    return _Placed(prompts, score, (rows, columns), True, area_px)
