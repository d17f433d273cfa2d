"""Two prompters on the same images: which finds the objects better?

For each file the references that the last one kept aside are looked for with the others, as its
training did: by their masks where its encoder was adapted, which was judged before it learned from
them too, else by the maps of SAMIC's network. An older prompter may have learned from them, so it
is never wronged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError, SamicError
from napari_samic.core.types import Job, JobProgress
from napari_samic.io.normalize import Normalization
from napari_samic.io.prompts import load_prompts
from napari_samic.models.features import backbones
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic import serialization, trainer
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.pipeline import common
from napari_samic.pipeline.finetune import mean_mask_iou
from napari_samic.pipeline.predictor import with_finetuned_decoder
from napari_samic.pipeline.train import read_references


def compare_prompters(
    images: Any,
    *,
    prompters: Sequence[Path | str],
    prompts: Path | str,
    device: str = "auto",
) -> Job[common.JobResult]:
    """Score prompters on the references that the last of them kept aside.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
        The references.
    prompters : sequence of Path
        Files of `train`.
    prompts : Path
        The prompt file that the last was trained with.
    device : str

    Returns
    -------
    Job of JobResult
        `done`: the references kept aside; none below four. `figures`: for each path the mean IoU of
        the masks, or the correlation of predicted and true heat map, None if there is nothing to
        judge by; `by_masks` says which it is. `failures`: prompters that can't be used here.

    Raises
    ------
    FormatError
        The last is no prompter file.
    """
    stored = load_prompts(prompts)
    planes = common.annotated_planes(common.open_planes(images), stored)
    holdout_names, holdout_iou = _holdout_of(prompters[-1])
    figures: dict[str, Any] = {"by_masks": holdout_iou is not None}
    failures: dict[str, str] = {}
    for done, path in enumerate(prompters):
        yield JobProgress(done, len(prompters), f"judging {Path(path).name}", {"phase": "judge"})
        is_last = done == len(prompters) - 1
        figures[str(path)] = holdout_iou if is_last else None
        if not holdout_names or (is_last and holdout_iou is not None):
            continue
        try:
            prompter, segmenter, normalization = _load_prompter(path, device)
            references, _ = yield from read_references(
                planes, stored, {}, normalization, segmenter=segmenter
            )
            support = [r for r in references if r.name not in holdout_names]
            holdout = [r for r in references if r.name in holdout_names]
            if holdout_iou is None:
                figures[str(path)] = trainer.evaluate_holdout(prompter, support, holdout)
            else:
                figures[str(path)] = mean_mask_iou(prompter, segmenter, support, holdout)
        except SamicError as error:
            failures[str(path)] = str(error)
    return common.JobResult(None, holdout_names, (), failures, figures)


def _holdout_of(path: Path | str) -> tuple[tuple[str, ...], float | None]:
    """References kept aside, and the IoU of their masks if that is known."""
    header = serialization.describe(path)
    growth = header["growth"] or {}
    if growth.get("accepted") and growth.get("after") is not None:
        return tuple(growth["held_out"]), float(growth["after"])
    return tuple((header["report"] or {}).get("held_out", ())), None


def _load_prompter(path: Path | str, device: str) -> tuple[SamicPrompter, Any, Normalization]:
    """A prompter with the networks that it was trained on, and how it sees pixels."""
    header = serialization.describe(path)
    try:
        data, kind = header["normalisation"], str(header["backbone"]["kind"])
        model, normalization = str(data["model"]), Normalization.from_dict(data)
    except (KeyError, TypeError) as error:
        raise FormatError(f"{Path(path).name}: lacks {error}. Train again.") from error
    cache = common.default_cache()
    segmenter = load_segmenter(common.full_name(model), device=device, cache=cache)
    backbone = backbones.build(common.full_name(kind), segmenter, device=device, cache=cache)
    prompter = serialization.load(path, backbone)
    return prompter, with_finetuned_decoder(segmenter, prompter), normalization
