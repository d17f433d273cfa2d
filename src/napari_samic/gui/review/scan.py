"""The job that reads all results of a project and says what is to be said of each.

Must not know Qt or napari; what is heavy is imported inside, so in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_samic.core.errors import SamicError
from napari_samic.core.label_objects import cutouts, ranked
from napari_samic.core.types import Job, JobProgress, Prompts
from napari_samic.evaluation.quality import QualityFlag, ResultFeatures, rank_outliers
from napari_samic.io.text_files import sha256_of
from napari_samic.ops import shape

if TYPE_CHECKING:
    from napari_samic.gui.data.materialize import Drawing
    from napari_samic.gui.state.image_annotation import ImageAnnotation
    from napari_samic.pipeline.results.reader import StoredResult, StoredResults


@dataclass(frozen=True, eq=False)
class ScannedResults:
    """What a folder of results holds.

    Attributes
    ----------
    results : StoredResults
    facts : dict of str to ResultFeatures
        By name; images that can't be read are not there.
    hashes : dict of str to str
        Of the label files.
    order : tuple of QualityFlag
        The most doubtful first.
    models : tuple of ResultFeatures
        Of the references, as far as they are known.
    notices : tuple of str
        What is no longer as it was when the labels were made.
    annotated : frozenset of str
        Results that the user drew: nothing was predicted for them.
    """

    results: StoredResults
    facts: Mapping[str, ResultFeatures]
    hashes: Mapping[str, str]
    order: tuple[QualityFlag, ...] = ()
    models: tuple[ResultFeatures, ...] = ()
    notices: tuple[str, ...] = ()
    annotated: frozenset[str] = frozenset()

    def is_same(self, name: str, sha256: str) -> bool:
        """Whether the label file of a result had this hash."""
        return bool(sha256) and self.hashes.get(name) == sha256


def scan_results(
    folder: Path,
    references: Path | None = None,
    previous: ScannedResults | None = None,
    may: Callable[[Path], bool] = lambda _: True,
    judged: Collection[str] = (),
) -> Job[ScannedResults]:
    """Read all results, and say what is to be said of each.

    Parameters
    ----------
    folder : Path
    references : Path, optional
        What `annotate` made of the references: says what objects are like.
    previous : ScannedResults, optional
        What was read before: label files that are the same are not measured again.
    may : callable
        Whether an image may be looked at; see `trusted_files.allowing`.
    judged : collection of str
        Images whose labels stay as they are, whichever run they are of.
    """
    from napari_samic.pipeline.results.reader import read_results, staleness_notices
    from napari_samic.pipeline.segment import ANNOTATION

    results = read_results(folder)
    notices = yield from staleness_notices(results, quick=True, judged=judged, may_read=may)
    facts: dict[str, ResultFeatures] = {}
    files: dict[Path, str] = {}
    hashes: dict[str, str] = {}
    for done, result in enumerate(results.images):
        yield JobProgress(done, len(results.images), result.label)
        path = result.plane.path
        try:
            if path is not None and path not in files:
                files[path] = sha256_of(path)
            of = files.get(path, "") if path is not None else ""
            name, before = result.label, None
            if previous and previous.is_same(name, of):
                before = previous.facts.get(name)
            facts[name] = _facts(result) if before is None else _with_table_facts(before, result)
            hashes[name] = of
        except SamicError:
            continue
    numbered = all(result.numbered for result in results.images)  # else a size is that of a class
    models = _models(references) if references is not None and numbered else ()
    made = results.provenance
    annotated = frozenset(
        name for name in facts if name in made and ANNOTATION in made[name].inputs
    )
    undecided = [of for name, of in facts.items() if name not in annotated or name in judged]
    order = tuple(rank_outliers(undecided, models))
    return ScannedResults(results, facts, hashes, order, models, notices, annotated)


def drawn_names(
    scanned: ScannedResults, drawing: Drawing, judged: Collection[str]
) -> frozenset[str]:
    """Results that stand for what the user drew, by the run or since; verdicts count more."""
    stored = scanned.results.stored
    normalization = stored.normalization if stored is not None else None
    now = {
        result.label
        for result in scanned.results.images
        if (annotation := drawing.annotations.get(result.label)) is not None
        and _is_of(annotation, result, normalization)
    }
    return (scanned.annotated | now) - frozenset(judged)


def _is_of(annotation: ImageAnnotation, result: StoredResult, normalization: Any) -> bool:
    """Whether a result is of the annotated image, not of another one of its name."""
    if result.prompts is None or annotation.shape != result.prompts.shape:
        return result.prompts is None
    hashes = {annotation.sha256, result.prompts.sha256}
    return len(hashes) == 1 or "" in hashes or annotation.normalization != normalization


def changed_drawings(
    scanned: ScannedResults, drawing: Drawing, names: Collection[str]
) -> Job[list[str]]:
    """Those of `drawn_names` whose result is not what is drawn now."""
    changed = []
    for done, result in enumerate(r for r in scanned.results.images if r.label in names):
        yield JobProgress(done, len(names), result.label)
        annotation = drawing.annotations.get(result.label)
        if annotation is None or not _shows(result, annotation):
            changed.append(result.label)
    return changed


def _shows(result: StoredResult, annotation: ImageAnnotation) -> bool:
    """Whether labels are the masks that are shown; of those not looked at yet, their prompts."""
    items = [item for item in annotation.items if item.is_askable]
    if all(item.answer is not None for item in items):
        return np.array_equal(ranked(result.labels())[1], ranked(annotation.labels())[1])
    asked = result.prompts.objects if result.prompts is not None else ()
    return [_plain(p) for p in asked] == [_plain(item.prompts()) for item in items]


def _plain(prompts: Prompts) -> tuple[Any, ...]:
    box = None if prompts.box_rc is None else prompts.box_rc.tolist()
    return prompts.points_rc.tolist(), prompts.is_foreground.tolist(), box, prompts.label


def _models(references: Path) -> tuple[ResultFeatures, ...]:
    """Facts of the references; none if they are not there, or are classes."""
    from napari_samic.pipeline.results.reader import read_results

    try:
        numbered = [result for result in read_results(references).images if result.numbered]
    except SamicError:
        return ()
    models = []
    for result in numbered:
        with suppress(SamicError):
            models.append(_facts(result))
    return tuple(models)


def _facts(result: StoredResult) -> ResultFeatures:
    if result.is_large:  # by the tables alone
        sizes = sorted(float(row["area_px"]) for row in result.rows if row.get("area_px"))
        median = sizes[(len(sizes) - 1) // 2] if sizes else 0.0
        facts = ResultFeatures(result.label, None, len(result.rows), median)
        return replace(_with_table_facts(facts, result), largest_px=max(sizes, default=0.0))
    labels = result.labels()
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    size = float(np.sort(areas)[(len(areas) - 1) // 2]) if len(areas) else 0.0
    facts = _with_table_facts(ResultFeatures(result.label, None, len(areas), size), result)
    if not result.numbered or not len(areas):
        return facts
    objects = list(cutouts(labels))
    return replace(
        facts,
        largest_px=float(areas.max()),
        solidity=min(shape.solidity(cut.inside) for cut in objects),
        pieces=max(shape.pieces(cut.inside) for cut in objects),
        border=max(shape.border_share(cut, labels.shape) for cut in objects),
    )


def _with_table_facts(facts: ResultFeatures, result: Any) -> ResultFeatures:
    """With what the tables of the run tell."""
    agreed = [float(row["agreement"]) for row in result.rows if row.get("agreement")]
    score = result.score if facts.count else None
    return replace(facts, score=score, agreement=float(np.mean(agreed)) if agreed else None)
