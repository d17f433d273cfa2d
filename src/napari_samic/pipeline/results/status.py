"""How far a folder of results is: done, failed, not done yet, and no longer as it was made.

Told by the ledger and the label files alone, also while a run goes on. Writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.types import Job, JobProgress
from napari_samic.io.paths import natural_key
from napari_samic.io.text_files import sha256_of
from napari_samic.pipeline.common import JobResult
from napari_samic.pipeline.results import ledger

STATES = ("done", "failed", "unfinished", "edited", "missing")
_WHY = {
    "edited": "the label file is not the one that was made: edited, or damaged",
    "missing": "the label file is gone",
}
_IMAGES = """
SELECT images.label, state, error, seconds, score, objects, images.file, labels, images.stamp,
       notes.label IS NOT NULL
FROM images LEFT JOIN notes ON notes.label = images.label AND notes.stamp IS NOT NULL
"""
_RUNS = """
WITH noted AS (SELECT label FROM notes WHERE stamp NOT NULL)
SELECT run, host, started, ended,
       (SELECT count(*) FROM images
        WHERE run = runs.id AND file NOT NULL AND label NOT IN noted)
       + (head NOT NULL) * (SELECT count(*) FROM noted) AS of_run
FROM runs WHERE of_run OR head NOT NULL
"""


def status(results: Path | str, *, verify: bool = False) -> Job[JobResult]:
    """Say how far a folder of results is, and whether its label files are those that were made.

    Parameters
    ----------
    results : Path
        Folder of `segment`, `annotate` or `accept`; a run may be going on there.
    verify : bool
        Read every label file; else only those whose time, size or place is another than it was.

    Returns
    -------
    Job of JobResult
        `done`: images whose labels are there as they were made. `failures`: those that failed, and
        those whose label file is edited or missing. `figures`: how many are `failed`, `unfinished`,
        `edited` and `missing`; `objects`, `mean_score`, `seconds` an image, the `runs`,
        `is_stopped`: a run is under way or was stopped; `next`: what to do.

    Raises
    ------
    InputError
        No such folder, or no ledger in it.
    FormatError
        A ledger that is damaged, of another program or of a later version.
    """
    folder = Path(results)
    if not (folder / ledger.NAME).is_file():
        what = "Give the folder that `segment`, `annotate` or `accept` wrote."
        raise InputError(f"{folder}: no {ledger.NAME} there. {what}")
    if verify and (faults := ledger.rows(folder, "PRAGMA quick_check")) != [("ok",)]:
        raise FormatError(f"{folder / ledger.NAME}: damaged ({faults[0][0]}). Move it away.")
    unfinished = ledger.read_unfinished(folder)
    entries = unfinished.entries if unfinished is not None else {}
    images = sorted(ledger.rows(folder, _IMAGES), key=lambda row: natural_key(row[0]))
    checked: dict[tuple[str, str], str] = {}  # a stack has many images of one file
    states: dict[str, str] = {}
    failures: dict[str, str] = {}
    for i, (label, state, error, _, _, _, file, labels, stamp, is_noted) in enumerate(images):
        yield JobProgress(i, len(images), label, {"phase": "hash"})
        if label in entries:
            file, labels = entries[label]["file"], entries[label]["labels"]
        if state == "open" or file is None or (is_noted and label not in entries):
            state = "unfinished" if state != "failed" else state
        elif state != "failed":
            key = file, labels
            if key not in checked:
                checked[key] = _file_state(folder / file, labels, stamp, verify=verify)
            state = checked[key]
        states[label] = state
        if state in _WHY or state == "failed":
            failures[label] = error or f"{label}: {_WHY[state]}."
    counts = Counter(states.values())
    done = tuple(label for label, state in states.items() if state == "done")
    rows = [row for row in images if states[row[0]] == "done"]
    figures: dict[str, Any] = {
        "images": len(images),
        **{state: counts[state] for state in STATES[1:]},
        "objects": sum(row[5] or 0 for row in rows),
        "mean_score": _mean([row[4] for row in rows]),
        "seconds": _mean([row[3] for row in rows]),
        "runs": _runs(folder),
        "is_stopped": unfinished is not None,
        "next": _next(counts, is_stopped=unfinished is not None),
    }
    return JobResult(folder, done, failures=failures, figures=figures)


def _file_state(path: Path, sha256: str, stamp: str | None, *, verify: bool) -> str:
    now = ledger.stamp_of(path)
    if now is None:
        return "missing"
    if not verify and stamp and json.loads(stamp) == now:
        return "done"
    return "done" if sha256_of(path) == sha256 else "edited"


def _mean(values: list[float | None]) -> float | None:
    numbers = [v for v in values if v is not None]
    return round(float(np.mean(numbers)), 4) if numbers else None


def _runs(folder: Path) -> list[dict[str, Any]]:
    keys = ("run", "host", "started", "ended", "images")
    runs = [dict(zip(keys, row, strict=True)) for row in ledger.rows(folder, _RUNS)]
    return [row | {"run": json.loads(row["run"])} for row in runs]


def _next(counts: Counter[str], *, is_stopped: bool) -> str:
    if is_stopped:
        return "A run is under way, or was stopped: wait, or go on with the same command."
    if any(counts[state] for state in ("failed", "unfinished", "missing")):
        return "Go on: the same command again."
    if counts["edited"]:
        return "Nothing: edited labels are kept. The same command with --overwrite replaces them."
    return "Nothing: all is done, and as it was made."


__all__ = ["STATES", "status"]
