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
from napari_samic.core.label_objects import cutouts
from napari_samic.core.types import Job, JobProgress
from napari_samic.evaluation.quality import QualityFlag, ResultFeatures, rank_outliers
from napari_samic.io.text_files import sha256_of
from napari_samic.ops import shape

if TYPE_CHECKING:
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
    """

    results: StoredResults
    facts: Mapping[str, ResultFeatures]
    hashes: Mapping[str, str]
    order: tuple[QualityFlag, ...] = ()
    models: tuple[ResultFeatures, ...] = ()
    notices: tuple[str, ...] = ()

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
    order = tuple(rank_outliers(list(facts.values()), models))
    return ScannedResults(results, facts, hashes, order, models, notices)


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
