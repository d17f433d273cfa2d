"""Predictions against ground truth, files matched by stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_samic import export, listing, masks
from napari_samic.contracts import Job, Step
from napari_samic.errors import InputError, SamicError
from napari_samic.matching import as_instances
from napari_samic.metrics import image_scores, summarise
from napari_samic.pipeline import common
from napari_samic.planes import planes_of_file


def evaluate(
    *,
    predictions: Path | str,
    truth: Path | str,
    out: Path | str | None = None,
    overwrite: bool = False,
) -> Job[common.Outcome]:
    """Score label files against ground truth.

    Parameters
    ----------
    predictions, truth : Path
        Folders (or globs); a prediction `a.tif` is scored against `a.png`, `a_mask.tif` and so on.
        Truth without a prediction is left out and counted in `unscored`.
    out : Path, optional
        JSON file for the figures.
    overwrite : bool
        Replace `out`.

    Returns
    -------
    Job of Outcome
        `figures`: `miou`, `dice`, `n`, boundary and object figures, `images` with those of each.

    Raises
    ------
    InputError
        No predictions, or none that has a truth.
    """
    planes = [p for file in listing.list_source(str(predictions)) for p in planes_of_file(file)]
    pairs = masks.match_by_stem(planes, str(truth), require_all=False)
    rows: dict[str, dict[str, float]] = {}
    failures: dict[str, str] = {}
    for i, plane in enumerate(p for p in planes if p.label in pairs):
        try:
            found = masks.read_labels(plane)
            wanted = masks.read_mask(plane, pairs[plane.label], shape=found.shape)
            rows[plane.label] = image_scores(found, as_instances(wanted))
            message = f"{plane.label}: IoU {rows[plane.label]['iou']:.3f}"
        except SamicError as error:
            failures[plane.label] = message = str(error)
        yield Step(i + 1, len(pairs), message)
    if not rows:
        raise InputError(f"nothing scored: {next(iter(failures.values()))}")
    figures = {
        **summarise(list(rows.values())),
        "median_iou": float(np.median([r["iou"] for r in rows.values()])),
        "n": len(rows),
        "unscored": len(listing.list_source(str(truth)))
        - len({p.name for p in planes if p.label in pairs}),
        "images": rows,
    }
    target = Path(out) if out is not None else Path(str(truth))
    if out is not None:
        export.write_json(target, figures, overwrite=overwrite)
    return common.Outcome(target, tuple(rows), (), failures, figures)
