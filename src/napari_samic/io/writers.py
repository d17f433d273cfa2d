"""Results to files: label TIFF, stacks, heat maps, tables, JSON, pictures.

Every file is complete or not there (see `io/files`); what goes wrong is an OutputError in one line.
Knows no model and no napari.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import checked_labels
from napari_samic.core.types import HeatMap, Image, IntArray, PixelSize, is_large, row_parts
from napari_samic.io.files import atomic_file, kept_file
from napari_samic.io.text_files import writable

__all__ = [
    "Calibration",
    "StackWriter",
    "write_csv",
    "write_heat_map",
    "write_json",
    "write_labels",
    "write_png",
]

_TILE_PX = 512


_USUAL = ("", "Z", "TZ", "TCZ")
"""Stack axes of which nothing is known but how many there are, as OME wants them."""


@dataclass(frozen=True)
class Calibration:
    """What a label TIFF says of itself as OME: letters of its stack axes, and size of a pixel.

    >>> Calibration("T").letters(1), Calibration("Q").letters(2), Calibration().letters(4)
    ('TYX', 'TZYX', '')
    """

    stack_axes: str = ""
    size: PixelSize | None = None

    def letters(self, count: int) -> str:
        """Of all axes, with so many of the stack; "" if OME has no room for them."""
        return f"{self.stack_letters(count)}YX" if count < len(_USUAL) else ""

    def stack_letters(self, count: int) -> str:
        """Of the `count` axes of the stack; "" if OME has no room for them."""
        given = self.stack_axes
        is_known = len(given) == len(set(given)) == count and set(given) <= set("TCZ")
        return given if is_known else "".join(_USUAL[count : count + 1])

    def options(self, name: str, count: int) -> dict[str, Any]:
        """Of `tifffile.imwrite`; the same for the same name, so that a replay makes the same."""
        if not (letters := self.letters(count)):
            return {}
        unique = uuid5(NAMESPACE_URL, writable(name)).urn
        metadata: dict[str, Any] = {"axes": letters, "Name": name, "UUID": unique}
        metadata["Creator"] = "napari-samic"  # without a version, as hashes are compared
        size = self.size
        lengths = {"Y": size.height_um, "X": size.width_um, "Z": size.depth_um} if size else {}
        for axis, length in lengths.items():
            if length is not None and axis in letters:
                metadata[f"PhysicalSize{axis}"] = length
                metadata[f"PhysicalSize{axis}Unit"] = "µm"
        return {"ome": True, "metadata": metadata}


def write_labels(
    path: str | Path,
    labels: NDArray[Any],
    *,
    overwrite: bool = False,
    ready: Callable[[Path], None] = lambda _: None,
    calibration: Calibration | None = None,
) -> None:
    """Write a label image or stack as a compressed int32 TIFF of the same shape.

    A large image is written tile by tile, so that viewers need not read it all.

    Parameters
    ----------
    labels : (..., H, W) bool or whole numbers
        0 is background.
    overwrite : bool
        Whether an existing file may be replaced.
    ready : callable
        Called with the finished file before it takes its place.
    calibration : Calibration, optional
        Then it is an OME-TIFF.

    Raises
    ------
    InputError
        Fractions, or numbers outside 0 to 2**31 - 1.
    OutputError
        Disk full, read-only, or a file in the way.
    """
    import tifffile

    by_tile = labels.ndim == 2 and is_large(labels.shape)
    data = _tiles(labels, str(path)) if by_tile else checked_labels(labels, str(path))
    options = calibration.options(Path(path).name, labels.ndim - 2) if calibration else {}
    if by_tile:
        options |= {"shape": labels.shape, "dtype": np.int32, "tile": (_TILE_PX, _TILE_PX)}
    with atomic_file(path, overwrite=overwrite) as temporary:
        tifffile.imwrite(temporary, data, compression="zlib", photometric="minisblack", **options)
        ready(temporary)


def _tiles(labels: NDArray[Any], where: str) -> Iterator[IntArray]:
    """Of a large label image, row by row of tiles."""
    rest = np.empty((0, labels.shape[1]), np.int32)
    for part in row_parts(labels):
        rows = np.concatenate([rest, checked_labels(part, where)])
        whole = len(rows) // _TILE_PX * _TILE_PX
        rest = rows[whole:]
        yield from _cut(rows[:whole])
    yield from _cut(rest)


def _cut(rows: IntArray) -> Iterator[IntArray]:
    for top, left in product(*(range(0, n, _TILE_PX) for n in rows.shape)):
        yield np.ascontiguousarray(rows[top : top + _TILE_PX, left : left + _TILE_PX])


class StackWriter:
    """Write the planes of an int32 label stack one at a time, in any order.

    Memory stays at one plane, and the TIFF (uncompressed) has the shape of the image stack. Use
    it in a ``with`` block: the file appears at the end, and does not if the block fails or is
    cancelled. Planes that were not written are background.

    Parameters
    ----------
    path : str or Path
    stack_shape : tuple of int
        Lengths of the stack axes, as in `ImagePlane.stack_shape`; () for a lone image.
    shape : tuple of int
        (H, W) in pixels.
    overwrite : bool
        Whether an existing file may be replaced.
    part : Path, optional
        Where the unfinished file is kept if the block fails; one of the same shape is gone on with.
    ready : callable
        Called with the finished file before it takes its place.
    calibration : Calibration, optional
        Then it is an OME-TIFF.

    Attributes
    ----------
    shape : (H, W)
    resumes : bool
        In the block: an unfinished file is gone on with.

    Raises
    ------
    OutputError
        Disk full, read-only, or a file in the way; on opening, writing and leaving the block.
    """

    def __init__(
        self,
        path: str | Path,
        stack_shape: tuple[int, ...],
        shape: tuple[int, int],
        *,
        overwrite: bool = False,
        part: Path | None = None,
        ready: Callable[[Path], None] = lambda _: None,
        calibration: Calibration | None = None,
    ) -> None:
        count = len(stack_shape)
        self._options = calibration.options(Path(path).name, count) if calibration else {}
        self._path, self._stack_shape, self.shape = Path(path), stack_shape, shape
        self._overwrite, self._part, self._ready = overwrite, part, ready
        self.resumes = False
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._part is None:
                place = atomic_file(self._path, overwrite=self._overwrite)
            else:
                place = kept_file(self._path, self._part, overwrite=self._overwrite)
            temporary = stack.enter_context(place)
            offset = self._begun(temporary)
            self.resumes = offset is not None
            self._offset = self._begin(temporary) if offset is None else offset
            stack.push(lambda kind, *_: self._ready(temporary) if kind is None else None)
            # Plain writes, no memory map: on a full disk a map kills the process.
            self._file = stack.enter_context(temporary.open("r+b", buffering=0))
            self._stack = stack.pop_all()
        return self

    def _begin(self, path: Path) -> int:
        """Write header and zeros; returns where the pixels begin."""
        import tifffile

        offset, _ = tifffile.imwrite(
            path,
            shape=self._stack_shape + self.shape,
            dtype=np.dtype("<i4"),
            byteorder="<",
            photometric="minisblack",
            returnoffset=True,
            **self._options,
        )
        return int(offset)

    def _begun(self, path: Path) -> int | None:
        """Where the pixels of an unfinished file begin; None if it is not there, or another."""
        import tifffile

        if not path.exists():
            return None
        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                same = series.shape == self._stack_shape + self.shape and series.dtype == "<i4"
                return series.dataoffset if same else None
        except (tifffile.TiffFileError, OSError, ValueError, IndexError):
            return None

    def write(self, index: tuple[int, ...], labels: NDArray[Any]) -> None:
        """Put one plane, (H, W) whole numbers, at its `ImagePlane.index`.

        Raises
        ------
        InputError
            Another shape, an index outside the stack, or a closed writer.
        """
        if self._stack is None:
            raise InputError(f"{self._path.name}: not open. Use StackWriter in a with block.")
        inside = len(index) == len(self._stack_shape) and all(
            0 <= i < n for i, n in zip(index, self._stack_shape, strict=True)
        )
        if labels.shape != self.shape or not inside:
            msg = (
                f"{self._path.name}: plane {index} of {labels.shape} for a stack of "
                f"{self._stack_shape} planes of {self.shape}."
            )
            raise InputError(msg)
        place = int(np.ravel_multi_index(index, self._stack_shape)) if index else 0
        self._file.seek(self._offset + place * 4 * labels.size)
        for part in row_parts(labels):
            checked = checked_labels(part, self._path.name)
            self._file.write(np.ascontiguousarray(checked, dtype="<i4").data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(kind, error, trace)


def write_heat_map(
    path: str | Path, heat_map: HeatMap | NDArray[Any], *, overwrite: bool = False
) -> None:
    """Write a heat map, (H, W), as a compressed float32 TIFF.

    Raises
    ------
    OutputError
        Disk full, read-only, or a file in the way.
    """
    import tifffile

    values = heat_map.values if isinstance(heat_map, HeatMap) else heat_map
    with atomic_file(path, overwrite=overwrite) as temporary:
        tifffile.imwrite(
            temporary,
            np.asarray(values, dtype=np.float32),
            compression="zlib",
            photometric="minisblack",
        )


def write_csv(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a table, UTF-8, one line a row; None and NaN become empty cells.

    Parameters
    ----------
    rows : sequence of dict
        A key that is missing in a row becomes an empty cell.
    columns : sequence of str, optional
        Default: all keys, in the order in which they first appear.

    Raises
    ------
    OutputError
        Disk full, read-only, or a file in the way.
    """
    names = (
        list(columns) if columns is not None else list(dict.fromkeys(k for r in rows for k in r))
    )
    with (
        atomic_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows(
            [["" if (v := plain(row.get(n))) is None else v for n in names] for row in rows]
        )


def write_json(path: str | Path, content: Any, *, overwrite: bool = False) -> None:
    """Write `content` as indented JSON, UTF-8; NaN and infinity become null.

    NumPy numbers and arrays, paths, tuples and sets are turned into what JSON knows.

    Raises
    ------
    InputError
        Something that JSON can't hold.
    OutputError
        Disk full, read-only, or a file in the way.
    """
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def plain(value: Any) -> Any:
    """Turn NumPy, paths, tuples and NaN into what JSON knows.

    >>> plain({"iou": np.float32(0.5), "n": (1, float("nan"))})
    {'iou': 0.5, 'n': [1, None]}
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {writable(str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, Path):
        return writable(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return writable(value)
    if value is None or isinstance(value, int):
        return value
    raise InputError(f"can't write a {type(value).__name__} to JSON or CSV. Turn it into text.")


def write_png(path: str | Path, image: Image, *, overwrite: bool = False) -> None:
    """Write (H, W, 3) or (H, W) uint8 as PNG.

    Raises
    ------
    InputError
        Another dtype or shape.
    OutputError
        Disk full, read-only, or a file in the way.
    """
    from PIL import Image as PillowImage

    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        msg = f"{path}: {image.dtype} {image.shape}, expected uint8 (H, W, 3) or (H, W)."
        raise InputError(msg)
    with atomic_file(path, overwrite=overwrite) as temporary:
        PillowImage.fromarray(image).save(temporary, format="PNG")
