"""Existing labels to annotations: Labels layers, mask files, COCO and GeoJSON.

Which image a file belongs to, and what its values mean, is decided as `train --masks` decides it.
Each object gets a click at its inner maximum, and keeps its mask as drawn. Knows no Qt and no
napari; what is heavy is imported inside, so in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import CroppedMask, IntArray, Job, JobProgress, Prompts
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.io.prompts import ImagePrompts, PromptFile

_IN_WINDOW = "Save them as numbers of objects, 0 where none is."
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LoadedMasks:
    """What was read.

    Attributes
    ----------
    files : tuple of PromptFile
        One for each open layer, as its pixels become RGB in one way.
    line : str
        What a user should know of it.
    """

    files: tuple[PromptFile, ...]
    line: str


def has_masks(folder: Path, images: Sequence[LayerPixels]) -> bool:
    """Whether a folder has masks of open images, by their names."""
    from napari_samic.io import masks

    planes = [pixels.plane(index) for pixels in images for index in pixels.indices()]
    try:
        return bool(planes) and bool(masks.match_by_stem(planes, folder, require_all=False))
    except InputError:
        return False


def read_files(
    paths: Sequence[Path], images: Sequence[LayerPixels], class_name: str
) -> Job[LoadedMasks]:
    """Read masks or outlines of open images, which are matched by name.

    Parameters
    ----------
    paths : sequence of Path
        Files, or one folder.
    images : sequence of LayerPixels
    class_name : str
        Class of objects whose file names none.

    Raises
    ------
    InputError
        No image is open, none has a mask, or no mask can be used or shows an object.
    """
    from napari_samic.io import masks

    if not images:
        raise InputError("no image is open. Open the images that these masks belong to first.")
    slices = {pixels.label(i): (pixels, i) for pixels in images for i in pixels.indices()}
    notices: list[str] = []
    planes = {name: pixels.plane(index) for name, (pixels, index) in slices.items()}
    source = paths[0] if len(paths) == 1 else paths
    truth = masks.match_by_stem(
        list(planes.values()), source, require_all=False, tell=notices.append
    )
    with _advice_of_the_window():
        meaning = yield from masks.meaning_of(truth.values())
    numbers = masks.class_numbers(truth.values())
    label = numbers.setdefault(class_name, 1 + max(numbers.values(), default=0))
    gathered = _Gathered({number: name for name, number in numbers.items()})
    for done, (name, path) in enumerate(truth.items()):
        yield JobProgress(done, len(truth), f"reading the mask of {name}")
        pixels, index = slices[name]
        try:
            labels = masks.read_mask(planes[name], path, shape=pixels.shape, values=meaning.values)
            classes = [numbers[text] for text in masks.class_names(planes[name], path)]
            gathered.add(pixels, index, labels, label, classes)
        except SamicError as error:
            gathered.failures[name] = str(error)
    return gathered.result(", ".join(path.name for path in paths), [*notices, meaning.line])


def read_layer(
    name: str, array: Any, pixels: LayerPixels, indices: Sequence[Index], class_name: str
) -> Job[LoadedMasks]:
    """Read slices of a Labels layer as masks of the same slices of an image.

    Parameters
    ----------
    name : str
        Of the Labels layer.
    array : array
        Of the shape of the image; or flat, for one slice.
    indices : sequence of index
    class_name : str
        Class of the objects.

    Raises
    ------
    InputError
        Labels of another size, of values that could mean this or that, or without an object.
    """
    from napari_samic.io import masks
    from napari_samic.io.mask_values import describe, infer_meaning

    flat = tuple(array.shape) == pixels.shape and len(indices) == 1
    whole = (*pixels.stack_shape, *pixels.shape)
    if not flat and tuple(array.shape) != whole:
        msg = (
            f"{name}: labels of {tuple(array.shape)}, the image {pixels.name} has {whole}. "
            "Choose labels of this image, at its size."
        )
        raise InputError(msg)

    def read(index: Index) -> NDArray[Any]:
        return masks.whole_numbers(np.asarray(array if flat else array[index]), name)

    held = []
    for done, index in enumerate(indices):
        yield JobProgress(done, 2 * len(indices), f"looking at {pixels.label(index)}")
        held.append(masks.count_values(read(index), name))
    with _advice_of_the_window():
        values = infer_meaning(held)
    gathered = _Gathered({1: class_name})
    for done, index in enumerate(indices, start=len(indices)):
        yield JobProgress(done, 2 * len(indices), f"reading {pixels.label(index)}")
        labels, _ = values.applied(read(index), name)
        gathered.add(pixels, index, labels, 1)
    return gathered.result(name, [f"{name}: {describe(values, held)}."])


@contextmanager
def _advice_of_the_window() -> Iterator[None]:
    """Errors that advise an option of the shell say instead what to do here."""
    from napari_samic.io.mask_values import ADVICE

    try:
        yield
    except InputError as error:
        if str(error).endswith(ADVICE):
            raise InputError(str(error).removesuffix(ADVICE) + _IN_WINDOW) from error
        raise


class _Gathered:
    """Masks as they are read."""

    def __init__(self, class_names: Mapping[int, str]) -> None:
        self.class_names, self.failures = class_names, dict[str, str]()
        self._entries: dict[LayerPixels, list[ImagePrompts]] = {}
        self._empty: list[str] = []

    def add(
        self,
        pixels: LayerPixels,
        index: Index,
        labels: IntArray,
        label: int,
        classes: Sequence[int] = (),
    ) -> None:
        """Take the mask of a slice; all of one class, or number n of `classes[n - 1]`."""
        entry = _entry(pixels, index, labels, lambda n: classes[n - 1] if classes else label)
        if entry.objects:
            self._entries.setdefault(pixels, []).append(entry)
        else:
            self._empty.append(entry.name)

    def result(self, source: str, notices: Sequence[str]) -> LoadedMasks:
        """All of them.

        Raises
        ------
        InputError
            None shows an object.
        """
        from napari_samic.io.paths import some

        entries = [entry for listed in self._entries.values() for entry in listed]
        if not entries and self.failures:
            raise InputError(next(iter(self.failures.values())))
        if not entries:
            msg = (
                f"{source}: no object in it, all pixels are ground (0), for {some(self._empty)}. "
                "Choose a mask that shows some."
            )
            raise InputError(msg)
        count = sum(len(entry.objects) for entry in entries)
        lines = [f"{count} object{'s' * (count != 1)} on {some([e.name for e in entries], 3)}."]
        if self._empty:
            lines.append(f"Without an object, left out: {some(self._empty, 3)}.")
        if self.failures:
            first = next(iter(self.failures.values()))
            lines.append(f"{len(self.failures)} can't be used, the first because: {first}")
        files = tuple(
            PromptFile(tuple(listed), "", pixels.normalization().to_dict(), dict(self.class_names))
            for pixels, listed in self._entries.items()
        )
        return LoadedMasks(files, " ".join([*lines, *(f"{n[:1].upper()}{n[1:]}" for n in notices)]))


def _entry(
    pixels: LayerPixels, index: Index, labels: IntArray, class_of: Callable[[int], int]
) -> ImagePrompts:
    """Objects of a slice, each with its mask and a click inside."""
    from napari_samic.core.label_objects import cutouts
    from napari_samic.ops.simulated_annotator import inner_maximum

    objects, drawn = [], []
    for cut in cutouts(labels):
        point = inner_maximum(cut.inside) + np.array(cut.corner_rc)
        objects.append(Prompts(point[None], np.array([True]), None, class_of(cut.value)))
        drawn.append(CroppedMask(pixels.shape, cut.corner_rc, cut.inside))
    plane = pixels.plane(index)
    return ImagePrompts(
        plane.label, str(plane.path or ""), pixels.shape, "", tuple(objects),
        (1.0,) * len(objects), masks=tuple(drawn),
    )  # fmt: skip
