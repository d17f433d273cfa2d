"""Predictions against ground truth, files matched by stem."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from napari_samic.core.errors import InputError, SamicError, SettingsError
from napari_samic.core.types import ImagePlane, Job, JobProgress, map_progress
from napari_samic.evaluation.matching import as_instances
from napari_samic.evaluation.metrics import image_scores, summarize
from napari_samic.io import files as io_files
from napari_samic.io import masks, writers
from napari_samic.io import paths as io_paths
from napari_samic.io.mask_values import ADVICE, MaskValues
from napari_samic.pipeline import cluster, common
from napari_samic.pipeline.lookahead import Begun, Lookahead, counted

Scores: TypeAlias = dict[str, float]


def evaluate(
    *,
    predictions: Path | str,
    truth: Path | str,
    mask_values: str | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    dask: str | None = None,
) -> Job[common.JobResult]:
    """Score label files against ground truth.

    Parameters
    ----------
    predictions, truth : Path
        Folders (or globs); a prediction `a.tif` is scored against `a.png`, `a_mask.tif` and so on.
        Truth without a prediction is left out and counted in `unscored`. What the values of the
        predictions mean is decided from all of them, too; results of ours are numbers of objects.
    mask_values : str, optional
        What the values of the truth mean, as `mask_values.parse_mask_values` takes it; else it is
        decided from all of them. Void is not scored.
    out : Path, optional
        JSON file for the figures.
    overwrite : bool
        Replace `out`.
    dask : str, optional
        Let the workers of a Dask cluster score: the address of a scheduler whose workers find both
        folders under the same paths, or "local:N" for N processes. What values mean is looked at
        here.

    Returns
    -------
    Job of JobResult
        `figures`: `miou`, `dice`, `n`, boundary and object figures, `images` with those of each.

    Raises
    ------
    InputError
        No predictions, or none that has a truth, or truth that could mean this or that, or `out`
        has the ending of an image or is a table of the predictions.
    SettingsError
        No cluster where `dask` says.
    """
    target = Path(out) if out is not None else None
    if target is not None:
        tables = [Path(predictions) / name for name in common.TABLES]
        common.check_result_file(target, predictions, truth, tables)
        io_files.check_free(target, overwrite=overwrite)
    notices: list[str] = []
    pairs, planes = _pairs(predictions, truth, notices.append)
    yield JobProgress(0, len(planes), "looking at the truth")
    meaning = yield from masks.meaning_of(pairs.values(), mask_values)
    notices.append(meaning.line + " Void is not scored." * bool(meaning.values.void))
    prediction_values = yield from _meaning_of_predictions(planes, notices.append)
    rows: dict[str, Scores] = {}
    failures: dict[str, str] = {}
    with cluster.opened(dask) as remote:

        def begin(plane: ImagePlane) -> Begun[Scores]:
            about = (pairs[plane.label].absolute(), prediction_values, meaning.values)
            if remote is None:
                return Begun(plane, answer=_scores(plane, *about))
            path = cluster.path_of(plane)
            return Begun(plane, job=remote.run(_scores_at, path, plane.label, *about))

        ahead = Lookahead(planes, begin, 1, None if remote is None else remote.ahead)
        with closing(ahead):
            for i, plane in enumerate(planes):
                count = partial(counted, i, len(planes))
                try:
                    begun = yield from map_progress(ahead.answer(plane), count)
                    assert begun.answer is not None
                    rows[plane.label] = begun.answer
                    message = f"{plane.label}: IoU {rows[plane.label]['iou']:.3f}"
                except SettingsError:  # no worker is left
                    raise
                except SamicError as error:
                    failures[plane.label] = message = common.reason(plane, error)
                yield JobProgress(i + 1, len(planes), message)
    if not rows:
        raise InputError(f"nothing scored: {next(iter(failures.values()))}")
    figures = {
        **summarize(list(rows.values())),
        "median_iou": float(np.median([r["iou"] for r in rows.values()])),
        "n": len(rows),
        "unscored": _unscored(truth, set(pairs.values())),
        "images": rows,
    }
    if target is not None:
        writers.write_json(target, figures, overwrite=overwrite)
    return common.JobResult(target, tuple(rows), (), failures, figures, notices=tuple(notices))


def _scores(
    plane: ImagePlane, truth: Path, prediction_values: MaskValues, truth_values: MaskValues
) -> Scores:
    """Figures of one prediction."""
    predicted = masks.read_labels(plane, values=prediction_values)
    labels, void = masks.read_truth(plane, truth, shape=predicted.shape, values=truth_values)
    return image_scores(predicted, as_instances(labels), void=void)


def _scores_at(path: str, label: str, *about: Any) -> Scores:
    """The same of a file; in a worker."""
    return _scores(cluster.plane_at(path, label, _open_labels), *about)


def _open_labels(path: str) -> list[ImagePlane]:
    return common.planes_of(Path(path), palette_indices=True)


def _meaning_of_predictions(
    planes: list[ImagePlane], tell: Callable[[str], None]
) -> Job[MaskValues]:
    """What the predictions' values mean: numbers of objects, of our results and where in doubt."""
    paths = [p.path for p in planes if p.path is not None]
    if any((path.parent / "prompts.json").exists() for path in paths):
        return MaskValues()
    try:
        meaning = yield from masks.meaning_of(paths)
    except InputError as error:
        fault = str(error).removesuffix(ADVICE)
        tell(f"predictions: {fault}They are scored as numbers of objects.")
        return MaskValues()
    if meaning.values != MaskValues():
        tell(f"predictions: {meaning.line}")
    return meaning.values


def _unscored(truth: Path | str, used: set[Path]) -> int:
    """Masks without a prediction; images that lie beside a mask are none."""
    paired = {io_paths.folded(io_paths.bare_stem(path)) for path in used}
    unused = [path for path in masks.masks_in(truth)[0].images if path not in used]
    return sum(io_paths.folded(io_paths.stem_of(path)) not in paired for path in unused)


def _pairs(
    predictions: Path | str, truth: Path | str, tell: Callable[[str], None]
) -> tuple[dict[str, Path], list[ImagePlane]]:
    """Truth of each prediction that has one; the overlay among the predictions needs none."""
    files = io_paths.list_source(str(predictions), tell=tell)
    planes = [p for path in files for p in _open_labels(str(path))]
    pairs = masks.match_by_stem(planes, str(truth), require_all=False, tell=tell)
    scored = [p for p in planes if p.label in pairs]
    unpaired = [p.label for p in planes if p.label not in pairs and p.name != "overlay"]
    if unpaired:
        tell(f"predictions without truth of their name, not scored: {io_paths.some(unpaired)}.")
    paired_files = sorted({p.path for p in scored if p.path is not None})
    io_paths.check_stems([io_paths.stem_of(path) for path in paired_files], paired_files)
    return pairs, scored
