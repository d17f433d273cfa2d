"""The other 495: prompter file and images to labels."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic import __version__
from napari_samic.core.errors import FormatError, InputError, ModelError, SettingsError
from napari_samic.core.label_objects import ranked
from napari_samic.core.settings import (
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    Settings,
    StrategySettings,
    check_together,
)
from napari_samic.core.types import (
    Image,
    ImagePlane,
    Job,
    JobProgress,
    LazyImage,
    Prompts,
    Segmentation,
)
from napari_samic.io import files
from napari_samic.io.cache import ArrayCache
from napari_samic.io.normalize import Normalization, fit_outside, open_rgb
from napari_samic.io.paths import some
from napari_samic.io.text_files import pixels_sha256, sha256_of, text_sha256
from napari_samic.models.features import backbones
from napari_samic.models.hub.devices import OPENVINO
from napari_samic.models.prompters import registry
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic import serialization
from napari_samic.ops.simulated_annotator import inner_maximum
from napari_samic.pipeline import cluster, common
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.linking import ObjectLinker
from napari_samic.pipeline.predictor import ImagePredictor, with_finetuned_decoder
from napari_samic.pipeline.results.reader import StoredResult, check_plane_files, read_results
from napari_samic.pipeline.results.writer import ResultsWriter, read_tables
from napari_samic.pipeline.runner import BatchRunner, Chained, PlaneResult, PlaneStats, Work
from napari_samic.pipeline.video_predictor import VideoPredictor

AUTO = "auto"
ANNOTATION = "annotation"
"""Input of a result that was not predicted: its labels are those of `annotated`."""
_CHAINED: dict[str, Chained] = {"never": "", "stacks": "planes", "always": "files"}


def segment(
    images: Any,
    *,
    prompter: Path | str,
    out: Path | str,
    annotated: Path | str | None = None,
    model: str | None = None,
    encoder: str | None = None,
    method: str = AUTO,
    device: str = "auto",
    axes: str | None = None,
    series: int | None = None,
    settings: SegmentSettings | None = None,
    peaks: PeakSettings | None = None,
    memory: MemorySettings | None = None,
    strategy: StrategySettings | None = None,
    refine: RefineSettings | None = None,
    rescale: bool = False,
    heatmaps: bool = False,
    overlay: bool = False,
    overwrite: bool = False,
    dask: str | None = None,
) -> Job[common.JobResult]:
    """Segment images with a trained prompter.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
    prompter : Path
        File of `train`; names the segmenter and the normalisation to use.
    out : Path
        Folder for one label TIFF an image, `prompts.json`, `scores.csv`, `ledger.sqlite`. Scores
        tell of each object its score, and how much the references agree about its class in this
        image; the ledger says what made the labels. A run that was stopped is gone on with.
    annotated : Path, optional
        Folder of `annotate`: its images, told by name and pixels, keep their labels, and nothing
        is predicted for them. Without it references are segmented as all images are, and told.
    model, encoder : str, optional
        Where the networks of the training are now, if not where they were: a name or path:FILE.
    method : str
        What says where objects are. auto: the encoder fine-tuned to the references, if the file
        has one, else samic, and masks by the decoder fine-tuned to them, if it has one; samic: the
        references' map; or a method that needs no training, one of `registry.names()`, with the
        references of the file.
    device : str
        auto, cpu, cuda, mps; or openvino: the CPU, with encoders by OpenVINO (extra `openvino`).
    axes : str, optional
        As of `images.open_images`, instead of the files' own.
    series : int, optional
        The one image to take of each file.
    settings : SegmentSettings, optional
    peaks : PeakSettings, optional
        Default: those of the prompter file. Only looked at by samic.
    memory : MemorySettings, optional
        Whether what was found in one image says where to look in the next, with samic only; and
        whether objects are numbered alike through the planes of a stack.
    strategy : StrategySettings, optional
    refine : RefineSettings, optional
    rescale : bool
        Fit a range anew to images of another scale than those of the training; else they fail.
    heatmaps, overlay : bool
        Also write `heatmaps/` and `overlay.png`.
    overwrite : bool
        Do images again that have a result. Without it, a result is kept if it was made of the same
        image by the same prompter and settings, and made again if the image has changed.
    dask : str, optional
        Let the workers of a Dask cluster answer, each image by itself: the address of a scheduler
        whose workers find image and prompter under the same paths, or "local:N" for N processes.

    Returns
    -------
    Job of JobResult
        `figures`: `objects`, `mean_score`, `empty` images. `notices`: what was done again, which
        labels were annotated, and which images are references.

    Raises
    ------
    StaleError
        `out` holds results of another prompter, other settings or other images of these names.
    OutputError
        Another run is writing there, or the disk refuses.
    FormatError
        A damaged or foreign prompter file.
    ModelError
        A segmenter with other weights than at training.
    SettingsError
        An unknown method, options that can't act together, or no cluster where `dask` says.
    """
    check_method(method)
    check_together(method, memory, strategy, refine)
    memory = memory or MemorySettings()
    follows, links = memory.follow != "never", memory.link != "never"
    if dask is not None and (follows or links):
        raise SettingsError("with dask, images are answered by themselves: not with follow or link")
    notices: list[str] = []
    planes = common.open_planes(images, axes=axes, series=series, tell=notices.append)
    header = PrompterHeader.of(prompter)
    chosen = settings or SegmentSettings()
    drawn = AnnotatedImages(annotated, instances=chosen.instances)
    sources = [*(p.path for p in planes), *drawn.files]
    folder = common.results_folder(out, sources, prompter, model, encoder)
    if heatmaps:
        check_plane_files(folder, planes, ".tif")
    name = common.full_name(model or header.model)
    if follows:
        method = registry.TRAINED  # what was fine-tuned was judged on single images
    groups: dict[str, Settings] = {
        "settings": chosen,
        "strategy": strategy or StrategySettings(),
        "refine": refine or RefineSettings(),
    }
    if not (method == AUTO and header.has_finder):
        groups["peaks"] = peaks or header.peaks
    if follows or links:
        groups["memory"] = memory
    reading = {"axes": axes, "series": series}
    run = {**header.run, **reading, "method": method, **{k: v.to_dict() for k, v in groups.items()}}
    normalization = header.normalization
    if rescale:
        normalization = yield from rescaled(folder, planes, normalization)
    with files.claimed(folder), cluster.opened(dask) as remote:
        writer = ResultsWriter(folder, header.model, normalization, run, overwrite=overwrite)
        yield JobProgress(0, len(planes), f"loading {name}")
        sheet = ContactSheet(folder / "overlay.png" if overlay else None)
        make = partial(
            _chosen_predictor,
            Path(prompter).resolve(), header.sha256, chosen, strategy, refine, heatmaps,
            model=model, encoder=encoder, method=method, device=device, peaks=peaks,
        )  # fmt: skip
        chained = _CHAINED[memory.link if links else memory.follow]
        own: Work
        if remote is None:
            predictor = replace(make(), scratch=folder)
            own, workers = _with_memory(predictor, memory), predictor.workers
        else:
            pickled, workers = pickle.dumps(make), 1
            yield from remote.run(cluster.load, pickled)
            own = cluster.RemoteWork(remote, pickled, normalization, axes, series)
        predict = _WithAnnotated(own, drawn, header.references)
        work = ObjectLinker(predict, memory.link) if links else predict
        runner = BatchRunner(
            planes, work, writer, sheet, heatmaps, chained, drawn.inputs, is_strict=True,
            workers=workers, elsewhere=None if remote is None else remote.ahead,
        )  # fmt: skip
        result = yield from runner.run()
    all_notices = (*notices, *result.notices, *drawn.notices, *predict.notices)
    if not (follows or links) and chosen.instances:
        all_notices += _unlinked(result.done, planes)
    return replace(result, figures=_figures(runner.plane_stats), notices=all_notices)


def rescaled(
    folder: Path, planes: Sequence[ImagePlane], trained: Normalization
) -> Job[Normalization]:
    """With a range for images of another scale: of earlier results, or fitted to these. A job."""
    recorded = read_tables(folder).normalization
    earlier = Normalization.from_dict(recorded) if recorded else trained
    if earlier.outside and replace(earlier, outside=trained.outside) == trained:
        return earlier
    return replace(trained, outside=(yield from fit_outside(planes, trained)))


def _unlinked(done: Sequence[str], planes: Sequence[ImagePlane]) -> tuple[str, ...]:
    """Stacks whose planes have numbers of their own, as a volume or a time series may not want."""
    names = set(done)
    stacks = list(
        dict.fromkeys(p.name for p in planes if p.label in names and math.prod(p.stack_shape) > 1)
    )
    if not stacks:
        return ()
    what = "objects are numbered in each plane by itself; link numbers them alike through a stack"
    return (f"{what}: {some(stacks)}.",)


def _with_memory(predictor: ImagePredictor, memory: MemorySettings) -> Work:
    """The predictor, or one that remembers the image before."""
    if memory.follow == "never":
        return predictor
    return VideoPredictor(predictor.prompter, predictor.segmenter, memory, predictor.settings)


class AnnotatedImages:
    """Labels that somebody drew, which take the place of predictions.

    Parameters
    ----------
    folder : Path or None
        Of `annotate`; None: there are none.
    instances : bool
        Labels are to count objects; else they are to be classes.

    Attributes
    ----------
    names : list of str
        Images that have kept their labels so far.
    others : list of str
        Images of such a name with other pixels, so far.
    """

    def __init__(self, folder: Path | str | None, *, instances: bool) -> None:
        results = None if folder is None else read_results(folder)
        stored = results.stored if results is not None else None
        self.names: list[str] = []
        self.others: list[str] = []
        self._instances = instances
        self._results = results
        self._by_label = {r.label: r for r in results.images} if results is not None else {}
        self._normalization = stored.normalization if stored is not None else None
        self._decided: dict[str, bool] = {}
        if instances and any(not r.numbered for r in self._by_label.values()):
            msg = f"{folder}: its labels are classes. Annotate with instances, or segment without."
            raise InputError(msg)

    @property
    def files(self) -> list[Path]:
        """Label files that are read."""
        return [r.plane.path for r in self._by_label.values() if r.plane.path is not None]

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know."""
        count, notices = len(self.names), []
        if count:
            notices.append(
                f"{count} image{'s keep' if count > 1 else ' keeps'} what was annotated."
            )
        if self.others:
            what = "segmented, as their pixels are not those that were annotated"
            notices.append(f"{what}: {some(self.others)}.")
        return tuple(notices)

    def of(self, plane: ImagePlane) -> StoredResult | None:
        """What was drawn on this very image.

        Raises
        ------
        SamicError
            An image or a label file that can't be read.
        """
        result = self._by_label.get(plane.label)
        if result is None:
            return None
        if plane.label not in self._decided:
            self._decided[plane.label] = is_same = self._is_of(result, plane)
            (self.names if is_same else self.others).append(plane.label)
        return result if self._decided[plane.label] else None

    def _is_of(self, result: StoredResult, plane: ImagePlane) -> bool:
        sha256 = result.prompts.sha256 if result.prompts is not None else ""
        if not sha256 or self._normalization is None:
            return result.labels().shape == plane.read().shape[:2]
        image = open_rgb(plane, Normalization.from_dict(self._normalization))
        return sha256 == pixels_sha256(image)

    def inputs(self, plane: ImagePlane) -> Mapping[str, str]:
        """Hash of what was drawn: see `BatchRunner`."""
        if self._results is None or (result := self.of(plane)) is None:
            return {}
        prompts = result.prompts.objects if result.prompts is not None else ()
        points = [(p.points_rc.tolist(), p.is_foreground.tolist(), p.label) for p in prompts]
        drawn = f"{self._results.hash_of(result)} {points} {result.rows}"
        return {ANNOTATION: text_sha256(drawn)}

    def answer(self, plane: ImagePlane) -> PlaneResult | None:
        """The labels of an image as they were drawn; None if they were not."""
        result = self.of(plane)
        if result is None:
            return None
        values, numbers = ranked(result.labels())
        about, prompts = result.label_objects(), result.prompts_by_value()
        objects, scores = [], []
        for number, value in enumerate(values, start=1):
            label, score = about.of(value).label, about.of(value).score
            point = Prompts(inner_maximum(numbers == number)[None], np.array([True]))
            objects.append(replace(prompts.get(value, point), label=label))
            scores.append(1.0 if score is None else score)
        if not self._instances:
            numbers = np.array([0, *(p.label for p in objects)], np.int32)[numbers]
        count = len(objects)
        caption = f"{count} object{'s' * (count != 1)}, as annotated"
        drawn = Segmentation(numbers, np.array(scores, np.float32), tuple(objects))
        return PlaneResult(drawn, caption, numbered=self._instances)


class _WithAnnotated:
    """A `Work` that leaves what was drawn as it is, and notes which images are references.

    Where frames follow each other, those after one that was drawn follow what was drawn.
    """

    def __init__(self, work: Work, drawn: AnnotatedImages, references: frozenset[str]) -> None:
        self._work, self._drawn, self._references = work, drawn, references
        self._predicted: Counter[bool] = Counter()

    def __call__(
        self, plane: ImagePlane, image: Image | LazyImage
    ) -> PlaneResult | Job[PlaneResult]:
        if (result := self._drawn.answer(plane)) is not None:
            if isinstance(self._work, VideoPredictor):
                whole = np.asarray(image)
                return replace(result, numbers=self._work.take(plane, whole, result.result))
            return result
        self._predicted[pixels_sha256(image) in self._references] += 1
        return self._work(plane, image)

    @property
    def notices(self) -> tuple[str, ...]:
        """References whose labels are no annotation."""
        count = self._predicted[True]
        if not count:
            return ()
        are = "images are references" if count > 1 else "image is a reference"
        return (f"{count} {are} of the prompter: labels are predicted, not those annotated.",)


def check_method(method: str) -> None:
    """Raise SettingsError for a method that is not known."""
    methods = (AUTO, registry.TRAINED, *registry.names())
    if method not in methods:
        raise SettingsError(f"method is {method!r}, expected one of {', '.join(methods)}.")


def open_predictor(
    prompter: Path | str,
    *,
    model: str | None = None,
    encoder: str | None = None,
    method: str = AUTO,
    device: str = "auto",
    peaks: PeakSettings | None = None,
    cache: ArrayCache | None = None,
) -> ImagePredictor:
    """Load all that segments one image; parameters and errors are those of `segment`.

    Encoded images are kept in `cache`, by default the user's.
    """
    header = PrompterHeader.of(prompter)
    cache = cache or common.default_cache()
    name = common.full_name(model or header.model)
    segmenter = load_segmenter(name, device=device, cache=cache)
    header.check(segmenter)
    kind = common.full_name(encoder or header.encoder)
    backbone = backbones.build(kind, segmenter, device=device, cache=cache)
    loaded = serialization.load(prompter, backbone)
    if peaks is not None:
        loaded.peaks = peaks
    if device == OPENVINO and loaded.finder is not None:
        loaded.finder.use_openvino()
    if method == registry.TRAINED:
        return ImagePredictor(loaded, segmenter, SegmentSettings())
    if method == AUTO:
        return ImagePredictor(
            loaded, with_finetuned_decoder(segmenter, loaded), SegmentSettings(), loaded.finder
        )
    other = registry.make(method, segmenter, backbone, loaded.references)
    return ImagePredictor(loaded, segmenter, SegmentSettings(), other=other)


def _chosen_predictor(
    prompter: Path,
    sha256: str,
    settings: SegmentSettings,
    strategy: StrategySettings | None,
    refine: RefineSettings | None,
    has_heat_map: bool,
    **networks: Any,
) -> ImagePredictor:
    """The predictor of a run; raises a ModelError if the file is not the one that it began with."""
    if sha256_of(prompter) != sha256:
        raise ModelError(f"{prompter}: is not the file that this run began with. Run again.")
    predictor = open_predictor(prompter, **networks)
    return replace(
        predictor,
        settings=settings,
        strategy=strategy or predictor.strategy,
        refine=refine or predictor.refine,
        has_heat_map=has_heat_map,
    )


def stored_peaks(prompter: Path | str) -> PeakSettings:
    """The peak settings of a prompter file, to change some of them.

    Raises
    ------
    FormatError
        A damaged or foreign prompter file.
    """
    return PrompterHeader.of(prompter).peaks


@dataclass(frozen=True)
class PrompterHeader:
    """What a prompter file asks for."""

    file: str
    sha256: str
    model: str
    model_sha256: str
    encoder: str
    normalization: Normalization
    peaks: PeakSettings
    has_finder: bool
    references: frozenset[str]

    @classmethod
    def of(cls, prompter: Path | str) -> PrompterHeader:
        """Read it; raises a FormatError for a damaged or foreign file."""
        name = Path(prompter).name
        try:
            header = serialization.describe(prompter)
            data = header["normalisation"]
            return cls(
                name,
                sha256_of(Path(prompter)),
                str(data["model"]),
                str(data.get("model_sha256", "")),
                str(header["backbone"]["kind"]),
                Normalization.from_dict(data),
                PeakSettings.from_dict(header["settings"]["peaks"]),
                bool(header.get("growth") and header["growth"]["accepted"]),
                frozenset(header["references"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{name}: lacks what segmenting needs ({error}). Train again with `train`."
            raise FormatError(msg) from error

    @property
    def run(self) -> dict[str, Any]:
        """What it makes of a result; the file holds the hashes of segmenter and encoder, too."""
        return {"job": "segment", "version": __version__, "prompter": self.sha256}

    def check(self, segmenter: Any) -> None:
        """Raise ModelError unless this is the network that the prompter was trained for."""
        sha256 = str(getattr(segmenter, "weights_sha256", ""))
        if self.model_sha256 and sha256 != self.model_sha256:
            msg = (
                f"{self.file}: trained for {self.model} ({self.model_sha256[:12]}), this machine's "
                f"{segmenter.name} is {sha256[:12]}. Train again, or give that file with --model."
            )
            raise ModelError(msg)


def _figures(plane_stats: Sequence[PlaneStats]) -> dict[str, Any]:
    scores = [s for t in plane_stats for s in t.scores]
    return {
        "objects": len(scores),
        "mean_score": float(np.mean(scores)) if scores else 0.0,
        "empty": sum(not t.scores for t in plane_stats),
    }
