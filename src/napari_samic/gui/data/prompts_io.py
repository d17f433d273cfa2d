"""Annotations to prompt files and back, and the labels to save.

Plain Python: knows no Qt, no napari; writes nothing itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.types import CroppedMask, Prompts
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import (
    AnnotatedObject,
    AnnotationCost,
    Box,
    Point,
)
from napari_samic.io.prompts import ImagePrompts, PromptFile


def to_file(
    state: AnnotationModel, annotations: Iterable[ImageAnnotation] | None = None, *, all_items: bool
) -> PromptFile:
    """The prompts of images (None: all that have any) as a file.

    Parameters
    ----------
    all_items : bool
        Also objects that only have negative points: for recovery, not for the models.
    """
    chosen = [
        p for p in (state.annotations.values() if annotations is None else annotations) if p.items
    ]
    images = [_image(annotation, all_items) for annotation in chosen]
    kinds = {json.dumps(annotation.normalization, sort_keys=True) for annotation in chosen}
    normalization = chosen[0].normalization if len(kinds) == 1 else None
    return PromptFile(
        tuple(image for image in images if image.objects),
        state.model,
        normalization,
        state.classes.names,
    )


def _image(annotation: ImageAnnotation, all_items: bool) -> ImagePrompts:
    items = [item for item in annotation.items if all_items or item.is_askable]
    masks = tuple(item.drawn or (item.mask if item.choice else None) for item in items)
    cost = annotation.cost()
    return ImagePrompts(
        name=annotation.name,
        file=annotation.file,
        shape=annotation.shape,
        sha256=annotation.sha256,
        objects=tuple(item.prompts() for item in items),
        scores=tuple(1.0 if item.drawn is not None else item.score or 0.0 for item in items),
        clicks=cost.clicks,
        seconds=round(cost.seconds, 2),
        masks=masks if any(masks) else (),
    )


def to_files(state: AnnotationModel, name: str = "prompts") -> dict[str, PromptFile]:
    """Prompts to save by the file's stem: one file for each way of making pixels RGB."""
    groups: dict[str, list[ImageAnnotation]] = {}
    for annotation in state.annotations.values():
        if any(item.is_askable for item in annotation.items):
            key = json.dumps(annotation.normalization, sort_keys=True)
            groups.setdefault(key, []).append(annotation)
    parts = [to_file(state, annotations, all_items=False) for annotations in groups.values()]
    return {name if i == 0 else f"{name}-{i + 1}": part for i, part in enumerate(parts)}


def to_labels(state: AnnotationModel) -> dict[str, NDArray[np.int32]]:
    """Label images to save by the file's stem: one for each image that has a mask."""
    return {
        f"{_safe(annotation.name)}_labels": annotation.labels()
        for annotation in state.annotations.values()
        if any(item.answer is not None or item.drawn is not None for item in annotation.items)
    }


def _safe(name: str) -> str:
    return re.sub(r"[^\w.\-\[\]]+", "_", name).strip("._") or "image"


def take(state: AnnotationModel, data: PromptFile) -> int:
    """Put the prompts of a file in place of those of the same images; undo brings those back.

    Returns
    -------
    int
        Images taken.

    Raises
    ------
    InputError
        Prompts that were made on an image of another size; nothing is taken.
    """
    for image in data.images:
        existing = state.annotations.get(image.name)
        if existing is not None and existing.shape != image.shape:
            msg = (
                f"{image.name}: {existing.shape[0]} x {existing.shape[1]} pixels here, its prompts "
                f"were made on {image.shape[0]} x {image.shape[1]}. Open the image they belong to."
            )
            raise InputError(msg)
    used = {prompts.label for image in data.images for prompts in image.objects}
    state.classes.take(data.classes, used)
    for image in data.images:
        annotation = state.annotations.setdefault(
            image.name, ImageAnnotation(image.name, image.shape, image.file)
        )
        items = [
            _item(number, prompts, image.mask(i))
            for i, prompts in enumerate(image.objects)
            for number in [annotation.next_number + i]
        ]
        annotation.commit(items, annotation.next_number + len(items))  # a click begins another
        annotation.costs[0] = AnnotationCost(image.clicks or 0, image.seconds or 0.0)
        annotation.sha256 = annotation.sha256 or image.sha256
        annotation.normalization = annotation.normalization or data.normalization
    state.refresh()
    return len(data.images)


def take_masks(state: AnnotationModel, data: PromptFile) -> None:
    """Put masks in place of the objects of the same images, as references; undo brings those back.

    A class goes by its name: the number that a file gives it may be that of another class here.
    What was a reference stays it: where no image is marked yet, all that are annotated.
    """
    ours = {state.classes.style(label).name: label for label in state.classes.labels}
    used = {prompts.label for image in data.images for prompts in image.objects}
    wanted = {
        label: ours.get(name) or state.classes.add(name)
        for label, name in data.classes.items()
        if label in used
    }
    table = {label: number for label, number in wanted.items() if label != number}
    images = tuple(
        replace(
            image,
            objects=tuple(
                replace(p, label=table[p.label]) if p.label in table else p for p in image.objects
            ),
        )
        for image in data.images
    )
    take(state, replace(data, images=images, classes={}))
    state.mark_more(image.name for image in images)
    state.refresh()


def _item(number: int, prompts: Prompts, drawn: CroppedMask | None) -> AnnotatedObject:
    pairs = zip(prompts.points_rc.tolist(), prompts.is_foreground.tolist(), strict=True)
    points: tuple[Point, ...] = tuple((row, column, sign) for (row, column), sign in pairs)
    box: Box | None = None if prompts.box_rc is None else tuple(prompts.box_rc.tolist())
    return AnnotatedObject(number, prompts.label, points, box, drawn=drawn)
