"""The other 495: prompter file and images to labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.contracts import Job, Step
from napari_samic.errors import FormatError, ModelError, SettingsError
from napari_samic.models import backbones, methods, prompterfile
from napari_samic.models.sam import load_segmenter
from napari_samic.normalise import Normalisation, fit_outside
from napari_samic.pipeline import common
from napari_samic.pipeline.follow import Follower
from napari_samic.pipeline.loop import Loop, Tally, Work
from napari_samic.pipeline.records import Records
from napari_samic.pipeline.results import check_plane_files
from napari_samic.pipeline.sheet import Sheet
from napari_samic.pipeline.worker import Worker, tuned
from napari_samic.settings import (
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
)

AUTO = "auto"


def segment(
    images: Any,
    *,
    prompter: Path | str,
    out: Path | str,
    model: str | None = None,
    encoder: str | None = None,
    method: str = AUTO,
    device: str = "auto",
    settings: SegmentSettings | None = None,
    peaks: PeakSettings | None = None,
    memory: MemorySettings | None = None,
    strategy: StrategySettings | None = None,
    refine: RefineSettings | None = None,
    rescale: bool = False,
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
        Folder for one label TIFF an image, `prompts.json`, `scores.csv`; the latter tells of each
        object its score, and how much the references agree about its class in this image.
    model, encoder : str, optional
        Where the networks of the training are now, if not where they were: a name or path:FILE.
    method : str
        What says where objects are. auto: the network grown to the references, if the file has one,
        else samic, and masks by the decoder tuned to them, if it has one; samic: the references'
        map; or a method that needs no training, one of `methods.names()`, with the references of
        the file.
    device : str
    settings : SegmentSettings, optional
    peaks : PeakSettings, optional
        Default: those of the prompter file. Only looked at by samic.
    memory : MemorySettings, optional
        Whether what was found in one image says where to look in the next; with samic only.
    strategy : StrategySettings, optional
    refine : RefineSettings, optional
    rescale : bool
        Fit a range anew to images of another scale than those of the training; else they fail.
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
    SettingsError
        An unknown method, or options that can't act together.
    """
    check_method(method)
    _check_together(method, memory, strategy, refine)
    notices: list[str] = []
    planes = common.open_planes(images, tell=notices.append)
    plan = _Plan.of(prompter)
    folder = common.results_folder(out, [p.path for p in planes])
    if heatmaps:
        check_plane_files(folder, planes, ".tif")
    name = common.full_name(model or plan.model)
    normalisation = plan.normalisation
    if rescale:
        normalisation = replace(normalisation, outside=fit_outside(planes, normalisation))
    records = Records(folder, plan.model, normalisation, overwrite=overwrite)
    yield Step(0, len(planes), f"loading {name}")
    sheet = Sheet(folder / "overlay.png" if overlay else None)
    if memory is not None and memory.follow != "never":
        method = methods.TRAINED  # what was grown and tuned was judged on single images
    work = open_worker(
        prompter, model=model, encoder=encoder, method=method, device=device, peaks=peaks
    )
    work = replace(
        work,
        settings=settings or work.settings,
        strategy=strategy or work.strategy,
        refine=refine or work.refine,
    )
    loop = Loop(
        planes, _in_order(work, memory), records, sheet, overwrite, heatmaps, is_strict=True
    )
    outcome = yield from loop.run()
    return replace(outcome, figures=_figures(loop.tallies), notices=(*notices, *outcome.notices))


def _in_order(work: Worker, memory: MemorySettings | None) -> Work:
    """The worker, or one that remembers the image before."""
    if memory is None or memory.follow == "never":
        return work
    return Follower(work.prompter, work.segmenter, memory, work.settings)


def check_method(method: str) -> None:
    """Raise SettingsError for a method that is not known."""
    known = (AUTO, methods.TRAINED, *methods.names())
    if method not in known:
        raise SettingsError(f"method is {method!r}, expected one of {', '.join(known)}.")


def _check_together(
    method: str,
    memory: MemorySettings | None,
    strategy: StrategySettings | None,
    refine: RefineSettings | None,
) -> None:
    """Raise SettingsError for options that would have no effect."""
    asked = [one for one in (strategy, refine) if one is not None and one != type(one)()]
    follows = memory is not None and memory.follow != "never"
    if method not in (AUTO, methods.TRAINED) and (asked or follows):
        msg = f"method {method} draws masks its own way: leave strategy, refinement and follow out."
        raise SettingsError(msg)
    if follows and asked:
        raise SettingsError("follow asks its own way: leave strategy and refinement out.")


def open_worker(
    prompter: Path | str,
    *,
    model: str | None = None,
    encoder: str | None = None,
    method: str = AUTO,
    device: str = "auto",
    peaks: PeakSettings | None = None,
) -> Worker:
    """Load all that segments one image; parameters and errors are those of `segment`."""
    plan = _Plan.of(prompter)
    cache = common.default_cache()
    name = common.full_name(model or plan.model)
    segmenter = load_segmenter(name, device=device, cache=cache)
    plan.check(segmenter)
    kind = common.full_name(encoder or plan.encoder)
    eyes = backbones.build(kind, segmenter, device=device, cache=cache)
    trained = prompterfile.load(prompter, eyes)
    if peaks is not None:
        trained.peaks = peaks
    if method == methods.TRAINED:
        return Worker(trained, segmenter, SegmentSettings())
    if method == AUTO:
        return Worker(trained, tuned(segmenter, trained), SegmentSettings(), trained.finder)
    other = methods.make(method, segmenter, eyes, trained.references)
    return Worker(trained, segmenter, SegmentSettings(), other=other)


def stored_peaks(prompter: Path | str) -> PeakSettings:
    """The peak settings of a prompter file, to change some of them.

    Raises
    ------
    FormatError
        A damaged or foreign prompter file.
    """
    return _Plan.of(prompter).peaks


@dataclass(frozen=True)
class _Plan:
    """What a prompter file asks for."""

    file: str
    model: str
    model_sha256: str
    encoder: str
    normalisation: Normalisation
    peaks: PeakSettings

    @classmethod
    def of(cls, prompter: Path | str) -> _Plan:
        name = Path(prompter).name
        try:
            header = prompterfile.describe(prompter)
            data = header["normalisation"]
            return cls(
                name,
                str(data["model"]),
                str(data.get("model_sha256", "")),
                str(header["backbone"]["kind"]),
                Normalisation.from_dict(data),
                PeakSettings.from_dict(header["settings"]["peaks"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{name}: lacks what segmenting needs ({error}). Train again with `train`."
            raise FormatError(msg) from error

    def check(self, segmenter: Any) -> None:
        """Raise ModelError unless this is the network that the prompter was trained for."""
        found = str(getattr(segmenter, "weights_sha256", ""))
        if self.model_sha256 and found != self.model_sha256:
            msg = (
                f"{self.file}: trained for {self.model} ({self.model_sha256[:12]}), this machine's "
                f"{segmenter.name} is {found[:12]}. Train again, or give that file with --model."
            )
            raise ModelError(msg)


def _figures(tallies: Sequence[Tally]) -> dict[str, Any]:
    scores = [s for t in tallies for s in t.scores]
    return {
        "objects": len(scores),
        "mean_score": float(np.mean(scores)) if scores else 0.0,
        "empty": sum(not t.scores for t in tallies),
    }
