"""Raw pixels of any kind to the (H, W, 3) uint8 that the models take.

Fixed once for a data set, never for an image: the same intensity looks the same everywhere, and
a prompter keeps the scale it was trained with. An image of another scale, of which nothing would be
left, is told apart from a dark or a blank one. Knows no file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.types import (
    Image,
    ImagePlane,
    Job,
    JobProgress,
    LazyImage,
    every,
)
from napari_samic.io.readers import check_pixels, too_large

_SAMPLE_PX = 65_536
_COLOR = (3, 4)
_EDGES = (0.1, 99.9)  # percent
_SEEN, _WIDE, _HALF, _ALIKE = 0.02, 0.25, 0.5, 0.75
_LEVELS = 16
_ENOUGH = 32  # images, to fit a range to
GREY = "grey, among images of colour"


@dataclass(frozen=True)
class Normalization:
    """A normalization: which channels are shown, and what range of each becomes 0 to 255.

    Attributes
    ----------
    low, high : tuple of float
        In units of the pixels, one for each entry of `channels`; high > low.
    channels : tuple of int
        One (gray), two (red and green) or three (red, green, blue) channel numbers, from 0.
    channel_count : int
        Channels of the data set that it was fitted to; 0: not known, any that has them will do, and
        for a single channel also an image of that channel alone.
    dtype : str
        Of its pixels, as NumPy calls it; "" if there were several, or it is not known.
    outside : Normalization or None
        Takes the images that do not fit the range; None: they are cut off at its ends.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    channels: tuple[int, ...]
    channel_count: int = 0
    dtype: str = ""
    outside: Normalization | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.low), len(self.high), len(self.channels)}
        if len(lengths) != 1 or not lengths <= {1, 2, 3} or min(self.channels) < 0:
            msg = (
                f"normalisation with low {self.low}, high {self.high}, channels {self.channels}: "
                "expected one low and high for each of one to three channels."
            )
            raise InputError(msg)
        if not all(np.isfinite(self.low + self.high)) or any(
            high <= low for low, high in zip(self.low, self.high, strict=True)
        ):
            msg = f"normalisation from {self.low} to {self.high}: expected high above low."
            raise InputError(msg)

    def apply(
        self,
        pixels: NDArray[Any],
        name: str = "image",
        *,
        is_strict: bool = False,
        is_own: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> Image:
        """Turn raw pixels, (H, W) or (H, W, C), into (H, W, 3) uint8.

        One channel becomes gray, two become red and green, three are red, green and blue.

        Parameters
        ----------
        name : str
            For the message.
        is_strict : bool
            Whether an image of another scale is refused: next to nothing would be left of it, or
            its kind of pixels cannot reach half of the range. One that is darker or brighter
            passes, and so does a blank one.
        is_own : bool
            Whether the range is that of the images themselves, not of a training before.
        tell : callable, optional
            If strict, is given what is special about an image that passes: it is gray among color
            ones, or `outside` takes it.

        Raises
        ------
        InputError
            NaN, a side below 2 pixels, or channels that do not fit; a gray image among color
            images is accepted. If strict, another scale.
        """
        sample = _sample_of(check_pixels(pixels, name))
        how = {"is_strict": is_strict, "is_own": is_own}
        return self.taking(sample, name, **how, tell=tell).scaled(pixels, name)

    def taking(
        self,
        sample: NDArray[Any],
        name: str,
        *,
        is_strict: bool = False,
        is_own: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> Normalization:
        """The one that takes an image, by a sample of it: this, or `outside`; else as `apply`."""
        picked = self._picked(sample, name)  # (h, w, len(channels))
        fault = self._misfit(picked) if is_strict or self.outside is not None else ""
        if is_strict and tell is not None and self.channel_count in _COLOR and sample.ndim == 2:
            tell(GREY)
        if is_strict and fault:
            self._refuse_unless_outside(picked, fault, name, tell, is_own=is_own)
        return self.outside if self.outside is not None and fault else self

    def scaled(self, pixels: NDArray[Any], name: str = "image") -> Image:
        """As `apply`, of an image, or a part of one, that was checked."""
        picked = self._picked(pixels, name)  # (H, W, len(channels))
        if picked.dtype != np.uint8 or not self._is_identity:
            picked = self._scaled(picked)
        if len(self.channels) == 1:
            return np.repeat(picked, 3, axis=2)
        out = np.zeros((*picked.shape[:2], 3), np.uint8)
        out[..., : len(self.channels)] = picked
        return out

    def fits(self, pixels: NDArray[Any], name: str = "image") -> bool:
        """Whether an image is of the scale that this was fitted to; faults as in `apply`."""
        return not self._misfit(self._picked(_sample_of(check_pixels(pixels, name)), name))

    def _refuse_unless_outside(
        self,
        picked: NDArray[Any],
        fault: str,
        name: str,
        tell: Callable[[str], None] | None,
        *,
        is_own: bool,
    ) -> None:
        if self.outside is not None and not self.outside._misfit(picked):
            if tell is not None:
                tell(f"outside the range of the training ({self._range}), scaled to it anew")
            return
        whose = "the other images" if is_own else "the training"
        more = "" if is_own else "; `segment --rescale` scales such ones anew"
        msg = (
            f"{name}: {fault}, the range of {whose} is {self._range}. Export it like the other "
            f"images{more}."
        )
        raise InputError(msg)

    @property
    def _range(self) -> str:
        return f"{min(self.low):.6g} to {max(self.high):.6g} {self.dtype}".rstrip()

    def _misfit(self, picked: NDArray[Any]) -> str:
        """What is wrong with the scale of an image, by a sample of it; "" if nothing is."""
        if self._is_identity and picked.dtype == np.uint8:
            return ""
        first, last = np.percentile(picked.astype(np.float64), _EDGES, axis=(0, 1))  # (channels,)
        if (first == last).all():
            return ""
        is_other = self.dtype not in ("", str(picked.dtype))
        exceeds = is_other and (last > _highest(self.dtype)).any()
        exceeds |= is_other and _highest(str(picked.dtype)) < _HALF * max(self.high)
        if not exceeds and not self._is_lost(first, last, is_other, picked.dtype.kind == "f"):
            return ""
        return f"{picked.dtype} from {first.min():.6g} to {last.max():.6g}"

    def _is_lost(
        self, first: NDArray[Any], last: NDArray[Any], is_other: bool, is_float: bool
    ) -> bool:
        """Whether all contrast of an image, that has some, would be gone in every channel."""
        low, high = np.array(self.low), np.array(self.high)
        span, own = high - low, last - first
        seen = (np.clip(last, low, high) - np.clip(first, low, high)) / span
        if (seen >= _SEEN).any():
            return False
        share = own / np.maximum(np.abs(first), np.abs(last)).clip(1e-12)
        wanted = span / np.maximum(np.abs(low), np.abs(high))
        is_scaled = (share >= _ALIKE * wanted) & (is_float | (own >= _LEVELS))
        return bool(is_other or ((own >= _WIDE * span) | is_scaled).any())

    @property
    def _is_identity(self) -> bool:
        return set(self.low) == {0.0} and set(self.high) == {255.0}

    def _picked(self, pixels: NDArray[Any], name: str) -> NDArray[Any]:
        cube = pixels[..., None] if pixels.ndim == 2 else pixels
        count, expected = cube.shape[2], self.channel_count
        if count == 1 and (expected in _COLOR or (not expected and len(self.channels) == 1)):
            return np.repeat(cube, len(self.channels), axis=2)
        same = expected in (0, count) or (count in _COLOR and expected in _COLOR)
        if not same or max(self.channels) >= count:
            wanted = expected or f"at least {max(self.channels) + 1}"
            msg = (
                f"{name}: {count} channel{'s' * (count > 1)}, expected {wanted} as in the rest of "
                "the data set. Leave it out or export it like the others."
            )
            raise InputError(msg)
        if self.channels == tuple(range(len(self.channels))):
            return cube[..., : len(self.channels)]  # no copy
        return cube[..., list(self.channels)]

    def _scaled(self, picked: NDArray[Any]) -> Image:
        kind = np.float32 if picked.dtype.itemsize <= 2 or picked.dtype == np.float32 else float
        low, high = np.array(self.low, kind), np.array(self.high, kind)
        unit = np.clip((picked.astype(kind) - low) / (high - low), 0.0, 1.0)
        return np.asarray(unit * 255.0 + 0.5, dtype=np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        optional: dict[str, Any] = {"dtype": self.dtype} if self.dtype else {}
        if self.outside is not None:
            optional["outside"] = self.outside.to_dict()
        return {
            "low": list(self.low),
            "high": list(self.high),
            "channels": list(self.channels),
            "channel_count": self.channel_count,
            **optional,
        }

    @staticmethod
    def extends(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Whether `to_dict` of one only takes in images that the one before had refused."""
        return "outside" not in before and {**before, "outside": now.get("outside")} == now

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from what `to_dict` gave.

        Raises
        ------
        FormatError
            A missing or senseless value.
        """
        try:
            low, high = (tuple(float(v) for v in values[key]) for key in ("low", "high"))
            channels = tuple(int(v) for v in values["channels"])
            count, dtype = int(values.get("channel_count", 0)), str(values.get("dtype", ""))
            np.dtype(dtype or bool)  # raises if there is no such kind
            other = values.get("outside")
            outside = cls.from_dict(other) if other is not None else None
            return cls(low, high, channels, count, dtype, outside)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"normalisation: {type(error).__name__} {error}. The file is damaged."
            raise FormatError(msg) from error


def _sample_of(pixels: NDArray[Any]) -> NDArray[Any]:
    step = _sample_step(pixels.shape)
    return pixels[::step, ::step]


def _sample_step(shape: tuple[int, ...]) -> int:
    return math.ceil(math.sqrt(shape[0] * shape[1] / _SAMPLE_PX))


def _highest(dtype: str) -> float:
    """The largest number that pixels of a kind can be."""
    kind = np.dtype(dtype)
    return 1.0 if kind == np.bool_ else float(np.iinfo(kind).max) if kind.kind in "ui" else np.inf


def fit_normalization(
    planes: Sequence[ImagePlane],
    *,
    channels: Sequence[int] | None = None,
    percentiles: tuple[float, float] = _EDGES,
    max_planes: int = _ENOUGH,
) -> Normalization:
    """Choose channels and range once, for a whole data set.

    Color images of 8 bits are kept as they are; all else is stretched between two percentiles,
    taken over an evenly spaced sample of planes. Planes that can't be read are passed over, and so
    are those of another kind of pixels than most (than the first, of as many): see `apply`.

    Parameters
    ----------
    channels : sequence of int, optional
        One to three channel numbers, from 0; needed above three channels (above four at 8 bits).
    percentiles : (2,) float
        Lower and upper, in percent.
    max_planes : int
        Size of the sample.

    Raises
    ------
    InputError
        No plane, no readable plane (the first plane's own error), or channels to be chosen.
    """
    if not planes:
        raise InputError("no images to fit a normalisation to. Give at least one.")
    samples = _sample(planes, max_planes)
    dtype = Counter(str(s.dtype) for s in samples).most_common(1)[0][0]
    samples = [s for s in samples if str(s.dtype) == dtype]
    is_8bit = dtype == "uint8"
    count = _channel_count([s.shape[1] for s in samples])
    chosen = _choose_channels(count, is_8bit, channels, planes[0].label)
    if is_8bit and count in _COLOR:
        return Normalization((0.0,) * len(chosen), (255.0,) * len(chosen), chosen, count, dtype)
    fitting = [s for s in samples if s.shape[1] > max(chosen)]
    ranges = [_range(np.concatenate([s[:, c] for s in fitting]), percentiles) for c in chosen]
    low, high = zip(*ranges, strict=True)
    return Normalization(low, high, chosen, count, dtype)


def fit_outside(
    planes: Sequence[ImagePlane], normalization: Normalization
) -> Job[Normalization | None]:
    """Fit a range to the images that do not fit a normalization; None if all do. A job.

    Every image is read until there are enough; those that can't be are passed over.
    """
    outside: list[ImagePlane] = []
    for i, plane in enumerate(planes):
        yield JobProgress(
            i, len(planes), f"looking at the range of {plane.label}", {"phase": "read"}
        )
        try:
            if not normalization.fits(plane.read(), plane.label):
                outside.append(plane)
        except InputError:
            continue
        if len(outside) == _ENOUGH:
            break
    if not outside:
        return None
    return fit_normalization(outside, channels=normalization.channels)


def _sample(planes: Sequence[ImagePlane], max_planes: int) -> list[NDArray[Any]]:
    """Some pixels, (N, C), of each plane that can be read."""
    picks = np.linspace(0, len(planes) - 1, min(len(planes), max(1, max_planes)))
    samples: list[NDArray[Any]] = []
    problem: InputError | None = None
    for number in np.unique(picks.round().astype(int)):
        plane = planes[int(number)]
        try:
            pixels = check_pixels(plane.read(), plane.label)
        except InputError as error:
            problem = problem or error
            continue
        flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
        if len(flat) > _SAMPLE_PX:
            flat = flat[np.random.default_rng(0).integers(len(flat), size=_SAMPLE_PX)]
        samples.append(flat)
    if not samples and problem is not None:
        raise problem
    return samples


def _channel_count(counts: list[int]) -> int:
    color = [c for c in counts if c > 1]
    return Counter(color or counts).most_common(1)[0][0]


def _choose_channels(
    count: int, is_8bit: bool, channels: Sequence[int] | None, name: str
) -> tuple[int, ...]:
    if channels is None:
        if count <= 3 or (count == 4 and is_8bit):
            return tuple(range(min(count, 3)))
        msg = (
            f"{name}: {count} channels (0 to {count - 1}), which are not red, green and blue. "
            "Choose one to three of them, for instance channels=(0, 1)."
        )
        raise InputError(msg)
    chosen = tuple(int(c) for c in channels)
    if not 1 <= len(chosen) <= 3 or not all(0 <= c < count for c in chosen):
        msg = (
            f"{name}: channels {chosen} asked for, but there are {count} "
            f"(0 to {count - 1}). Choose one to three of them."
        )
        raise InputError(msg)
    if len(set(chosen)) < len(chosen):
        msg = f"{name}: channels {chosen} asked for, one of them twice. Name each once."
        raise InputError(msg)
    return chosen


def _range(values: NDArray[Any], percentiles: tuple[float, float]) -> tuple[float, float]:
    if values.dtype == np.bool_:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values.astype(np.float64), percentiles))
    if high <= low:  # a few bright spots on an even ground
        low, high = float(values.min()), float(values.max())
    if high <= low:
        high = low + max(1.0, abs(low) * 1e-6)
    return low, high


def read_rgb(
    plane: ImagePlane,
    normalization: Normalization,
    *,
    is_strict: bool = False,
    is_own: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Image:
    """Read a plane, check it and turn it into (H, W, 3) uint8.

    Parameters
    ----------
    is_strict : bool
        Whether its scale is checked, too: see `Normalization.apply`.
    is_own : bool
    tell : callable, optional
        As in `Normalization.apply`.

    Raises
    ------
    ImageReadError
        The file can't be read, or does not fit into the memory.
    InputError
        NaN, a side below 2 pixels, or channels that do not fit the data set; if strict, a scale
        that does not.
    """
    try:
        return normalization.apply(
            plane.read(), plane.label, is_strict=is_strict, is_own=is_own, tell=tell
        )
    except MemoryError as error:
        raise too_large(plane.label) from error


def open_rgb(
    plane: ImagePlane,
    normalization: Normalization,
    *,
    is_strict: bool = False,
    is_own: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Image | LazyImage:
    """As `read_rgb`, but a large image is read part by part, where its file allows that.

    Its scale is checked, by a sample, before it is given.
    """
    read = plane.read_part
    if read is None or plane.kind is None or not plane.is_large:
        return read_rgb(plane, normalization, is_strict=is_strict, is_own=is_own, tell=tell)
    shape = plane.kind[0]
    sample = every(read, shape, _sample_step(shape))
    own = normalization.taking(sample, plane.label, is_strict=is_strict, is_own=is_own, tell=tell)
    return LazyImage(
        (shape[0], shape[1], 3),
        lambda rows, columns: own.scaled(read(rows, columns), plane.label),
    )
