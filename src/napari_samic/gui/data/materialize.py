"""Slices of a layer as files that the pipeline takes.

A slice that has a file of its own, with the same pixels, is that file; any other is written as a
TIFF of the name that prompts know it by. Nothing is replaced. Knows no Qt and no napari.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.label_objects import ranked
from napari_samic.core.settings import OTHERS
from napari_samic.core.types import (
    Image,
    ImagePlane,
    IntArray,
    Job,
    JobProgress,
    PixelSize,
    Segmenter,
)
from napari_samic.gui.data import prompts_io, trusted_files
from napari_samic.gui.data.layer_pixels import LayerPixels, shows_same
from napari_samic.gui.data.project import frozen
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import AnnotatedObject, MaskCandidates
from napari_samic.io import files
from napari_samic.io.images import planes_of_file
from napari_samic.io.normalize import Normalization, read_rgb
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts
from napari_samic.io.text_files import pixels_sha256
from napari_samic.io.tiff import MADE_BY
from napari_samic.io.writers import write_csv, write_labels

if TYPE_CHECKING:
    from napari_samic.gui.data.project import Project

Index = tuple[int, ...]
_LEAST = 1e-4
"""Confidence of an object that is shown: 0 is that of one without a pixel."""


def as_files(pixels: LayerPixels, indices: Sequence[Index], folder: Path) -> Job[list[Path]]:
    """Give a file for each slice.

    Raises
    ------
    InputError
        A slice that can't be read, or a TIFF of its name with other pixels.
    OutputError
        The disk refuses.
    """
    out = []
    for done, index in enumerate(indices):
        yield JobProgress(
            done, len(indices), f"preparing {pixels.label(index)}", {"phase": "files"}
        )
        out.append(file_of(pixels, index, folder))
    return out


def others_as_files(
    slices: Sequence[tuple[LayerPixels, Index]], annotated: Collection[str], folder: Path
) -> Callable[[int], Job[list[Path]]]:
    """Give a file for some slices that are not annotated, in random order.

    Parameters
    ----------
    slices : sequence of (LayerPixels, index)
    annotated : collection of str
        Names of those that are annotated.
    folder : Path
        For slices without a file of their own.

    Returns
    -------
    callable
        From a seed to a Job of list of Path, `OTHERS` of them at most. What can't be read or
        written is passed over: nothing depends on it.
    """
    free = {pixels.label(index): (pixels, index) for pixels, index in slices}
    free = {name: entry for name, entry in free.items() if name not in annotated}

    def job(seed: int) -> Job[list[Path]]:
        names, paths = sorted(free), []
        for i in np.random.default_rng(seed).permutation(len(names))[:OTHERS]:
            yield JobProgress(0, 0, f"preparing {names[i]}", {"phase": "files"})
            with suppress(SamicError):
                paths.append(file_of(*free[names[i]], folder))
        return paths

    return job


def file_of(pixels: LayerPixels, index: Index, folder: Path) -> Path:
    """The file of one slice; written if it has none."""
    path = pixels.filed.get(index)
    if path is None or not path.exists():
        plane = pixels.plane(index)
        path = plane.path if _is_own(plane) else _written(plane, folder, pixels)
        if path is None:  # pragma: no cover
            raise InputError(f"{plane.label}: has no file.")
        pixels.filed[index] = path
    return path


def _is_own(plane: ImagePlane) -> bool:
    """Whether the plane's file holds this plane alone, under its name, pixel by pixel."""
    if plane.path is None or not plane.path.exists():
        return False
    try:
        planes = planes_of_file(plane.path)
        if len(planes) != 1 or planes[0].label != plane.label:
            return False
        return shows_same(planes[0], plane)
    except SamicError:
        return not plane.stack_shape  # the pipeline says what is wrong with it, and goes on


def _written(plane: ImagePlane, folder: Path, of: LayerPixels) -> Path:
    path = folder / f"{plane.label}.tif"
    if path.exists():
        if not shows_same(planes_of_file(path)[0], plane):
            msg = (
                f"{path}: another image of this name is in the project. Remove that file, or "
                "begin another project."
            )
            raise InputError(msg)
        return path
    size, stack = of.pixel_size(plane.index), dict[str, Any]()
    if plane.index:
        stack = {"stack_axes": of.stack_axes, "stack_shape": of.stack_shape}
    if size is not None and size.depth_um is not None and of.stack_axes[-1:] in ("", "Z"):
        stack["depth_um"] = size.depth_um
    write_image(path, plane.read(), size, stack)
    return path


def write_image(
    path: Path,
    pixels: NDArray[Any],
    size: PixelSize | None = None,
    stack: Mapping[str, Any] | None = None,
) -> None:
    """Write (H, W) or (H, W, C) of any kind as a TIFF that reads back the same.

    `stack` says of which stack it is a slice, see `tiff.slice_stack`.

    Raises
    ------
    InputError
        A kind of number that a TIFF can't hold.
    OutputError
        A file in the way, or the disk refuses.
    """
    import tifffile

    color = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    metadata = dict(stack or {})
    options: dict[str, Any] = {"photometric": "rgb" if color else "minisblack"}
    if pixels.ndim == 3 and not color:
        metadata["axes"] = "YXS"
        options |= {"planarconfig": "contig"}
    if size is not None:
        per_cm = 1e4 / size.width_um, 1e4 / size.height_um
        options |= {"resolution": per_cm, "resolutionunit": "CENTIMETER", "software": MADE_BY}
    with files.atomic_file(path) as temporary:
        try:
            tifffile.imwrite(temporary, pixels, compression="zlib", metadata=metadata, **options)
        except (ValueError, TypeError, KeyError) as error:
            msg = f"{path.stem}: {pixels.dtype} {pixels.shape} can't be a TIFF ({error})."
            raise InputError(msg) from error


@dataclass(frozen=True, eq=False)
class OpenReference:
    """An annotation and the open slice that it belongs to; None if it is not open."""

    annotation: ImageAnnotation
    pixels: LayerPixels | None
    index: Index


def reference_annotations(state: AnnotationModel) -> list[ImageAnnotation]:
    """Those to learn from: annotated and marked, or all annotated if none is marked."""
    annotated = [p for p in state.annotations.values() if any(i.is_askable for i in p.items)]
    return [p for p in annotated if p.is_reference] or annotated


def references(
    state: AnnotationModel, find: Callable[[str], tuple[Any, LayerPixels, Index] | None]
) -> list[OpenReference]:
    """The images to learn from: annotated and marked, or all annotated if none is marked.

    Raises
    ------
    InputError
        Nothing is annotated.
    """
    chosen = reference_annotations(state)
    if not chosen:
        raise InputError("Nothing is annotated yet. Click on an object in the Annotate step first.")
    return open_slices(chosen, find)


def open_slices(
    annotations: Iterable[ImageAnnotation],
    find: Callable[[str], tuple[Any, LayerPixels, Index] | None],
) -> list[OpenReference]:
    """Annotated images with their slices, where these are open."""
    matches = ((annotation, find(annotation.name)) for annotation in annotations)
    return [
        OpenReference(annotation, match[1], match[2])
        if match
        else OpenReference(annotation, None, ())
        for annotation, match in matches
    ]


def references_as_files(
    chosen: Sequence[OpenReference], state: AnnotationModel, project: Project
) -> Job[tuple[list[Path], Path]]:
    """Give a file for each reference, and one of the prompts of exactly these."""
    data = prompts_io.to_file(
        state, [reference.annotation for reference in chosen], all_items=False
    )
    closed = [reference for reference in chosen if reference.pixels is None]
    paths, kinds = [], {json.dumps(reference.annotation.normalization) for reference in closed}
    for done, reference in enumerate(chosen):
        yield JobProgress(
            done, len(chosen), f"preparing {reference.annotation.name}", {"phase": "files"}
        )
        if reference.pixels is None:
            paths.append(_closed_file(reference.annotation, project.images_folder))
        else:
            paths.append(file_of(reference.pixels, reference.index, project.images_folder))
            kinds.add(json.dumps(reference.pixels.normalization().to_dict()))
    if len(kinds) == 1:
        data = replace(data, normalization=json.loads(kinds.pop()))
    else:  # annotated in several ways: the pipeline finds one for all, so its pixels are others
        images = tuple(replace(image, sha256="") for image in data.images)
        data = replace(data, normalization=None, images=images)
    return paths, _kept(project, data)


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is drawn on the references at one moment; what is drawn later does not change it.

    Attributes
    ----------
    annotations : dict of str to ImageAnnotation
        By the name of the image.
    classes : dict of int to str
    model : str
    segmenter : Segmenter or None
        Answers objects of images that were not looked at since they were loaded.
    """

    annotations: Mapping[str, ImageAnnotation]
    classes: Mapping[int, str]
    model: str
    segmenter: Segmenter | None

    @classmethod
    def of(cls, state: AnnotationModel, segmenter: Segmenter | None) -> Drawing:
        """As it is now."""
        now = {p.name: replace(p) for p in reference_annotations(state)}
        return cls(now, dict(state.classes.names), state.model, segmenter)


def write_drawing(
    drawing: Drawing, planes: Sequence[ImagePlane], normalization: Normalization, folder: Path
) -> Job[Path | None]:
    """Write what is drawn on some images as `annotate` would, the masks as they are shown.

    Parameters
    ----------
    drawing : Drawing
    planes : sequence of ImagePlane
        Images; those without an annotation are passed over.
    normalization : Normalization
        Of the pixels by whose hash the images are told.
    folder : Path
        See `project.frozen`.

    Returns
    -------
    Job of Path or None
        The folder of these labels; None if there is nothing drawn.

    Raises
    ------
    InputError
        No model is there to answer an object.
    """
    images: list[ImagePrompts] = []
    rows: list[dict[str, Any]] = []
    labels: dict[str, IntArray] = {}
    for plane in planes:
        if (annotation := drawing.annotations.get(plane.label)) is None:
            continue
        yield JobProgress(0, 0, f"keeping what is drawn on {plane.label}", {"phase": "files"})
        own = Normalization.from_dict(annotation.normalization or normalization.to_dict())
        try:
            seen, image = read_rgb(plane, own), read_rgb(plane, normalization)
        except SamicError:
            continue  # the run says why it can't be read
        if image.shape[:2] != annotation.shape:
            continue  # another image of that name
        is_same = annotation.sha256 in ("", pixels_sha256(seen))
        sha256 = pixels_sha256(image) if is_same else annotation.sha256
        answered = _answered(annotation, seen, drawing.segmenter)
        present, labels[plane.label] = ranked(answered.labels())
        items = [item for item in answered.items if item.is_askable]
        scores = {i.number: _score(i) for i in items if i.number in present}
        images.append(ImagePrompts(
            plane.label, str(plane.path or ""), annotation.shape, sha256,
            tuple(item.prompts() for item in items),
            tuple(scores.get(item.number, 0.0) for item in items),
        ))  # fmt: skip
        head = {"image": plane.label, "image_score": float(np.mean([*scores.values()] or [0.0]))}
        shown = [item for item in items if item.number in scores]
        rows += [
            {**head, "object": n, "class": item.label, "score": scores[item.number],
             "area_px": int((labels[plane.label] == n).sum())}
            for n, item in enumerate(shown, start=1)
        ] or [{**head, "object": 0}]  # fmt: skip

    def write(target: Path) -> None:
        for name, values in labels.items():
            write_labels(target / f"{name}.tif", values)
        data = PromptFile(
            tuple(images), drawing.model, normalization.to_dict(), dict(drawing.classes)
        )
        save_prompts(target / "prompts.json", data)
        write_csv(target / "scores.csv", rows)

    return frozen(folder, write) if images else None


def _score(item: AnnotatedObject) -> float:
    """Confidence in what is shown, as `annotate` counts it: of what was drawn there is no doubt."""
    return 1.0 if item.drawn is not None else max(item.score or 0.0, _LEAST)


def _answered(
    annotation: ImageAnnotation, image: Image, segmenter: Segmenter | None
) -> ImageAnnotation:
    """With a mask for each object that has prompts or was drawn, as it would be shown at first."""
    items = []
    for item in annotation.items:
        if item.is_askable and item.answer is None and item.drawn is None:
            if segmenter is None:
                raise InputError("The model is being loaded. Try again in a moment.")
            knows_first = getattr(segmenter, "single_is_first", False)
            (candidates,) = segmenter.candidates(image, [item.prompts()], multimask=knows_first)
            item = replace(item, answer=MaskCandidates.of(candidates, ""), choice=0)
        items.append(item)
    return replace(annotation, items=tuple(items))


def _kept(project: Project, data: PromptFile) -> Path:
    """Write prompts to a file of their own, unless an earlier one holds the very same."""
    earlier = project.references_files
    number = 1 + max((int(p.stem.partition("-")[2]) for p in earlier), default=0)
    target = project.folder / f"references-{number}.json"
    save_prompts(target, data)
    text = target.read_bytes()
    same = next((p for p in reversed(earlier) if p.read_bytes() == text), None)
    if same is None:
        return target
    target.unlink()
    return same


def _closed_file(annotation: ImageAnnotation, folder: Path) -> Path:
    """File of an image that is not open: its own, or what an earlier job wrote."""
    strange = ""
    for path in (
        Path(annotation.file) if annotation.file else None,
        folder / f"{annotation.name}.tif",
    ):
        if path is not None and not trusted_files.allows(path, folder.parent):
            strange = f" You opened no image of the folder of {path} yet."
        elif path is not None and path.is_file():
            planes = planes_of_file(path)
            if len(planes) == 1 and planes[0].label == annotation.name:
                return path
    msg = (
        f"{annotation.name}: annotated, but not open in napari.{strange} Open its image, or "
        "unmark it."
    )
    raise InputError(msg)
