"""References as pictures: small ones with their heat maps over them, and heat maps as layers.

The maps are those that the prompter learns from, at the size at which they are shown. Must not know
Qt or napari.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import FloatArray, Image, Job, JobProgress, Prompts
from napari_samic.gui.data import trusted_files
from napari_samic.gui.data.materialize import OpenReference
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.thumbnails import SIDE_PX, Thumb, small
from napari_samic.io.images import planes_of_file
from napari_samic.io.normalize import Normalization, fit_normalization, read_rgb
from napari_samic.ops import heatmaps
from napari_samic.ops.shape import nearest

MAP_PX = 512
"""Longest side of a heat map that is shown as a layer."""
HOT = np.array([255.0, 176.0, 32.0])
"""Color of the heat map over a thumbnail."""


def objects_of(reference: OpenReference) -> tuple[Prompts, ...]:
    """What was said about the objects of a reference."""
    return tuple(item.prompts() for item in reference.annotation.items if item.is_askable)


def heat_map(
    objects: Sequence[Prompts],
    shape: tuple[int, int],
    side_px: int,
    heat: HeatMapSettings,
    *,
    squeeze: bool = False,
) -> FloatArray:
    """Heat map of an image's prompts, its longest side `side_px`.

    Parameters
    ----------
    shape : (H, W)
        Of the image.
    squeeze : bool
        The frozen network squeezes images to a square; others pad them, so clicks stay round.

    Returns
    -------
    (h, w) float32 in [0, 1]
    """
    longest = max(shape)
    frame = shape if squeeze else (longest, longest)
    rows, columns = (max(1, round(n * side_px / longest)) for n in shape)
    square = heatmaps.from_prompts(objects, frame, side_px, heat).values
    return nearest(square, (rows, columns)) if squeeze else square[:rows, :columns]


def draw(
    references: Sequence[OpenReference],
    heat: HeatMapSettings,
    cached: dict[str, Thumb],
    folder: Path | None = None,
    *,
    squeeze: bool = False,
) -> Job[list[Thumb]]:
    """Draw references; pictures that are known are not read again. A step after each.

    Parameters
    ----------
    cached : dict of str to Thumb
        By name.
    folder : Path, optional
        Where earlier jobs wrote slices that have no file of their own.
    """
    out: list[Thumb] = []
    for done, reference in enumerate(references):
        yield JobProgress(done, len(references), reference.annotation.name)
        thumb, objects = cached.get(reference.annotation.name), objects_of(reference)
        if thumb is None or thumb.why:
            thumb = _read(reference, folder)
        overlay = _heated(thumb.picture, objects, reference.annotation.shape, heat, squeeze)
        out.append(replace(thumb, overlay=overlay, objects=len(objects)))
    return out


def _read(reference: OpenReference, folder: Path | None) -> Thumb:
    name, grey = reference.annotation.name, np.full((SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    try:
        if reference.pixels is not None:
            return Thumb(name, small(reference.pixels.image(reference.index)))
        return Thumb(name, small(_closed_image(reference.annotation, folder)), is_open=False)
    except SamicError as error:
        return Thumb(name, grey, why=str(error), is_open=reference.pixels is not None)


def _closed_image(annotation: ImageAnnotation, folder: Path | None) -> Image:
    """The image of an annotation that is not open, from its file, in the colors of its prompts."""
    files = [Path(annotation.file)] if annotation.file else []
    files += [folder / f"{annotation.name}.tif"] if folder is not None else []
    stored = annotation.normalization
    reason = InputError("not open in napari, and its file is not there")
    for file in files:
        if not trusted_files.allows(file, folder and folder.parent):
            reason = InputError(f"{file}: you opened no image of this folder yet. Open it")
            continue
        try:
            planes = planes_of_file(file) if file.is_file() else []
            plane = next((p for p in planes if p.label == annotation.name), None)
            if plane is not None:
                of = Normalization.from_dict(stored) if stored else fit_normalization([plane])
                return read_rgb(plane, of)
        except SamicError as error:  # damaged; ours in the project may not be
            reason = InputError(str(error))
    raise reason


def _heated(
    picture: NDArray[np.uint8],
    objects: Sequence[Prompts],
    shape: tuple[int, int],
    heat: HeatMapSettings,
    squeeze: bool,
) -> NDArray[np.uint8]:
    if not objects:
        return picture
    values = heat_map(objects, shape, max(picture.shape[:2]), heat, squeeze=squeeze)
    part = values[: picture.shape[0], : picture.shape[1]]
    weight = np.zeros(picture.shape[:2])
    weight[: part.shape[0], : part.shape[1]] = part
    weight = 0.85 * weight[..., None]  # (h, w, 1)
    return (picture * (1 - weight) + HOT * weight).astype(np.uint8)
