"""The other 495: prompter file and images to labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.contracts import Image, Job, Plane, Segmentation, Step
from napari_samic.images import open_images
from napari_samic.models import backbones, prompterfile
from napari_samic.models.sam import load_segmenter
from napari_samic.models.samic import SamicPrompter
from napari_samic.normalise import Normalisation
from napari_samic.pipeline import common
from napari_samic.pipeline.loop import Answer, over_planes
from napari_samic.settings import PeakSettings, SegmentSettings


def segment(
    images: Any,
    *,
    prompter: Path | str,
    out: Path | str,
    device: str = "auto",
    settings: SegmentSettings | None = None,
    peaks: PeakSettings | None = None,
    heatmaps: bool = False,
    overlay: bool = False,
    overwrite: bool = False,
) -> Job[common.Outcome]:
    """Segment images with a trained prompter.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
    prompter : Path
        File of `train`; names the segmenter and the normalisation to use.
    out : Path
        Folder for one label TIFF an image, `prompts.json`, `scores.csv`.
    device : str
    settings : SegmentSettings, optional
    peaks : PeakSettings, optional
        Default: those of the prompter file.
    heatmaps, overlay : bool
        Also write `heatmaps/` and `overlay.png`.
    overwrite : bool
        Do images again that have a result.

    Returns
    -------
    Job of Outcome
        `figures`: `objects`, `mean_score`, `empty` images.

    Raises
    ------
    FormatError
        A damaged or foreign prompter file.
    ModelError
        A segmenter with other weights than at training.
    """
    planes = open_images(images)
    header = prompterfile.describe(prompter)
    folder = common.make_folder(out)
    stored = dict(header["normalisation"])
    model = str(stored.pop("model"))
    yield Step(0, len(planes), f"loading {model}")
    cache = common.default_cache()
    segmenter = load_segmenter(model, device=device, cache=cache)
    kind = header["backbone"]["kind"]
    backbone = backbones.build(kind, segmenter, device=device, cache=cache)
    trained = prompterfile.load(prompter, backbone)
    if peaks is not None:
        trained.peaks = peaks
    records = common.Records(folder, model, Normalisation.from_dict(stored))
    sheet = common.Sheet(folder / "overlay.png" if overlay else None)
    work = Worker(trained, segmenter, settings or SegmentSettings())
    outcome, answers = yield from over_planes(
        planes, work, records, sheet, overwrite=overwrite, heatmaps=heatmaps
    )
    return replace(outcome, figures=_figures(answers))


@dataclass(frozen=True, eq=False)
class Worker:
    """One image: heat map, peaks, masks, joined."""

    prompter: SamicPrompter
    segmenter: Any
    settings: SegmentSettings

    def __call__(self, plane: Plane, image: Image) -> Answer:  # noqa: ARG002
        """Result of one plane, for the loop."""
        result = self.segment(image)
        count = len(result.scores)
        caption = f"{count} object{'s' if count != 1 else ''}, score {result.score:.2f}"
        return Answer(result, caption)

    def segment(self, image: Image) -> Segmentation:
        """Segment one image, (H, W, 3) uint8."""
        proposal = self.prompter.propose((), image)
        result: Segmentation = self.segmenter.segment(
            image, proposal.objects, settings=self.settings
        )
        return replace(result, heat_map=proposal.heat_map)


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    scores = np.concatenate([np.zeros(0), *(a.result.scores for a in answers)])
    return {
        "objects": len(scores),
        "mean_score": float(scores.mean()) if len(scores) else 0.0,
        "empty": sum(not len(a.result.scores) for a in answers),
    }
