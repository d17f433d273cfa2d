"""A few annotated images to a prompter file."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic import __version__
from napari_samic.core.errors import InputError, SamicError, TrainingError
from napari_samic.core.label_objects import ranked
from napari_samic.core.settings import (
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    TrainSettings,
)
from napari_samic.core.types import (
    Image,
    ImagePlane,
    IntArray,
    Job,
    JobProgress,
    Prompts,
    Reference,
    Segmenter,
)
from napari_samic.evaluation.matching import as_instances
from napari_samic.io import files
from napari_samic.io import masks as mask_files
from napari_samic.io.mask_values import MaskValues
from napari_samic.io.normalize import Normalization, read_rgb
from napari_samic.io.outlines import UNNAMED
from napari_samic.io.paths import some
from napari_samic.io.prompts import PromptFile
from napari_samic.models.features import backbones
from napari_samic.models.features.reference_masks import AS_CLICKED
from napari_samic.models.finetune.checkpointing import Checkpoint, TrainingControl, config_hash
from napari_samic.models.finetune.dataset import LEAST_PX, largest_seen_px
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic import pretrained, serialization
from napari_samic.models.samic.fit_report import FitReport
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.ops import simulated_annotator
from napari_samic.pipeline import common
from napari_samic.pipeline.finetune import draw_holdout, finetune
from napari_samic.pipeline.results.writer import recorded_prompts

UNFINISHED = ".samic.training"


def train(
    images: Any,
    *,
    out: Path | str,
    prompts: Path | str | None = None,
    masks: Path | str | None = None,
    mask_values: str | None = None,
    others: Any = None,
    model: str = "tiny",
    device: str = "auto",
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    series: int | None = None,
    settings: TrainSettings | None = None,
    prompter: PrompterSettings | None = None,
    heat: HeatMapSettings | None = None,
    peaks: PeakSettings | None = None,
    adapt: AdaptSettings | None = None,
    overwrite: bool = False,
    stop: Callable[[], bool] | None = None,
    resume: Path | str | None = None,
) -> Job[common.JobResult]:
    """Train a SAMIC prompter and write it to one file.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
        May hold more than the annotated ones; with `adapt.adapt_others` these are `others`, too.
    out : Path
        The prompter file.
    prompts : Path, optional
        SAMBOX prompt file.
    masks : Path, optional
        Folder of masks, or a COCO or GeoJSON file; each object gives one point, at its inner
        maximum (`simulated_annotator.prompts_of`). Outlines may have classes.
    mask_values : str, optional
        What their values mean, as `mask_values.parse_mask_values` takes it; else it is decided from
        all of them. Void is learned as ground.
    others : path, glob, folder, list of those, or array, optional
        Images without annotation, as those to be segmented, from which the fine-tuned encoder
        learns, too, if there are ten references; 256 at most, drawn by the seed. Those that can't
        be read are passed over.
    model : str
        Segmenter that the prompter will serve, and whose features it compares.
    device : str
    channels : sequence of int, optional
    axes : str, optional
        As of `images.open_images`, instead of the files' own.
    series : int, optional
        The one image to take of each file.
    settings : TrainSettings, optional
    prompter : PrompterSettings, optional
    heat : HeatMapSettings, optional
    peaks : PeakSettings, optional
    adapt : AdaptSettings, optional
        Without epochs nothing is adapted.
    overwrite : bool
        Replace `out`.
    stop : callable, optional
        Asked before each batch; True ends the training with what was learned so far.
    resume : Path, optional
        File that keeps where the training ended. If it is there, go on from it: the result is that
        of a training that was never stopped. Default: a hidden file beside `out`, which goes with
        the end of the training.

    Returns
    -------
    Job of JobResult
        `figures`: `adapted`, whether there is an encoder fine-tuned to the references, and
        `growth`, how that went, with how many `others`, and why some of these were passed over;
        `epochs`, `loss`, `before`, `after`, `accepted` and `summary` of SAMIC's own network, which
        is trained where there is no other; `tuned` and `tuning`, the same of the mask decoder.
        With `stop` or `resume`, `JobProgress` of epochs tells `held_out` now and then, the score
        so far.

    Raises
    ------
    InputError
        Neither prompts nor masks, both, nothing to read, masks that could mean this or that, or
        `out` has the ending of an image or is one of the inputs.
    TrainingError
        One annotated image, or no two of a class where SAMIC's own network is trained.
    FormatError
        `resume` is some other file.
    OutputError
        `out` exists, or can't be written.
    """
    if (prompts is None) == (masks is None):
        raise InputError("give either a prompt file (--prompts) or a folder of masks (--masks).")
    target = Path(out)
    prompter_settings = prompter or PrompterSettings()
    common.check_result_file(
        target, images, prompts, masks, others, model, prompter_settings.encoder, resume
    )
    files.check_free(target, overwrite=overwrite)
    common.make_folder(target.parent)
    train_settings, adapt_settings = settings or TrainSettings(), adapt or AdaptSettings()
    is_over = _deadline(stop, train_settings.minutes)
    checkpoint_path = (
        Path(resume) if resume is not None else target.with_name(f".{target.name}{UNFINISHED}")
    )
    checkpoint = Checkpoint(checkpoint_path, strict=resume is not None)
    scores = stop is not None or train_settings.minutes > 0 or resume is not None
    control = TrainingControl(is_over, scores, checkpoint)
    notices: list[str] = []

    def opened(source: Any) -> list[ImagePlane]:
        return common.open_planes(source, axes=axes, series=series, tell=notices.append)

    planes = opened(images)
    stored = recorded_prompts(prompts) if prompts is not None else None
    unannotated = opened(others) if others is not None else []
    unannotated += planes if adapt_settings.adapt_others else []
    planes, truth = _annotated(planes, stored, masks, notices.append)
    yield JobProgress(0, len(planes), "looking at the images", {"phase": "read"})
    values = MaskValues()
    if truth:
        meaning = yield from mask_files.meaning_of(truth.values(), mask_values)
        values = meaning.values
        notices.append(meaning.line + " Void is learned as ground." * bool(values.void))
        if numbers := mask_files.class_numbers(truth.values()):
            notices.append(f"classes: {some([f'{n} {name}' for name, n in numbers.items()])}.")
    normalization = common.normalization_of(planes, stored, channels)
    model = common.full_name(model)
    yield JobProgress(0, 0, f"loading {model}", {"phase": "load"})
    networks = _new_prompter(
        model, device, prompter_settings, train_settings, normalization, heat=heat, peaks=peaks
    )
    references, failures = yield from read_references(
        planes, stored, truth, normalization, values, segmenter=networks[1]
    )
    if bare := [r.name for r in references if not r.objects]:
        notices.append(f"references without an object: {some(bare)}.")
    seen_px = largest_seen_px([as_instances(r.mask) for r in references if r.mask is not None])
    if seen_px < LEAST_PX / 4:
        notices.append(
            f"objects are {seen_px:.0f} px wide where the network looks, since their images are "
            "large: give pieces of these images as references, cut around the objects."
        )
    training = _Training(*networks, references, train_settings, adapt_settings, control)
    try:
        unlabeled = _without_annotation(
            unannotated, planes, normalization, train_settings.seed, training.unreadable
        )
        report, failed = yield from training.fit(unlabeled)
    except TrainingError as error:
        raise _with_reason(error, failures) from error
    serialization.save(training.prompter, target, overwrite=overwrite)
    if resume is None:
        checkpoint.drop()
    if checkpoint.began:
        notices.append(f"went on with the training that was stopped at step {checkpoint.began}.")
    names, distinct_notices = tuple(r.name for r in references), tuple(dict.fromkeys(notices))
    figures, resolved = training.figures(report, failed), training.resolved_settings(report)
    return common.JobResult(target, names, (), failures, figures, resolved, distinct_notices)


def _new_prompter(
    model: str,
    device: str,
    prompter_settings: PrompterSettings,
    train_settings: TrainSettings,
    normalization: Normalization,
    *,
    heat: HeatMapSettings | None,
    peaks: PeakSettings | None,
) -> tuple[SamicPrompter, Any]:
    """A prompter with its first weights, and the segmenter that it serves."""
    cache = common.default_cache()
    prompter_settings = replace(
        prompter_settings, encoder=common.full_name(prompter_settings.encoder)
    )
    segmenter = load_segmenter(model, device=device, cache=cache)
    backbone = backbones.build(prompter_settings.encoder, segmenter, device=device, cache=cache)
    prompter = SamicPrompter(
        backbone, settings=prompter_settings, heat=heat, peaks=peaks, seed=train_settings.seed
    )
    if not pretrained.load_pretrained(prompter) and train_settings.epochs == 0:
        other = (
            ""
            if prompter_settings.layers == pretrained.LAYERS
            else f" with {prompter_settings.layers} layers"
        )
        msg = f"{backbone.name}{other}: no first weights come for it. Train for at least one epoch."
        raise TrainingError(msg)
    sha256 = str(getattr(segmenter, "weights_sha256", ""))
    prompter.normalization = {"model": model, "model_sha256": sha256, **normalization.to_dict()}
    return prompter, segmenter


@dataclass(frozen=True, eq=False)
class _Training:
    """What a prompter learns from and how; afterwards, what came of it.

    Attributes
    ----------
    unreadable : dict of str to str
        Images without annotation that can't be read, and why.
    """

    prompter: SamicPrompter
    segmenter: Any
    references: list[Reference]
    settings: TrainSettings
    adapt_settings: AdaptSettings
    control: TrainingControl
    unreadable: dict[str, str] = field(default_factory=dict)

    def fit(self, unlabeled: Iterable[Image]) -> Job[tuple[FitReport, str]]:
        """Fine-tune an encoder to the references; train SAMIC's own network where it is refused.

        Returns the report of SAMIC's own, and why there is no fine-tuned one, if that failed.
        """
        prompter, train_settings, failed = self.prompter, self.settings, ""
        groups = (train_settings, prompter.settings, prompter.heat, self.adapt_settings)
        versions = f"{__version__} {getattr(self.segmenter, 'weights_sha256', '')}"
        key = config_hash(self.references, prompter.learner.state_dict(), groups, versions)
        report = yield from prompter.fit(self.references, replace(train_settings, epochs=0))
        if self.adapt_settings.adapt and train_settings.epochs and len(self.references) > 1:
            holdout = draw_holdout(
                self.references, train_settings.holdout_frac, train_settings.seed
            )
            try:
                yield from finetune(
                    prompter, self.segmenter, self.references, self.adapt_settings,
                    train_settings.seed, self.control.stop, holdout, unlabeled=unlabeled,
                    checkpoint=self.control.checkpoint, key=key,
                )  # fmt: skip
            except SamicError as error:
                failed = f"not {'tuned' if prompter.growth else 'adapted'}: {error}"
        if train_settings.epochs and prompter.finder is None:
            report = yield from prompter.fit(self.references, train_settings, self.control)
        return report, failed

    def figures(self, report: FitReport, failed: str) -> dict[str, Any]:
        """As `train` tells them."""
        prompter = self.prompter
        finetune_summary = prompter.growth.summary if prompter.growth else failed
        return {
            "epochs": len(report.losses),
            "loss": min(report.losses, default=None),
            "before": report.before,
            "after": report.after,
            "accepted": report.accepted,
            "summary": report.summary if report.losses or not prompter.finder else "",
            "adapted": prompter.finder is not None,
            "growth": "; ".join(
                filter(None, (finetune_summary, _unreadable_note(self.unreadable)))
            ),
            "others": prompter.growth.others if prompter.growth else 0,
            "tuned": prompter.decoder is not None,
            "tuning": prompter.tuning.summary
            if prompter.tuning
            else failed * bool(prompter.growth),
        }

    def resolved_settings(self, report: FitReport) -> dict[str, Any]:
        """Options that give the same weights as a training that was ended early."""
        prompter = self.prompter
        if not (self.settings.minutes or self.control.is_over):
            return {}
        tuned = prompter.decoder is not None
        resolved: dict[str, Any] = {"minutes": 0.0} if self.settings.minutes else {}
        resolved |= {} if tuned else {"decoder_steps": 0}
        if prompter.finder is not None and prompter.growth is not None:
            return resolved | {"adapt_steps": prompter.growth.steps}
        return resolved | {"epochs": len(report.losses), "adapt": tuned}


def _deadline(stop: Callable[[], bool] | None, minutes: float) -> Callable[[], bool]:
    """Whether it was stopped, or its time is over."""
    started = time.monotonic()

    def is_over() -> bool:
        late = minutes > 0 and time.monotonic() - started > 60 * minutes
        return late or (stop is not None and stop())

    return is_over


def _with_reason(error: TrainingError, failures: dict[str, str]) -> TrainingError:
    """Too few references is often because some could not be read: say so."""
    if not failures:
        return error
    first = next(iter(failures.values()))
    return TrainingError(f"{error} {len(failures)} could not be used, the first because: {first}")


def _annotated(
    planes: list[ImagePlane],
    stored: PromptFile | None,
    masks: Path | str | None,
    tell: Callable[[str], None],
) -> tuple[list[ImagePlane], dict[str, Path]]:
    """Planes that have prompts or a mask, and where the masks are."""
    if stored is None:
        truth = mask_files.match_by_stem(planes, str(masks), require_all=False, tell=tell)
        return [p for p in planes if p.label in truth], truth
    return common.annotated_planes(planes, stored), {}


def _without_annotation(
    planes: Sequence[ImagePlane],
    annotated: Sequence[ImagePlane],
    normalization: Normalization,
    seed: int,
    unreadable: dict[str, str],
) -> Iterator[Image]:
    """Images of the planes that are not annotated, once each and in random order.

    Why some can't be read is put into `unreadable`.
    """
    annotated_keys = {_plane_key(plane) for plane in annotated}
    by_key = {_plane_key(plane): plane for plane in planes}
    unannotated = [plane for key, plane in by_key.items() if key not in annotated_keys]
    for i in np.random.default_rng(seed).permutation(len(unannotated)):
        try:
            image = read_rgb(unannotated[i], normalization, is_strict=True, is_own=True)
        except SamicError as error:
            unreadable[unannotated[i].label] = common.reason(unannotated[i], error)
            continue
        yield image


def _unreadable_note(unreadable: dict[str, str]) -> str:
    if not unreadable:
        return ""
    first = next(iter(unreadable.values()))
    return f"{len(unreadable)} without annotation passed over, the first because: {first}"


def _plane_key(plane: ImagePlane) -> Hashable:
    """Tells a plane from others of its name, as those of another folder or array."""
    return plane if plane.path is None else (plane.path.resolve(), plane.index)


def read_references(
    planes: Sequence[ImagePlane],
    stored: PromptFile | None,
    truth: dict[str, Path],
    normalization: Normalization,
    values: MaskValues | None = None,
    *,
    segmenter: Segmenter,
) -> Job[tuple[list[Reference], dict[str, str]]]:
    """Readable ones, and why the others are not; yields a `JobProgress` each.

    Where some masks of a reference were drawn, `segmenter` is asked for its other objects.
    """
    numbers = mask_files.class_numbers(truth.values())
    entries = {i.name: i for i in stored.images} if stored is not None else {}
    references: list[Reference] = []
    failures: dict[str, str] = {}
    for i, plane in enumerate(planes):
        try:
            image = read_rgb(plane, normalization, is_strict=True, is_own=True)
            if plane.label in entries:
                entry = entries[plane.label]
                common.check_same_image(entry, image)
                reference = Reference(plane.label, image, entry.objects)
                if any(entry.masks):
                    answer = common.segment_annotated(segmenter, image, entry, AS_CLICKED)
                    reference = replace(reference, mask=answer.labels)
            else:
                path = truth[plane.label]
                mask = mask_files.read_mask(plane, path, shape=image.shape, values=values)
                classes = [numbers[name] for name in mask_files.class_names(plane, path)]
                rest = numbers.get(UNNAMED, 1)
                reference = Reference(plane.label, image, *_with_prompts(mask, classes, rest))
            references.append(reference)
        except SamicError as error:
            failures[plane.label] = common.reason(plane, error)
        yield JobProgress(i + 1, len(planes), f"read {plane.label}", {"phase": "read"})
    return references, failures


def _with_prompts(
    labels: IntArray, classes: Sequence[int], rest: int
) -> tuple[tuple[Prompts, ...], IntArray]:
    """One point an object, and the mask; number n is of `classes[n - 1]`, all of `rest` if none."""
    values, mask = ranked(labels)  # numbers far apart would cost by the largest
    objects = simulated_annotator.prompts_of(mask)
    places = [tuple(prompts.points_rc[0].astype(int)) for prompts in objects]
    labels_here = [classes[values[mask[place] - 1] - 1] if classes else rest for place in places]
    return tuple(replace(p, label=k) for p, k in zip(objects, labels_here, strict=True)), mask
