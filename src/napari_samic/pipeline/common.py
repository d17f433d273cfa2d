"""What the use cases share: opening, folders, normalisation, and checks of what is given."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import InputError, OutputError, PromptError
from napari_samic.core.settings import SegmentSettings
from napari_samic.core.types import Image, ImagePlane, Prompts, Segmentation, Segmenter
from napari_samic.io import files as io_files
from napari_samic.io.cache import ArrayCache
from napari_samic.io.images import open_images, planes_of_file, unreadable
from napari_samic.io.normalize import Normalization, fit_normalization, open_rgb
from napari_samic.io.paths import (
    check_stems,
    drawings_among,
    ending_of,
    folded,
    masks_among,
    natural_key,
    some,
)
from napari_samic.io.prompts import ImagePrompts, PromptFile
from napari_samic.io.readers import INSTRUMENT_SUFFIXES, READABLE
from napari_samic.io.text_files import pixels_sha256
from napari_samic.ops.label_fusion import rejoined

DRAWN_SCORE = 1.0
"""Confidence in a mask that the user drew."""


@dataclass(frozen=True)
class JobResult:
    """What a use case left behind.

    Attributes
    ----------
    out : Path or None
        Folder or file that was written; None if nothing was to be.
    done, skipped : tuple of str
        Images that were processed, and those that had been before.
    failures : dict of str to str
        Image and the line that says why.
    figures : dict
        Numbers worth telling.
    resolved_settings : dict
        Settings that lead to this result by themselves, where those that were asked for don't:
        the epochs of a training that was stopped by hand.
    notices : tuple of str
        What a user should know of it, a line each: what was left out, guessed, or done again.
    """

    out: Path | None
    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    resolved_settings: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def default_cache() -> ArrayCache:
    """Encoded images, in the user's cache folder."""
    return ArrayCache()


def input_hashes(
    plane: ImagePlane,
    normalization: Normalization,
    inputs: Callable[[ImagePlane], Mapping[str, str]] = lambda _: {},
) -> dict[str, str]:
    """What an answer for a plane is made of now: hashes of its pixels and of further inputs."""
    return {"pixels": pixels_sha256(open_rgb(plane, normalization)), **inputs(plane)}


def open_planes(
    images: Any,
    *,
    axes: str | None = None,
    series: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[ImagePlane]:
    """As `open_images`, but a file among others that can't be opened raises when it is read.

    Masks that lie beside their images, `c0_cp_masks.tif` beside `c0.tif`, are left out, and so are
    outlines and flows of Cellpose.

    Parameters
    ----------
    tell : callable, optional
        Is given a line for what was left out.

    Raises
    ------
    InputError
        Nothing there, two of one name (`a[1].tif` and the second plane of `a.tif`), or a lone file
        or array that can't be opened.
    """
    planes = open_images(images, axes=axes, series=series, strict=False, tell=tell)
    files = list(dict.fromkeys(p.path for p in planes if p.path is not None))
    drawn = set(drawings_among(files))
    masks = set(masks_among(files)) - drawn
    for paths, what in ((masks, "taken for masks"), (drawn, "left out, as Cellpose's drawings")):
        if paths and tell is not None:
            names = sorted([path.name for path in paths], key=natural_key)
            tell(f"{what} of the images beside them: {some(names)}.")
    kept = [p for p in planes if p.path not in masks | drawn]
    check_stems([p.label for p in kept], [p.path or f"plane {p.index} of an array" for p in kept])
    return kept


def planes_of(path: Path, *, palette_indices: bool = False) -> list[ImagePlane]:
    """Planes of one file; if it can't be opened, one that says why when it is read.

    Parameters
    ----------
    palette_indices : bool
        Read numbers as they are stored, as label images need it.
    """
    try:
        return planes_of_file(path, palette_indices=palette_indices)
    except InputError as error:
        return [unreadable(path, error)]


def groups(planes: Sequence[ImagePlane]) -> Iterator[tuple[str, list[ImagePlane]]]:
    """Planes by file: a stack's stay together."""
    by_name: dict[str, list[ImagePlane]] = {}
    for plane in planes:
        by_name.setdefault(plane.name, []).append(plane)
    yield from by_name.items()


def make_folder(path: Path | str) -> Path:
    """Make the output folder, and check that it can be written to.

    Raises
    ------
    OutputError
        An empty name, a file is in the way, or the disk refuses.
    """
    if not str(path).strip():
        raise OutputError("an empty name of a folder for the results. '.' is the one you are in.")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder}: is a file, expected a folder. Choose another.") from error
    except OSError as error:
        raise io_files.output_error(folder, error) from error
    return folder


TABLES = (
    "prompts.json", "scores.csv", "ledger.sqlite", "failures.csv", "review.json", "coco.json",
    "measurements.csv", "measurements_3d.csv", "overlay.png",
)  # fmt: skip
"""What jobs write beside the files that are called as images."""


def results_folder(path: Path | str, sources: Iterable[Path | None], *others: Any) -> Path:
    """Make the folder for results; it may not be one that `sources` lie in, nor one of them.

    Parameters
    ----------
    others : as of `files.check_apart`
        Inputs that are called as no image is.

    Raises
    ------
    InputError
        Results would lie among the images or masks, which have the same names, or a table would
        replace one of `others`.
    OutputError
        As `make_folder`.
    """
    target = Path(path).resolve()
    for source in sources:
        if source is None:
            continue
        folders = source.parent.resolve(), source.resolve().parent  # of a link and its file
        is_inside = source.is_dir() and target.is_relative_to(source.resolve())  # a zarr
        if target in folders or target / io_files.HEATMAPS in folders or is_inside:
            msg = (
                f"{path}: holds {source.name}, which is given as input, and results have the names "
                "of their images. Choose another folder for the results."
            )
            raise InputError(msg)
    for name in TABLES:
        io_files.check_apart(Path(path) / name, *others)
    return make_folder(path)


def check_result_file(path: Path | str, *inputs: Any) -> None:
    """Raise InputError if a result that is no image would be called as one, or replace an input.

    Images and masks are safe so, and no later run takes the file for one of them.
    """
    if ending_of(Path(path)) in (*READABLE, *INSTRUMENT_SUFFIXES):
        msg = f"{path}: has the ending of an image, and will be none. Choose another name."
        raise InputError(msg)
    io_files.check_apart(path, *inputs)


def check_channels(text: str | None) -> tuple[int, ...] | None:
    """Read a channel map such as "2,0,1".

    Raises
    ------
    InputError
        Not one to three whole numbers.
    """
    if text is None or not text.strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        msg = f"channels {text!r}: expected one to three numbers from 0, as 2,0,1."
        raise InputError(msg) from error


def reason(plane: ImagePlane, error: Exception) -> str:
    """One line that says which image it is, unless the error does so itself.

    >>> plane = ImagePlane("cell", (), lambda: None)
    >>> reason(plane, InputError("cell.png: can't be read.")), reason(plane, InputError("odd."))
    ("cell.png: can't be read.", 'cell: odd.')
    """
    text = str(error)
    is_named = re.match(rf"{re.escape(plane.name)}[^ ]*: ", text)
    return text if is_named else f"{plane.label}: {text}"


def full_name(model: str) -> str:
    """`path:FILE` with the whole path, so that it is found from any folder; others as they are."""
    kind, separator, file = model.partition("path:")
    return f"path:{Path(file).expanduser().resolve()}" if separator and not kind else model


def annotated_planes(planes: list[ImagePlane], stored: PromptFile) -> list[ImagePlane]:
    """Planes that a prompt file names, in its order.

    Raises
    ------
    InputError
        Named ones that are not there.
    PromptError
        None is named.
    """
    if not stored.images:
        raise PromptError("the prompt file names no image. Annotate one first.")
    names = {folded(i.name): i.name for i in stored.images}
    by_label = {p.label: p for p in (with_recorded_name(plane, names) for plane in planes)}
    missing = [i.name for i in stored.images if i.name not in by_label]
    if missing:
        msg = (
            f"no image for the prompts of {some(missing)}. Give the folder in which they were "
            "annotated."
        )
        raise InputError(msg)
    return [by_label[i.name] for i in stored.images]


def with_recorded_name(plane: ImagePlane, names: Mapping[str, str]) -> ImagePlane:
    """A plane under the name that a table has for it, if they differ in case or accents alone.

    Parameters
    ----------
    names : dict of str to str
        Labels of the table by their `folded` spelling.
    """
    wanted = names.get(folded(plane.label), plane.label)
    if wanted == plane.label:
        return plane
    return replace(plane, name=wanted.removesuffix(plane.label[len(plane.name) :]))


def normalization_of(
    planes: Sequence[ImagePlane], stored: PromptFile | None, channels: Sequence[int] | None
) -> Normalization:
    """The one the prompts were made with, or one fitted to these images."""
    if stored is not None and stored.normalization and channels is None:
        return Normalization.from_dict(stored.normalization)
    return fit_normalization(planes, channels=channels)


def segment_annotated(
    segmenter: Segmenter, image: Image, entry: ImagePrompts, settings: SegmentSettings
) -> Segmentation:
    """Masks of an image's objects: those that were drawn, and the segmenter's of the others.

    A drawn one lies over what the segmenter answered.
    """
    if not any(entry.masks):
        return segmenter.segment(image, entry.objects, settings=settings)
    pairs = zip(entry.objects, entry.masks, strict=True)
    clicked = [prompts for prompts, mask in pairs if mask is None and not prompts.is_empty]
    labels, objects, scores = np.zeros(entry.shape, np.int32), list[Prompts](), list[float]()
    if clicked:
        answer = segmenter.segment(image, clicked, settings=replace(settings, instances=True))
        labels, objects = np.array(answer.labels), list(answer.objects)
        scores = [float(score) for score in answer.scores]
    for prompts, mask in zip(entry.objects, entry.masks, strict=True):
        if mask is not None:
            objects.append(prompts)
            scores.append(DRAWN_SCORE)
            mask.paint(labels, len(objects))
    fused = Segmentation(labels, np.array(scores, np.float32), tuple(objects))
    return rejoined(fused, instances=settings.instances)


def check_same_image(entry: ImagePrompts, image: Image) -> None:
    """Raise InputError unless this is the image that was annotated."""
    if entry.shape != image.shape[:2]:
        msg = (
            f"{entry.name}: {image.shape[:2]} pixels, its prompts were made on {entry.shape}. "
            "Use the image that was annotated."
        )
        raise InputError(msg)
    if entry.sha256 and entry.sha256 != pixels_sha256(image):
        msg = (
            f"{entry.name}: other pixels than those that were annotated. Restore the image (and "
            "its channels), or annotate it again."
        )
        raise InputError(msg)
