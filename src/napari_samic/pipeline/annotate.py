"""Prompts to masks: from a prompt file, or from a simulated annotator who knows the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic import masks as mask_files
from napari_samic import sambox
from napari_samic.contracts import Image, Job, Plane, Segmenter, Step
from napari_samic.errors import InputError, PromptError
from napari_samic.images import open_images
from napari_samic.join import join
from napari_samic.metrics import iou
from napari_samic.models.sam import load_segmenter
from napari_samic.pipeline import common
from napari_samic.pipeline.loop import Answer, over_planes
from napari_samic.prompts import PromptFile, load_prompts
from napari_samic.settings import AnnotateSettings, SegmentSettings


def annotate(
    images: Any,
    *,
    out: Path | str,
    prompts: Path | str | None = None,
    masks: Path | str | None = None,
    simulate: bool = False,
    model: str = "tiny",
    device: str = "auto",
    channels: Sequence[int] | None = None,
    settings: AnnotateSettings | None = None,
    segment: SegmentSettings | None = None,
    overlay: bool = False,
    overwrite: bool = False,
) -> Job[common.Outcome]:
    """Turn prompts into masks, prompts.json and scores.csv.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
    out : Path
        Folder for one label TIFF an image, `prompts.json`, `scores.csv`.
    prompts : Path, optional
        SAMBOX prompt file; only the images that it names are done.
    masks : Path, optional
        Folder of ground truth; with `simulate`, a simulated annotator clicks from it.
    model, device : str
    channels : sequence of int, optional
        Which become red, green and blue.
    settings : AnnotateSettings, optional
    segment : SegmentSettings, optional
    overlay : bool
        Also write `overlay.png`.
    overwrite : bool
        Do images again that have a result.

    Returns
    -------
    Job of Outcome
        `figures`: `clicks_per_object`, `objects`, `mean_score`, `miou` where the truth is known.

    Raises
    ------
    InputError
        Neither prompts nor masks with `simulate`, both, or nothing to read.
    """
    chosen, how = settings or AnnotateSettings(), segment or SegmentSettings()
    if (prompts is None) == (masks is None) or (masks is not None) != simulate:
        raise InputError("give either a prompt file, or masks together with simulate.")
    planes = open_images(images)
    stored = load_prompts(prompts) if prompts is not None else None
    truth: dict[str, Path] = {}
    if stored is not None:
        planes = common.named(planes, stored)
    else:
        truth = mask_files.match_by_stem(planes, str(masks))
    normalisation = common.normalisation_of(planes, stored, channels)
    folder = common.make_folder(out)
    yield Step(0, len(planes), f"loading {model}")
    segmenter = load_segmenter(model, device=device, cache=common.default_cache())
    records = common.Records(folder, model, normalisation)
    work = _Work(segmenter, stored, truth, chosen, how)
    sheet = common.Sheet(folder / "overlay.png" if overlay else None)
    outcome, answers = yield from over_planes(planes, work, records, sheet, overwrite=overwrite)
    return replace(outcome, figures=_figures(answers))


@dataclass(frozen=True, eq=False)
class _Work:
    """How one image is answered."""

    segmenter: Segmenter
    stored: PromptFile | None
    truth: dict[str, Path]
    settings: AnnotateSettings
    segment: SegmentSettings

    def __call__(self, plane: Plane, image: Image) -> Answer:
        if self.stored is None:
            return self._simulated(plane, image)
        entry = next(i for i in self.stored.images if i.name == plane.label)
        common.check_same_image(entry, image)
        if not entry.objects:
            raise PromptError(f"{plane.label}: no prompts. Click on an object, or leave it out.")
        result = self.segmenter.segment(image, entry.objects, settings=self.segment)
        clicks = sum(len(p.points_rc) for p in entry.objects)
        return Answer(result, f"{clicks} clicks", clicks=clicks)

    def _simulated(self, plane: Plane, image: Image) -> Answer:
        truth = mask_files.read_mask(plane, self.truth[plane.label], shape=image.shape)
        done = sambox.annotate_image(self.segmenter, image, truth, self.settings)
        scores = [a.scores[-1] for a in done]
        height, width = image.shape[:2]
        result = join(
            [a.mask for a in done],
            scores,
            [a.prompts for a in done],
            shape=(height, width),
            instances=self.segment.instances,
        )
        clicks = [len(a.scores) for a in done]
        rows = [
            {"clicks": n, "iou": round(a.ious[-1], 4)} for n, a in zip(clicks, done, strict=True)
        ]
        extra = rows if len(rows) == len(result.scores) else []
        found = iou(result.labels > 0, truth > 0)
        caption = f"{sum(clicks)} clicks, IoU {found:.2f}"
        return Answer(result, caption, extra, clicks=sum(clicks), iou=found)


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    objects = sum(len(a.result.scores) for a in answers)
    scores = np.concatenate([[], *(a.result.scores for a in answers)])
    out = {
        "objects": objects,
        "clicks_per_object": sum(a.clicks or 0 for a in answers) / max(objects, 1),
        "mean_score": float(scores.mean()) if len(scores) else 0.0,
    }
    known = [a.iou for a in answers if a.iou is not None]
    return out | ({"miou": float(np.mean(known))} if known else {})
