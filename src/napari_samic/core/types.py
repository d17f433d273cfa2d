"""The nouns, frozen, and the protocols that rooms speak to each other.

Frame everywhere: (row, column) in pixels of the original image, pixel centers at whole numbers,
as in napari and scikit-image. It is turned to (x, y) inside `models/sam` and nowhere else. Arrays
are kept read-only and classes compare by identity (arrays break dataclass equality).
Knows no torch, no file format and no napari.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, PromptError

FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.int32]
Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB: what every model takes; `io/normalize.py` makes it."""

R = TypeVar("R")

LARGE_PX = 2**24
"""Pixels above which an image is read, and its labels are kept and written, in parts."""
PART_PX = 2**22
"""Pixels of a part."""


def frozen(array: Any, dtype: Any) -> NDArray[Any]:
    """Copy to `dtype` and lock against writing; an array of its own that is locked stays.

    So does a map of a file that is locked: it may be larger than the memory.
    """
    if isinstance(array, np.ndarray) and array.dtype == dtype and not array.flags.writeable:
        if array.base is None:
            return np.asarray(array)
        if _map_of(array) is not None:
            return array
    out = np.array(array, dtype=dtype, copy=True)
    out.setflags(write=False)
    return out


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether an image of (H, W, ...) is one of `LARGE_PX`."""
    return shape[0] * shape[1] > LARGE_PX


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of each part of a large image, from above; all rows of another."""
    size = shape[0] * shape[1]
    count = min(-(-size // PART_PX), shape[0] // 2) if size > LARGE_PX else 1
    for part in np.array_split(np.arange(shape[0]), max(1, count)):
        yield slice(int(part[0]), int(part[-1]) + 1)


def row_parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The same of an array; a map of a file gives the memory of each part back."""
    for rows in row_blocks(array.shape):
        yield array[rows]
        give_back(array)


def give_back(array: Any) -> None:
    """Let go of the memory of what was read of a map of a file; of another array, nothing."""
    if (map_ := _map_of(array)) is not None and hasattr(mmap, "MADV_DONTNEED"):
        map_.madvise(mmap.MADV_DONTNEED)


def _map_of(array: Any) -> mmap.mmap | None:
    """That of an array which is a map of a file and never written to; None of others."""
    is_map = isinstance(array, np.memmap) and array.mode == "r"
    return array.base if is_map and isinstance(array.base, mmap.mmap) else None


def every(
    read: Callable[[slice, slice], NDArray[Any]], shape: tuple[int, ...], step: int
) -> NDArray[Any]:
    """Every `step`-th row and column of a large image, which is read part by part."""
    parts = [
        np.array(read(rows, slice(0, shape[1]))[-rows.start % step :: step, ::step])
        for rows in row_blocks(shape)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class LazyImage:
    """A large image, (H, W, 3) uint8, that is read part by part: `image[rows, columns]`.

    `numpy.asarray` reads it all.

    Attributes
    ----------
    shape : (H, W, 3)
    read : callable
        Gives the pixels of some rows and columns, which are slices without steps.
    """

    shape: tuple[int, int, int]
    read: Callable[[slice, slice], Image]

    def __getitem__(self, window: tuple[slice, slice]) -> Image:
        rows, columns = (
            slice(*part.indices(n)[:2]) for part, n in zip(window, self.shape, strict=False)
        )
        return self.read(rows, columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self[:, :], dtype)

    def parts(self) -> Iterator[Image]:
        """All rows, some at once."""
        for rows in row_blocks(self.shape):
            yield self[rows, :]

    @cached_property
    def sha256(self) -> str:
        """Hash of its values, as of the whole array; reads it all, the first time."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompt of ONE object: what the user says about it.

    Attributes
    ----------
    points_rc : (N, 2) float64
        Row and column in pixels of the original image.
    is_foreground : (N,) bool
        True for a positive point, False for a negative one.
    box_rc : (4,) float64 or None
        First row, first column, last row, last column.
    label : int
        Class of the object, from 1.
    """

    points_rc: NDArray[np.float64]
    is_foreground: BoolArray
    box_rc: NDArray[np.float64] | None = None
    label: int = 1

    def __post_init__(self) -> None:
        points = frozen(np.reshape(self.points_rc, (-1, 2)), np.float64)
        signs = frozen(np.reshape(self.is_foreground, -1), np.bool_)
        if len(points) != len(signs):
            msg = (
                f"{len(points)} points but {len(signs)} signs. Give one sign (+/-) for each point."
            )
            raise PromptError(msg)
        if not np.isfinite(points).all():
            raise PromptError("a prompt point is not a finite number. Delete it and click again.")
        if self.label < 1:
            raise PromptError(f"label {self.label}: classes count from 1; 0 is background.")
        object.__setattr__(self, "points_rc", points)
        object.__setattr__(self, "is_foreground", signs)
        object.__setattr__(self, "box_rc", _checked_box(self.box_rc))

    @property
    def is_empty(self) -> bool:
        """No positive point and no box: nothing says where the object is."""
        return not self.is_foreground.any() and self.box_rc is None

    def check_inside(self, shape: tuple[int, ...], where: str = "image") -> None:
        """Raise PromptError if a point or the box is outside an image of `shape` (H, W, ...)."""
        height, width = shape[:2]
        corners = [] if self.box_rc is None else [self.box_rc[:2], self.box_rc[2:]]
        for row, column in [*self.points_rc, *corners]:
            if not (-0.5 <= row <= height - 0.5 and -0.5 <= column <= width - 0.5):
                msg = (
                    f"{where}: prompt at row {row:g}, column {column:g} is outside the image of "
                    f"{height} x {width} pixels. Move or delete it."
                )
                raise PromptError(msg)


def _checked_box(box_rc: Any) -> NDArray[np.float64] | None:
    if box_rc is None:
        return None
    box = frozen(np.reshape(box_rc, -1), np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        corners = np.round(box, 1).tolist()
        msg = f"box {corners}: expected row0 < row1 and column0 < column1. Draw it again."
        raise PromptError(msg)
    return box


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """A mask, kept as the part of it that is not empty.

    Attributes
    ----------
    shape : (H, W)
    corner : (row, column)
        Of the part.
    inside : (h, w) bool
    """

    shape: tuple[int, int]
    corner: tuple[int, int]
    inside: BoolArray

    @classmethod
    def of(cls, mask: BoolArray) -> Self:
        """Cut a (H, W) mask out."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        shape = (int(mask.shape[0]), int(mask.shape[1]))
        if not len(rows):
            return cls(shape, (0, 0), np.zeros((0, 0), bool))
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(shape, (int(rows[0]), int(columns[0])), np.array(part, bool))

    def touches(self, other: CroppedMask) -> bool:
        """Whether the parts of both overlap."""
        spans = zip(self.corner, self.inside.shape, other.corner, other.inside.shape, strict=True)
        return all(a < b + n and b < a + m for a, m, b, n in spans)

    @property
    def area_px(self) -> int:
        """Pixels of the object."""
        return int(self.inside.sum())

    @property
    def box(self) -> tuple[float, float, float, float]:
        """First and last row and column, on the outer edges of its pixels."""
        (row, column), (height, width) = self.corner, self.inside.shape
        return row - 0.5, column - 0.5, row + height - 0.5, column + width - 0.5

    def holds(self, row: float, column: float) -> bool:
        """Whether the pixel at a place is of the mask."""
        place = round(row) - self.corner[0], round(column) - self.corner[1]
        in_part = all(0 <= p < n for p, n in zip(place, self.inside.shape, strict=True))
        return in_part and bool(self.inside[place])

    def paint(self, canvas: NDArray[Any], value: Any) -> None:
        """Write `value` into a (H, W) array wherever the mask is."""
        (row, column), (height, width) = self.corner, self.inside.shape
        canvas[row : row + height, column : column + width][self.inside] = value

    def full(self) -> BoolArray:
        """The mask at full size, (H, W) bool."""
        out = np.zeros(self.shape, bool)
        self.paint(out, True)
        return out


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Saliency, (H, W) float32 in [0, 1]."""

    values: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen(self.values, np.float32))


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference: an annotated image that a prompter learns from.

    Attributes
    ----------
    name : str
    image : (H, W, 3) uint8
    objects : tuple of Prompts
    mask : (H, W) int32 or None
        Of its objects; None where it is not known.
    """

    name: str
    image: Image
    objects: tuple[Prompts, ...]
    mask: IntArray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            msg = f"{self.name}: {self.image.dtype} {self.image.shape}, expected uint8 (H, W, 3)."
            raise InputError(msg)
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            msg = (
                f"{self.name}: mask of {self.mask.shape} for an image of {self.image.shape[:2]}. "
                "Export the mask at the size of its image."
            )
            raise InputError(msg)
        for prompts in self.objects:
            prompts.check_inside(self.image.shape, self.name)


@dataclass(frozen=True, eq=False)
class PromptProposal:
    """What a prompter answers: objects to ask the segmenter for, and the map if it has one.

    Attributes
    ----------
    agreement : dict of int to float
        Of the references about this image, by class, in [0, 1]; empty if it is not known.
    answer : Segmentation or None
        The masks, from a prompter that asks the segmenter itself or needs none; labels number the
        objects, and who asked for classes gets them from these numbers.
    """

    objects: tuple[Prompts, ...]
    heat_map: HeatMap | None = None
    agreement: Mapping[int, float] = field(default_factory=dict)
    answer: Segmentation | None = None


@dataclass(frozen=True, eq=False)
class Candidates:
    """The segmenter's candidates, its answers for one object; best first not implied.

    Attributes
    ----------
    masks : (M, H, W) bool
    scores : (M,) float32
        Confidence: the model's own estimate of the IoU, in [0, 1].
    logits : (M, h, w) float32
        Low-resolution logits, to be given back as a mask prompt.
    """

    masks: BoolArray
    scores: FloatArray
    logits: FloatArray

    @property
    def best(self) -> int:
        """Index of the highest score."""
        return int(np.argmax(self.scores))


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Joined result of one image.

    Attributes
    ----------
    labels : (H, W) int32
        0 is background; k is `objects[k - 1]` for instances, the object's class for a union.
    scores : (N,) float32
        Confidence of each object.
    agreement : dict of int to float
        As of the PromptProposal that it was made from.
    """

    labels: IntArray
    scores: FloatArray
    objects: tuple[Prompts, ...]
    heat_map: HeatMap | None = None
    agreement: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", frozen(self.labels, np.int32))
        object.__setattr__(self, "scores", frozen(self.scores, np.float32))

    @property
    def score(self) -> float:
        """Confidence of the image: the mean over its objects; 0 if none was found."""
        return float(self.scores.mean()) if len(self.scores) else 0.0


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """One 2-D image that is read when asked for.

    Attributes
    ----------
    name : str
        Stem of the file; all planes of one stack share it.
    index : tuple of int
        Place in the stack, () for a lone image.
    stack_shape : tuple of int
        Lengths of the stack axes that `index` runs over, () for a lone image.
    read : callable
        Returns the raw pixels, (H, W) or (H, W, C), in the file's own dtype.
    path : Path or None
    axes : str
        Letters of the file's axes, where they were given by hand: its mask may need them, too.
    kind : (shape, dtype) or None
        Shape of the pixels and kind of the stored numbers, where the header tells them.
    read_part : callable or None
        As `read`, of some rows and columns (slices without steps); None where only all of them can
        be read.
    """

    name: str
    index: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    stack_shape: tuple[int, ...] = ()
    path: Path | None = None
    axes: str = ""
    kind: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    read_part: Callable[[slice, slice], NDArray[Any]] | None = None

    @property
    def label(self) -> str:
        """Unique name within a data set: `name`, or `name[3]` inside a stack."""
        return self.name + "".join(f"[{i}]" for i in self.index)

    @property
    def is_large(self) -> bool:
        """Whether it is not to be held in memory as a whole, as far as its header tells."""
        return self.kind is not None and is_large(self.kind[0])


MICROMETERS = {
    **dict.fromkeys(("micrometer", "micrometre", "micron", "microns", "um", "µm", "μm"), 1.0),
    **dict.fromkeys(("nanometer", "nanometre", "nm"), 1e-3),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), 1e3),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), 1e4),
    **dict.fromkeys(("meter", "metre", "m"), 1e6),
}
"""Lengths as files call them."""


@dataclass(frozen=True)
class PixelSize:
    """Distance of two rows and of two columns, in micrometers; of planes, too, if it is known."""

    height_um: float
    width_um: float
    depth_um: float | None = None

    @classmethod
    def of(
        cls, height: float, width: float, unit: str, depth: float = math.nan, depth_unit: str = ""
    ) -> PixelSize | None:
        """None if it is no length that people measure with, as 1 pixel.

        >>> PixelSize.of(500, 250, "nm").width_um, PixelSize.of(1, 1, "pixel")
        (0.25, None)
        """
        units = (unit, unit, depth_unit or unit)
        sizes = [
            float(f"{size * MICROMETERS.get(of, 0.0):.9g}")
            for size, of in zip((height, width, depth), units, strict=True)
        ]
        rows, columns, planes = (
            size if math.isfinite(size) and size > 0 else None for size in sizes
        )
        return cls(rows, columns, planes) if rows and columns else None


@dataclass(frozen=True)
class JobProgress:
    """Progress of a job: `done` of `total` (0: unknown), and what just happened."""

    done: int
    total: int
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)


Job: TypeAlias = Generator[JobProgress, None, R]
"""Long work: yields JobProgress, returns its result. Close it to cancel: `finally` cleans up."""


def duration(seconds: float) -> str:
    """A length of time that nobody would call too exact.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_job(job: Job[R], on_step: Callable[[JobProgress], None] | None = None) -> R:
    """Drive a job to its end and return its result.

    Parameters
    ----------
    job : generator of JobProgress
    on_step : callable, optional
        Called with each JobProgress, in the caller's thread.

    Returns
    -------
    object
        What the job returns.
    """
    try:
        while True:
            step = next(job)
            if on_step is not None:
                on_step(step)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        job.close()


def map_progress(job: Job[R], change: Callable[[JobProgress], JobProgress]) -> Job[R]:
    """Relay a job, each JobProgress changed; it is closed when this is."""
    try:
        while True:
            yield change(next(job))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        job.close()


@runtime_checkable
class Prompter(Protocol):
    """A prompter: answers where the objects of the references are in another image."""

    name: str

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """Prompts for an image, in its own pixels.

        Parameters
        ----------
        references : sequence of Reference
            Empty: those given at the start.
        image : (H, W, 3) uint8

        Raises
        ------
        PromptError
            No reference, or none that shows an object.
        """
        ...


@runtime_checkable
class TrainablePrompter(Prompter, Protocol):
    """A prompter that learns from the references first."""

    def fit(self, references: Sequence[Reference], settings: Any) -> Job[Any]:
        """Learn; a job."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """A segmenter: turns prompts into masks."""

    name: str

    def candidates(
        self,
        image: Image,
        objects: Sequence[Prompts],
        *,
        multimask: bool = True,
        logits: Sequence[FloatArray | None] | None = None,
    ) -> list[Candidates]:
        """Masks and confidences for each object, in the order of `objects`."""
        ...

    def segment(
        self, image: Image, objects: Sequence[Prompts], *, settings: Any = None
    ) -> Segmentation:
        """The best mask of each object, joined; `settings` is a SegmentSettings."""
        ...
