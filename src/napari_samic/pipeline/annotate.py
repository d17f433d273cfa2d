"""Prompts to masks: from a prompt file, or from a simulated annotator who knows the truth."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic import __version__
from napari_samic.core.errors import InputError, ModelError, PromptError
from napari_samic.core.settings import AnnotateSettings, SegmentSettings
from napari_samic.core.types import Image, ImagePlane, Job, JobProgress, LazyImage
from napari_samic.evaluation.metrics import iou
from napari_samic.io import files
from napari_samic.io import masks as mask_files
from napari_samic.io.mask_values import MaskValues
from napari_samic.io.prompts import ImagePrompts, PromptFile, to_tree
from napari_samic.io.text_files import sha256_of
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.ops import simulated_annotator
from napari_samic.ops.label_fusion import join
from napari_samic.pipeline import cluster, common
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.results.ledger import stamp_of
from napari_samic.pipeline.results.writer import ResultsWriter, recorded_prompts
from napari_samic.pipeline.runner import BatchRunner, PlaneResult, PlaneStats, Work


def annotate(
    images: Any,
    *,
    out: Path | str,
    prompts: Path | str | None = None,
    masks: Path | str | None = None,
    mask_values: str | None = None,
    simulate: bool = False,
    model: str = "tiny",
    device: str = "auto",
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    series: int | None = None,
    settings: AnnotateSettings | None = None,
    segment: SegmentSettings | None = None,
    overlay: bool = False,
    overwrite: bool = False,
    dask: str | None = None,
) -> Job[common.JobResult]:
    """Turn prompts into masks, prompts.json and scores.csv; a mask that was drawn stays as it is.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
    out : Path
        Folder for one label TIFF an image, `prompts.json`, `scores.csv`.
    prompts : Path, optional
        SAMBOX prompt file; only the images that it names are done.
    masks : Path, optional
        Ground truth: folder of masks, or a COCO or GeoJSON file; with `simulate`, a simulated
        annotator clicks from it.
    mask_values : str, optional
        What their values mean, as `mask_values.parse_mask_values` takes it; else it is decided from
        all of them. Void is ground here.
    simulate : bool
        Click from `masks`.
    model, device : str
    channels : sequence of int, optional
        Which become red, green and blue.
    axes : str, optional
        As of `images.open_images`, instead of the files' own.
    series : int, optional
        The one image to take of each file.
    settings : AnnotateSettings, optional
    segment : SegmentSettings, optional
    overlay : bool
        Also write `overlay.png`.
    overwrite : bool
        Do images again that have a result.
    dask : str, optional
        Let the workers of a Dask cluster answer: the address of a scheduler whose workers find
        images, masks and model under the same paths, or "local:N" for N processes.

    Returns
    -------
    Job of JobResult
        `figures`: `clicks_per_object`, `objects` asked for, `hidden` ones that got no pixel,
        `mean_score` of the others, `miou` where the truth is known.

    Raises
    ------
    InputError
        Neither prompts nor masks with `simulate`, both, or nothing to read, or `out` would replace
        an input.
    OutputError
        `out` is a file, can't be written, or holds results of another model or normalisation.
    SettingsError
        No cluster where `dask` says.
    """
    if (prompts is None) == (masks is None) or (masks is not None) != simulate:
        msg = "give either a prompt file (--prompts), or masks to click from (--masks, --simulate)."
        raise InputError(msg)
    notices: list[str] = []
    planes = common.open_planes(images, axes=axes, series=series, tell=notices.append)
    stored = recorded_prompts(prompts) if prompts is not None else None
    truth: dict[str, Path] = {}
    if stored is not None:
        planes = common.annotated_planes(planes, stored)
    else:
        truth = mask_files.match_by_stem(planes, str(masks), tell=notices.append)
    sources = [*(p.path for p in planes), *truth.values()]
    folder = common.results_folder(out, sources, prompts, model)
    yield JobProgress(0, len(planes), "looking at the images")
    values = None
    if truth:
        meaning = yield from mask_files.meaning_of(truth.values(), mask_values)
        values = meaning.values
        notices.append(meaning.line + " Void is ground here." * bool(values.void))
    normalization = common.normalization_of(planes, stored, channels)
    model = common.full_name(model)
    yield JobProgress(0, len(planes), f"loading {model}")
    entries = {i.name: i for i in stored.images} if stored is not None else {}
    given = _Given(entries, truth, values)
    chosen, joining = settings or AnnotateSettings(), segment or SegmentSettings()
    make = partial(_PromptPredictor, model, device, values, chosen, joining)
    with files.claimed(folder), cluster.opened(dask) as remote:
        work: Work
        if remote is None:
            predictor = make()
            weights = predictor.weights

            def work(plane: ImagePlane, image: Image | LazyImage) -> PlaneResult:
                return predictor(plane, image, given.of(plane), weights)

        else:
            pickled = pickle.dumps(make)
            weights = yield from remote.run(_weights, pickled)
            work = cluster.RemoteWork(
                remote, pickled, normalization, axes, series, is_own=True,
                arguments=lambda plane: (given.of(plane), weights),
            )  # fmt: skip
        run: dict[str, Any] = {"job": "annotate", "version": __version__, "model_sha256": weights}
        run |= {"segment": joining.to_dict(), "axes": axes, "series": series}
        if stored is None:
            run["simulate"] = chosen.to_dict()
        writer = ResultsWriter(folder, model, normalization, run, overwrite=overwrite)
        sheet = ContactSheet(folder / "overlay.png" if overlay else None)
        runner = BatchRunner(
            planes, work, writer, sheet, inputs=given.inputs, is_strict=True, is_own=True,
            elsewhere=None if remote is None else remote.ahead,
        )  # fmt: skip
        result = yield from runner.run()
    notices += result.notices
    return replace(result, figures=_figures(runner.plane_stats), notices=tuple(notices))


class _Given:
    """What each image is annotated from: its entry in a prompt file, or the path of its mask."""

    def __init__(
        self, entries: dict[str, ImagePrompts], truth: dict[str, Path], values: MaskValues | None
    ) -> None:
        self._entries, self._truth, self._values = entries, truth, values
        self._hashes: dict[tuple[Path | int, ...], str] = {}  # by file, and what it was

    def of(self, plane: ImagePlane) -> ImagePrompts | Path:
        """Of one image."""
        entry = self._entries.get(plane.label)
        return self._truth[plane.label].absolute() if entry is None else entry

    def inputs(self, plane: ImagePlane) -> dict[str, str]:
        """Hash of what is asked for, or of the mask that the clicks come from."""
        source = self.of(plane)
        if isinstance(source, Path):
            key = (source, *(stamp_of(source) or ()))
            if key not in self._hashes:
                self._hashes[key] = sha256_of(source)
            mask = f"{self._hashes[key]} {self._values}"
            return {"mask": hashlib.sha256(mask.encode()).hexdigest()}
        without_scores = PromptFile((replace(source, scores=(0.0,) * len(source.objects)),))
        tree = to_tree(without_scores)["images"][0]["objects"]
        return {"prompts": hashlib.sha256(json.dumps(tree).encode()).hexdigest()}


def _weights(make: bytes) -> str:
    """Which weights a worker has loaded."""
    with cluster.kept(make) as predictor:
        return str(predictor.weights)


class _PromptPredictor:
    """How one image is answered.

    Attributes
    ----------
    weights : str
        Hash of the model's, or its name if it tells none.
    """

    def __init__(
        self,
        model: str,
        device: str,
        values: MaskValues | None,
        settings: AnnotateSettings,
        segment: SegmentSettings,
    ) -> None:
        self.segmenter = load_segmenter(model, device=device, cache=common.default_cache())
        self.weights = str(getattr(self.segmenter, "weights_sha256", "") or self.segmenter.name)
        self.values, self.settings, self.segment = values, settings, segment

    def __call__(
        self, plane: ImagePlane, lazy: Image | LazyImage, source: ImagePrompts | Path, weights: str
    ) -> PlaneResult:
        """Answer of one plane; raises a ModelError unless these weights are loaded."""
        if weights != self.weights:
            msg = f"{self.segmenter.name}: a Dask worker has other weights than another."
            raise ModelError(f"{msg} Give all the same file.")
        image = np.asarray(lazy)
        if isinstance(source, Path):
            return self._simulated(plane, image, source)
        common.check_same_image(source, image)
        if not source.objects:
            raise PromptError(f"{plane.label}: no prompts. Click on an object, or leave it out.")
        as_clicked = replace(self.segment, drop_covered=False, tell_apart=False)
        result = common.segment_annotated(self.segmenter, image, source, as_clicked)
        clicks = sum(len(p.points_rc) for p in source.objects)
        numbered = self.segment.instances
        caption = f"{clicks} clicks"
        return PlaneResult(result, caption, source.objects, clicks=clicks, numbered=numbered)

    def _simulated(self, plane: ImagePlane, image: Image, path: Path) -> PlaneResult:
        truth = mask_files.read_mask(plane, path, shape=image.shape, values=self.values)
        annotated = simulated_annotator.annotate_image(self.segmenter, image, truth, self.settings)
        objects = tuple(a.prompts for a in annotated)
        result = join(
            [a.mask for a in annotated],
            [a.scores[a.kept - 1] for a in annotated],
            objects,
            shape=(image.shape[0], image.shape[1]),
            instances=self.segment.instances,
            min_score=self.segment.min_score,
            duplicate_iou=self.segment.duplicate_iou,
        )
        extra = tuple(
            {"clicks": len(a.scores), "iou": round(a.ious[a.kept - 1], 4)} for a in annotated
        )
        clicks = sum(len(a.scores) for a in annotated)
        union_iou = iou(result.labels > 0, truth > 0)
        caption = f"{clicks} clicks, IoU {union_iou:.2f}"
        numbered = self.segment.instances
        return PlaneResult(result, caption, objects, extra, clicks, union_iou, truth, numbered)


def _figures(plane_stats: Sequence[PlaneStats]) -> dict[str, Any]:
    n_requested = sum(t.requested for t in plane_stats)
    scores = [s for t in plane_stats for s in t.scores]
    figures = {
        "objects": n_requested,
        "hidden": n_requested - len(scores),
        "clicks_per_object": sum(t.clicks or 0 for t in plane_stats) / max(n_requested, 1),
        "mean_score": float(np.mean(scores)) if scores else 0.0,
    }
    ious = [t.iou for t in plane_stats if t.iou is not None]
    return figures | ({"miou": float(np.mean(ious))} if ious else {})
