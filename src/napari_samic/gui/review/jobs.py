"""The jobs of Review: showing a result, asking again, keeping edits, accepting, scoring.

Reading all of them is in `scan`.

Thin generators over the core, each run by `runner.jobs`. Must not know Qt or napari; what is heavy
is imported inside, so in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.types import (
    Image,
    IntArray,
    Job,
    JobProgress,
    LazyImage,
    Prompts,
    Segmenter,
)
from napari_samic.evaluation.quality import QualityFlag, suggest_next_image
from napari_samic.gui.data.lazy_layers import levels
from napari_samic.gui.data.project import frozen
from napari_samic.gui.data.result_files import large_labels
from napari_samic.gui.review.result import ReviewedResult
from napari_samic.gui.review.scan import ScannedResults
from napari_samic.gui.review.verdicts import Edit, ReviewDecision
from napari_samic.gui.state.objects import Box
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts
from napari_samic.io.reviews import save_review
from napari_samic.io.text_files import sha256_of
from napari_samic.io.writers import write_labels

if TYPE_CHECKING:
    from napari_samic.pipeline.results.reader import StoredResult

Read = Callable[[], Image | LazyImage]


def fetch(
    result: StoredResult, edit: Edit | None, edits: Path, read: Read | None
) -> Job[tuple[ReviewedResult, Any]]:
    """Read one result, edited or not; and its image (None: it is open already).

    Those of a large image come as levels.
    """
    yield JobProgress(0, 1, result.label)
    from napari_samic.io import masks

    image: Any = read() if read is not None else None
    if isinstance(image, LazyImage):
        image = levels(image)
    if result.is_large and result.plane.kind is not None:
        file = edits / edit.file if edit is not None else result.plane.path
        return _large(result, edit, large_labels(Path(file or ""), result.plane.kind[0])), image
    objects, prompts = result.label_objects(), result.prompts_by_value()
    points = tuple(
        (n, (float(r), float(c), bool(sign)))
        for n, p in prompts.items()
        for (r, c), sign in zip(p.points_rc, p.is_foreground, strict=True)
    )
    boxes = {n: tuple(map(float, p.box_rc)) for n, p in prompts.items() if p.box_rc is not None}
    reviewed = ReviewedResult(
        result.label,
        objects.labels,
        objects.about,
        points,
        boxes,  # type: ignore[arg-type]
        objects.numbered,
    )
    if edit is None:
        return reviewed, image
    labels = masks.read_labels(edits / edit.file)
    if labels.shape != reviewed.labels.shape:
        raise InputError(
            f"{edit.file}: {labels.shape} for {result.label} of {reviewed.labels.shape}."
        )
    kept = replace(
        reviewed,
        labels=labels,
        about=edit.objects,
        points=edit.points,
        boxes={n: box for n, box in reviewed.boxes.items() if n in edit.objects},
    )
    return kept, image


def _large(result: StoredResult, edit: Edit | None, labels: list[Any]) -> ReviewedResult:
    """A result that is only looked at, without the points of what may be 100,000 objects."""
    boxes: dict[int, Box] = {}
    for number, prompts in result.prompts_by_value().items():
        box = () if prompts.box_rc is None else prompts.box_rc
        corners = [*prompts.points_rc, *np.reshape(box, (-1, 2))]
        (top, left), (bottom, right) = np.min(corners, axis=0), np.max(corners, axis=0)
        boxes[number] = (float(top), float(left), float(bottom), float(right))
    about = result.records() if edit is None else edit.objects
    return ReviewedResult(result.label, labels[0], about, (), boxes, result.numbered, levels=labels)


def read_painted(path: Path) -> Job[Any]:
    """Read labels that were painted in the Propagate step."""
    from napari_samic.io import masks

    yield JobProgress(0, 1, path.stem)
    return masks.read_labels(path)


def read_file(result: StoredResult, stored: PromptFile | None) -> Image | LazyImage:
    """The image of a result from its file, (H, W, 3) uint8; a large one is read part by part.

    Raises
    ------
    InputError
        It is not there any more, or can't be read.
    """
    from napari_samic.io.normalize import Normalization, fit_normalization, open_rgb
    from napari_samic.pipeline.common import planes_of

    planes = planes_of(Path(result.image_file))
    matches = [p for p in planes if p.label == result.label]
    if not matches:
        raise InputError(f"{result.label}: not in {result.image_file}. Open the image in napari.")
    if stored is not None and stored.normalization:
        return open_rgb(matches[0], Normalization.from_dict(stored.normalization))
    return open_rgb(matches[0], fit_normalization(matches))


def redo(
    segmenter: Segmenter, read: Read, wanted: Mapping[int, Prompts]
) -> Job[dict[int, tuple[NDArray[np.bool_], float]]]:
    """Ask for some objects again: the surest mask of each."""
    yield JobProgress(0, len(wanted), "mask")
    image = np.asarray(read())
    candidates = segmenter.candidates(image, list(wanted.values()), multimask=True)
    return {
        number: (candidate.masks[candidate.best], float(candidate.scores[candidate.best]))
        for number, candidate in zip(wanted, candidates, strict=True)
    }


def keep_edit(path: Path, labels: IntArray) -> Job[str]:
    """Write labels over our own earlier ones; gives the hash of the file."""
    yield JobProgress(0, 1, path.name)
    write_labels(path, labels, overwrite=True)
    return sha256_of(path)


# --- accepting


@dataclass(frozen=True)
class Frozen:
    """Files that an `accept` step names; they are not written to again."""

    review: Path
    edits: Path | None
    prompts: Path | None


def freeze(
    folder: Path,
    decisions: Mapping[str, ReviewDecision],
    edits: Path,
    scanned: ScannedResults,
    classes: Mapping[int, str],
) -> Job[Frozen]:
    """Copy verdicts and edits to `folder`/N: see `project.frozen`."""
    yield JobProgress(0, 1, "keeping the review")
    last = frozen(folder, lambda place: _write(place, decisions, edits, scanned, classes))
    inside = last / "edits"
    prompts = last / "prompts.json"
    return Frozen(last / "review.json", inside if inside.is_dir() else None, prompts)


def _write(
    target: Path,
    decisions: Mapping[str, ReviewDecision],
    edits: Path,
    scanned: ScannedResults,
    classes: Mapping[int, str],
) -> None:
    verdicts = {
        name: v for name, decision in decisions.items() if (v := decision.to_verdict()) is not None
    }
    save_review(target / "review.json", verdicts)
    by_name = {result.label: result for result in scanned.results.images}
    images = []
    for name, verdict in verdicts.items():
        edit = decisions[name].edit
        if not verdict.file or edit is None or name not in by_name:
            continue
        (target / "edits").mkdir(exist_ok=True)
        (target / "edits" / verdict.file).write_bytes((edits / verdict.file).read_bytes())
        if (entry := _prompts(by_name[name], edit)) is not None:
            images.append(entry)
    save_prompts(target / "prompts.json", PromptFile(tuple(images), "", None, dict(classes)))


def _prompts(result: StoredResult, edit: Edit) -> ImagePrompts | None:
    """The moved points, as prompts."""
    if result.prompts is None:
        return None
    empty = np.zeros((1, 1), np.int32)
    reviewed = ReviewedResult(result.label, empty, edit.objects, edit.points)
    numbers = [n for n in edit.objects if reviewed.is_askable(n)]
    scores = tuple(edit.objects[n].score or 0.0 for n in numbers)
    objects = tuple(reviewed.prompts(n) for n in numbers)
    return ImagePrompts(
        result.label, result.prompts.file, result.prompts.shape, "", objects, scores
    )


# --- scoring and suggesting


def score(
    scanned: ScannedResults,
    truths: Mapping[str, Callable[[], NDArray[Any]]],
    decisions: Mapping[str, ReviewDecision],
    edits: Path,
) -> Job[tuple[dict[str, dict[str, float]], dict[str, float], str]]:
    """Score results, edited or not, against ground truth: of each image, of all, and a line.

    What the values of the truth mean is decided from all of it, as `evaluate` does it; the line
    says so.

    Raises
    ------
    InputError
        They could mean this or that, or no result is of the truth's size.
    """
    from napari_samic.evaluation.matching import as_instances
    from napari_samic.evaluation.metrics import image_scores, summarize
    from napari_samic.io import masks
    from napari_samic.io.mask_values import ADVICE, describe, infer_meaning

    judged = [result for result in scanned.results.images if result.label in truths]
    held = []
    for done, result in enumerate(judged):
        yield JobProgress(done, 2 * len(judged), result.label)
        truth = masks.whole_numbers(np.asarray(truths[result.label]()), result.label)
        held.append(masks.count_values(truth, result.label))
    try:
        values = infer_meaning(held)
    except InputError as error:
        fault = str(error).removesuffix(ADVICE)
        raise InputError(
            f"{fault}Choose a layer of numbers of objects, 0 where none is."
        ) from error
    rows: dict[str, dict[str, float]] = {}
    for done, result in enumerate(judged, start=len(judged)):
        yield JobProgress(done, 2 * len(judged), result.label)
        edit = decisions.get(result.label, ReviewDecision()).edit
        labels = result.labels() if edit is None else masks.read_labels(edits / edit.file)
        truth = masks.whole_numbers(np.asarray(truths[result.label]()), result.label)
        if truth.shape == labels.shape and truth.any():
            wanted, void = values.applied(truth, result.label)
            rows[result.label] = image_scores(labels, as_instances(wanted), void=void)
    if not rows:
        msg = "no result has its place in this layer. Choose labels of the size of the images."
        raise InputError(msg)
    line = f"truth: {describe(values, held)}." + " Void is not scored." * bool(values.void)
    return rows, summarize(list(rows.values())), line


def advise(
    segmenter: Segmenter,
    readers: Mapping[str, Read],
    annotated: Sequence[str],
    order: Sequence[QualityFlag],
) -> Job[str]:
    """Which image would teach most: doubtful, and least like the references.

    Raises
    ------
    InputError
        No image is left to choose from, or the model can't show what it sees.
    """
    see = getattr(segmenter, "embedding", None)
    value = {flag.name: flag.value for flag in order}
    rest = [name for name in readers if name not in annotated and name in value]
    if not rest:
        raise InputError("every image is annotated already, or none of them is open in napari.")
    if see is None:
        raise InputError(f"{segmenter.name} can't show what it sees. Choose another model.")
    features = {}
    everything = [*rest, *(name for name in annotated if name in readers)]
    for done, name in enumerate(everything):
        yield JobProgress(done, len(everything), name)
        embedding = see(np.asarray(readers[name]()))  # (D, h, w)
        features[name] = embedding.reshape(len(embedding), -1).mean(1)
    seen = [features[name] for name in everything[len(rest) :]]
    own = np.array([features[name] for name in rest])
    others = np.array(seen) if seen else np.zeros((0, own.shape[1]))
    return rest[suggest_next_image(own, others, [value[name] for name in rest])[0]]
