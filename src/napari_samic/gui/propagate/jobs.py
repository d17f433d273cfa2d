"""The jobs of the Propagate step: a slice as a preview, then all the others.

The same `pipeline.segment` does both, so the masks are those of `napari-samic segment`. Must not
know Qt or napari. torch is imported inside, so in the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_samic import recipes
from napari_samic.core.errors import InputError, StaleError
from napari_samic.core.settings import (
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
    check_together,
)
from napari_samic.core.types import (
    HeatMap,
    Image,
    ImagePlane,
    Job,
    JobProgress,
    LazyImage,
    Segmentation,
    map_progress,
)
from napari_samic.gui.data import trusted_files
from napari_samic.gui.data.lazy_layers import levels
from napari_samic.gui.data.materialize import Drawing, write_drawing
from napari_samic.gui.data.result_files import LabelFiles, large_labels, read_result
from napari_samic.gui.session.notices import in_words
from napari_samic.io.normalize import Normalization, fit_normalization, open_rgb
from napari_samic.io.paths import list_source, stem_of
from napari_samic.models.prompters import registry

if TYPE_CHECKING:
    from napari_samic.pipeline import JobResult
    from napari_samic.pipeline.predictor import ImagePredictor

Stamp = tuple[str, int, int]
_TICK = "Tick 'Do again what has a result' to replace them."


def stamp_of(file: Path) -> Stamp | None:
    """Tells one prompter from the next; None if there is no file."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return str(file), stat.st_mtime_ns, stat.st_size


@dataclass(frozen=True)
class SegmentOptions:
    """What `pipeline.segment` takes beside files, under its names.

    Attributes
    ----------
    peaks : PeakSettings or None
        None: those of the prompter.
    """

    method: str = "auto"
    settings: SegmentSettings = field(default_factory=SegmentSettings)
    peaks: PeakSettings | None = None
    memory: MemorySettings = field(default_factory=MemorySettings)
    strategy: StrategySettings = field(default_factory=StrategySettings)
    refine: RefineSettings = field(default_factory=RefineSettings)
    rescale: bool = False

    @property
    def follows(self) -> bool:
        """Whether one slice says where to look in the next."""
        return self.memory.follow != "never"

    @property
    def is_chained(self) -> bool:
        """Whether slices belong together: they follow each other, or their objects are linked."""
        return self.follows or self.memory.link != "never"

    def check(self) -> None:
        """Raise SettingsError for options that would have no effect beside others."""
        check_together(self.method, self.memory, self.strategy, self.refine)


@dataclass(frozen=True, eq=False)
class LoadedPredictor:
    """A prompter that is loaded, with its segmenter; one thread at a time may use it."""

    stamp: Stamp
    method: str
    rescale: bool
    worker: ImagePredictor
    normalization: Normalization
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class ImagePreview:
    """What a prompter sees in an image: all that takes long, whatever the settings are."""

    label: str
    image: Image | LazyImage
    seen: Any


@dataclass(frozen=True, eq=False)
class Preview:
    """What `segment` would make of one slice.

    Attributes
    ----------
    result : Segmentation
        With the heat map, unless it is of a large image, and, as `objects`, the predicted points.
    levels : list or None
        Its labels as napari shows them, of a large image; see `lazy_layers.levels`.
    """

    label: str
    result: Segmentation
    levels: list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PreviewStep(JobProgress):
    """A step that brings what was loaded and seen, to be given back next time."""

    predictor: LoadedPredictor
    features: ImagePreview | None = None
    heat: HeatMap | None = None


@dataclass(frozen=True, kw_only=True)
class FilesStep(JobProgress):
    """A step that brings the names of the images that a run is to do."""

    names: frozenset[str]


def read_peaks(file: Path) -> Job[PeakSettings]:
    """The peak settings that a prompter was trained with."""
    yield JobProgress(0, 1, file.name)
    from napari_samic.pipeline.segment import stored_peaks

    return stored_peaks(file)


def preview(
    file: Path,
    plane: ImagePlane,
    options: SegmentOptions,
    *,
    stack: Sequence[ImagePlane] = (),
    results: Path | None = None,
    predictor: LoadedPredictor | None = None,
    features: ImagePreview | None = None,
    scratch: Path | None = None,
) -> Job[Preview]:
    """Segment one slice by itself, also where a run would follow objects from the one before.

    `PreviewStep`s bring the heat map and what is to be given back: a predictor serves its method
    only. A large slice is done tile by tile, with a step for each, and nothing is given back of it;
    where it is read part by part, its labels are held in a file without a name in `scratch`.
    With `rescale` the range is that of the `results`, or fitted to the `stack`, as a run does.
    """
    yield JobProgress(0, 3, "loading the prompter" if predictor is None else "")
    if predictor is None:
        predictor = yield from _open(file, options, stack, results)
        yield PreviewStep(0, 3, "looking at the slice", predictor=predictor)
    worker = replace(
        predictor.worker,
        settings=options.settings,
        strategy=options.strategy,
        refine=options.refine,
    )
    image = _read(predictor, plane) if features is None else features.image
    if worker.tile_side(image.shape) is not None:
        is_lazy = isinstance(image, LazyImage)
        worker = replace(worker, scratch=scratch, has_heat_map=not is_lazy)
        with predictor.lock:
            result = yield from worker.segment_job(image, options.peaks)
        return Preview(plane.label, result, levels(result.labels) if is_lazy else None)
    image = np.asarray(image)
    if features is None:
        with predictor.lock:
            features = ImagePreview(plane.label, image, worker.extract_features(image))
    heat = worker.heat_map(features.seen, image.shape)
    yield PreviewStep(1, 3, "drawing masks", predictor=predictor, features=features, heat=heat)
    with predictor.lock:
        return Preview(plane.label, worker.predict_masks(image, features.seen, peaks=options.peaks))


def methods() -> dict[str, str]:
    """Every method, and a line that says how it looks for objects."""
    own = {
        "auto": "the network fine-tuned to the references, if there is one, else samic",
        registry.TRAINED: "the references' map, as in the paper",
    }
    others = {name: registry.METHODS.get(name) for name in registry.names()}
    return own | {
        name: spec.help if spec else "of another package" for name, spec in others.items()
    }


def method_of(options: SegmentOptions) -> str:
    """The method that acts: what follows looks at the references' map."""
    return registry.TRAINED if options.follows else options.method


def _open(
    file: Path, options: SegmentOptions, stack: Sequence[ImagePlane], results: Path | None
) -> Job[LoadedPredictor]:
    from napari_samic.pipeline.segment import open_predictor, rescaled

    stamp = stamp_of(file)  # before reading: a file that changes meanwhile is read again
    if stamp is None:
        raise InputError(f"{file}: no prompter. Train one first.")
    method = method_of(options)
    worker = open_predictor(file, method=method)
    normalization = worker.normalization
    if options.rescale and results is not None:
        normalization = yield from rescaled(results, stack, normalization)
    return LoadedPredictor(stamp, method, options.rescale, worker, normalization)


def _read(predictor: LoadedPredictor, plane: ImagePlane) -> Image | LazyImage:
    try:
        return open_rgb(plane, predictor.normalization, is_strict=True)
    except InputError as error:
        raise InputError(in_words(str(error))) from error


@dataclass(frozen=True)
class PropagateRequest:
    """What is to be done, whichever images it is done to.

    What is drawn on some of them stays: it is kept in a folder in `annotated`.
    """

    prompter: Path
    recipe: Path
    options: SegmentOptions
    drawing: Drawing
    annotated: Path
    anew: bool = False


def of_folder(folder: Path) -> Job[list[Path]]:
    """Images of a folder that the user chose, so it may be opened from later."""
    yield JobProgress(0, 0, f"looking into {folder.name}", {"phase": "files"})
    images = list_source(folder)
    trusted_files.remember(images)
    return images


def propagate(
    images: Job[list[Path]], results: LabelFiles, request: PropagateRequest
) -> Job[JobResult]:
    """Segment all images but those that have a result, and those that are protected.

    A file with several images is passed over if one that is protected might be done again. Where
    one is large, no heat maps are written: they would be held as a whole.

    Parameters
    ----------
    images : Job of list of Path
        As `Session.images` and `of_folder` make it.
    results : LabelFiles
    request : PropagateRequest
        With `anew`, results that are not protected are set aside first.

    Raises
    ------
    InputError
        Nothing is left to be done; a result of the same name is of another image; or earlier
        results are of another model, normalisation, prompter or settings, and `anew` is off.
    """
    paths = yield from images
    names, has_large = yield from _names_of(paths)
    keep = results.protected()
    from napari_samic import pipeline
    from napari_samic.pipeline.results.ledger import settle

    todo = [p for p in paths if _is_free(names[p], results, keep, anew=request.anew)]
    if not todo:
        msg = "every image is accepted or edited, or in a file with such a one: nothing is left"
        raise InputError(f"{msg} to propagate to.")
    annotated = yield from _drawn(todo, names, request)
    every = frozenset(name for path in paths for name in names[path])
    yield FilesStep(0, len(todo), names=every)
    results.check_names({path: names[path] for path in todo})
    foreign = _is_foreign(results, request)
    if foreign and not request.anew:
        raise InputError(f"the results are of another model or other colours. {_TICK}")
    if request.anew:
        settle(results.folder)
        results.set_aside((name for path in todo for name in names[path]), tables=foreign)
    job = recipes.recorded(pipeline.segment, request.recipe)(
        todo,
        prompter=request.prompter,
        out=results.folder,
        annotated=annotated,
        heatmaps=not has_large,
        **{spec.name: getattr(request.options, spec.name) for spec in fields(SegmentOptions)},
    )
    try:
        outcome = yield from map_progress(job, _brief)
    except StaleError as error:
        raise InputError(in_words(f"there are {error.why}. {_TICK}")) from error
    kept = sum(len(names[path]) for path in set(paths) - set(todo))
    if not kept:
        return outcome
    how = "with the numbers of their objects" if request.options.is_chained else "as they are"
    notice = f"accepted or edited, so left {how}: {kept} image{'s' * (kept != 1)}."
    return replace(outcome, notices=(*outcome.notices, notice))


def _drawn(
    paths: Sequence[Path], names: Mapping[Path, Names], request: PropagateRequest
) -> Job[Path | None]:
    """Keep what is drawn on images of some files; None if nothing is."""
    from napari_samic.models.samic import serialization
    from napari_samic.pipeline.common import planes_of

    drawn = set(request.drawing.annotations)
    planes = [
        plane
        for path in paths
        if any(not drawn.isdisjoint(labels) for labels in names[path].values())
        for plane in planes_of(path)
    ]
    header = serialization.describe(request.prompter)["normalisation"] or {}
    if not planes or "model" not in header:
        return None  # of a prompter that lacks something `segment` says so
    normalization = Normalization.from_dict(header)
    return (yield from write_drawing(request.drawing, planes, normalization, request.annotated))


Names = dict[str, list[str]]
"""What the results of a file's images will be called, and the labels of their planes."""


def _names_of(paths: Sequence[Path]) -> Job[tuple[dict[Path, Names], bool]]:
    """As `segment` will call them: one file may hold several images. And whether one is large."""
    from napari_samic.pipeline.common import groups, planes_of

    out: dict[Path, Names] = {}
    has_large = False
    for done, path in enumerate(paths):
        yield JobProgress(done, len(paths), "looking into the files", {"phase": "files"})
        planes = planes_of(path)
        has_large = has_large or any(plane.is_large for plane in planes)
        out[path] = {name: [p.label for p in of] for name, of in groups(planes)}
    return out, has_large


def _is_free(names: Names, results: LabelFiles, keep: set[str], *, anew: bool) -> bool:
    """Whether a file has something to be done, and nothing of `keep` that would be done again."""
    free = [name for name, labels in names.items() if keep.isdisjoint([name, *labels])]
    if len(free) == len(names):
        return True
    return not anew and any(not results.file(name).is_file() for name in free)


def _brief(step: JobProgress) -> JobProgress:
    """Without what is said of an image: it would push rate and time left out of napari's bar."""
    return replace(step, message="") if {"plane", "skipped"} & step.data.keys() else step


def _is_foreign(results: LabelFiles, request: PropagateRequest) -> bool:
    """Whether `segment` would refuse to add to the earlier results."""
    from napari_samic.models.samic import serialization

    earlier = results.tables()
    header = serialization.describe(request.prompter)["normalisation"] or {}
    if earlier is None or "model" not in header:
        return False  # a prompter that lacks something: `segment` says so
    mine, before = Normalization.from_dict(header).to_dict(), earlier.normalization or {}
    if request.options.rescale:
        before = {key: value for key, value in before.items() if key != "outside"}
    return before != mine or earlier.model != header["model"]


@dataclass(frozen=True, eq=False)
class FolderImage:
    """An image of a folder with its labels, as napari shows them: a large one as levels."""

    label: str
    image: Any
    labels: Any


def open_folder_image(paths: Sequence[Path], label: str, results: LabelFiles) -> Job[FolderImage]:
    """Read one image of a folder, and what is shown of its results.

    Raises
    ------
    InputError
        An image or a result that can't be read.
    """
    from napari_samic.pipeline.common import planes_of

    yield JobProgress(0, 1, label)
    near = [path for path in paths if f"{label}[".startswith(f"{stem_of(path)}[")]
    plane = next((p for path in near for p in planes_of(path) if p.label == label), None)
    if plane is None:
        raise InputError(f"{label}: no longer in its folder.")
    image = open_rgb(plane, fit_normalization([plane]))
    result_path = results.current_file(plane.name) or results.file(plane.name)
    if isinstance(image, LazyImage):
        return FolderImage(label, levels(image), large_labels(result_path, image.shape[:2]))
    return FolderImage(label, image, read_result(result_path, plane, image.shape))
