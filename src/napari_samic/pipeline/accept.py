"""Reviewed results to a clean folder of labels: accepted ones, edited ones, none that is rejected.

Edits are files with a hash, so that the same review of the same results gives the same labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.types import IntArray, Job, JobProgress
from napari_samic.io import files as io_files
from napari_samic.io import masks
from napari_samic.io.paths import image_of, some
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts
from napari_samic.io.reviews import EDITED, FORMAT, VERSION, Verdict, load_review
from napari_samic.io.text_files import sha256_of
from napari_samic.io.writers import write_csv, write_json
from napari_samic.pipeline import common
from napari_samic.pipeline.results.journal import whole
from napari_samic.pipeline.results.provenance import NAME as PROVENANCE
from napari_samic.pipeline.results.provenance import Provenance, load_provenance, save_provenance
from napari_samic.pipeline.results.reader import (
    StoredResult,
    StoredResults,
    doubts_of,
    read_results,
    stacks,
)
from napari_samic.pipeline.results.writer import LabelFileWriter, recorded_prompts

REVIEW = "review.json"
UNREVIEWED = "not reviewed"
COLUMNS = ("image", "image_score", "object", "class", "score", "area_px")


def accept(
    results: Path | str,
    *,
    review: Path | str,
    out: Path | str,
    edits: Path | str | None = None,
    prompts: Path | str | None = None,
    overwrite: bool = False,
) -> Job[common.JobResult]:
    """Copy what the review accepts to a clean folder, edited labels in place of predicted ones.

    Parameters
    ----------
    results : Path
        Folder of `segment` or `annotate`.
    review : Path
        Review file: a verdict for each image; those without one are left out.
    out : Path
        Folder for label TIFFs, `prompts.json`, `scores.csv`, `provenance.json`, and `review.json`,
        which says of each image whether it is there, and why.
    edits : Path, optional
        Folder of the edited label files; needed if there are any.
    prompts : Path, optional
        Prompt file of the edited images, and of the names of the classes.
    overwrite : bool
        Replace what was accepted before; labels that are no longer accepted go.

    Returns
    -------
    Job of Outcome
        `done`: images that have labels now. `figures`: `accepted`, `edited`, `rejected`,
        `unreviewed`.

    Raises
    ------
    InputError
        Verdicts of unknown images, edits that are not there, or have another hash or shape, or
        `out` is the folder of the results, edits or images.
    OutputError
        `out` holds labels already, or the disk refuses.
    """
    found = read_results(results)
    verdicts = load_review(review)
    stored = recorded_prompts(prompts) if prompts is not None else None
    _check_known(found, verdicts, review)
    _check_judged(found, verdicts, review)
    changed = _edits(verdicts, edits)
    folder = common.results_folder(out, [*found.inputs, *changed.values()], review, prompts)
    kept = {k: v for k, v in stacks(found).items() if _any_kept(v, verdicts)}
    doubts = yield from doubts_of(found)
    run = {"job": "accept", "of": found.sha256, "review": sha256_of(Path(review))}
    run |= {"prompts": sha256_of(Path(prompts))} if prompts is not None else {}
    rows: list[dict[str, Any]] = []
    done: list[str] = []
    with whole(folder, run) as session:
        may = overwrite or session.resumes
        _make_room(folder, [f"{name}.tif" for name in kept], overwrite=may)
        session.begin()
        for name, members in kept.items():
            with LabelFileWriter(folder / f"{name}.tif", overwrite=may) as file:
                for one in members:
                    labels, more = _taken(one, verdicts.get(one.label), changed)
                    file.write(one.plane, labels)
                    rows += more
            done += [one.label for one in members if _keeps(verdicts, one)]
            yield JobProgress(len(done), len(found.images), name)
        _write_tables(folder, found, stored, rows, done, verdicts)
    counts = Counter(v.verdict for v in verdicts.values())
    figures = {kind: counts[kind] for kind in ("accepted", "edited", "rejected")}
    figures["unreviewed"] = len(found.images) - len(verdicts)
    return common.JobResult(folder, tuple(done), (), {}, figures, notices=doubts)


def _keeps(verdicts: Mapping[str, Verdict], one: StoredResult) -> bool:
    return one.label in verdicts and verdicts[one.label].keeps


def _any_kept(members: Sequence[StoredResult], verdicts: Mapping[str, Verdict]) -> bool:
    return any(_keeps(verdicts, one) for one in members)


def _check_known(found: StoredResults, verdicts: Mapping[str, Verdict], review: Path | str) -> None:
    known = {one.label for one in found.images}
    if unknown := [name for name in verdicts if name not in known]:
        msg = (
            f"{Path(review).name}: {some(unknown)} not in {found.folder}. Give the "
            "folder of the results that were reviewed."
        )
        raise InputError(msg)
    if not any(v.keeps for v in verdicts.values()):
        raise InputError(f"{Path(review).name}: nothing is accepted. Accept a result first.")


def _check_judged(
    found: StoredResults, verdicts: Mapping[str, Verdict], review: Path | str
) -> None:
    """Raise InputError where labels are others than those that were judged."""
    others = []
    for one in found.images:
        verdict = verdicts.get(one.label)
        if verdict is not None and verdict.of and verdict.keeps:
            others += [one.label] if found.hash_of(one) != verdict.of else []
    if others:
        msg = (
            f"{Path(review).name}: the labels of {some(others)} are not those that "
            "were reviewed. Review these images again."
        )
        raise InputError(msg)


def _edits(verdicts: Mapping[str, Verdict], edits: Path | str | None) -> dict[str, Path]:
    """Files of the edited images, once all of them are those of the review."""
    wanted = {name: v for name, v in verdicts.items() if v.verdict == EDITED}
    if wanted and edits is None:
        msg = f"{len(wanted)} images are edited, but no folder of edits is given (--edits)."
        raise InputError(msg)
    files = {name: Path(str(edits)) / v.file for name, v in wanted.items()}
    faults = []
    for name, path in files.items():
        if not path.is_file():
            faults.append(f"{path}: no such file, {name} was edited")
        elif sha256_of(path) != wanted[name].sha256:
            faults.append(f"{path}: is not what was reviewed, its hash is another")
    if faults:
        raise InputError("; ".join(faults) + ". Restore the edits, or review these images again.")
    return files


def _taken(
    one: StoredResult, verdict: Verdict | None, changed: Mapping[str, Path]
) -> tuple[IntArray, list[dict[str, Any]]]:
    """Labels of one image, and its rows of the table; blank in a stack if it is not kept."""
    labels = one.labels()
    if verdict is None or not verdict.keeps:
        return np.zeros_like(labels), []
    if verdict.verdict != EDITED:
        return labels, _rows(one, labels)
    edited = masks.read_labels(changed[one.label])
    if edited.shape != labels.shape:
        msg = f"{changed[one.label].name}: {edited.shape} for {one.label} of {labels.shape}."
        raise InputError(f"{msg} Review this image again.")
    about = {k: {"class": a.label, "score": a.score} for k, a in verdict.objects.items()}
    return edited, _rows_of(one.label, edited, about)


def _rows(one: StoredResult, labels: IntArray) -> list[dict[str, Any]]:
    """Those of the results, or, if these have no table, the objects that are there."""
    if one.rows or one.score is not None:
        rows = [{key: row.get(key) for key in COLUMNS} for row in one.rows]
        return rows or [{"image": one.label, "image_score": one.score, "object": 0}]
    return _rows_of(one.label, labels, {})


def _rows_of(
    label: str, labels: IntArray, about: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    found = np.unique(labels[labels > 0], return_counts=True)
    areas = dict(zip(*(part.tolist() for part in found), strict=True))
    scores = [about[v]["score"] for v in areas if v in about and about[v]["score"] is not None]
    head = {"image": label, "image_score": round(float(np.mean(scores)), 4) if scores else None}
    rows = [
        {**head, "object": v, **about.get(v, {"class": 1}), "area_px": area}
        for v, area in areas.items()
    ]
    return rows or [{**head, "object": 0}]


def _make_room(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Raise if anything is in the way; drop labels of an earlier review that are not renewed."""
    ours = (*names, REVIEW, "prompts.json", "scores.csv", PROVENANCE)
    if not overwrite:
        for name in ours:
            io_files.check_free(folder / name, overwrite=False)
        return
    with suppress(FormatError, InputError):
        made = load_provenance(folder)
        for label in load_earlier(folder / REVIEW):
            own = f"{label}.tif"  # also of a slice that is a file of its own
            known = own if (folder / own).exists() else f"{image_of(label)}.tif"
            known = made[label].file if label in made else known
            if known not in names:
                io_files.remove(folder / known)


def load_earlier(path: Path) -> list[str]:
    """Images that an earlier `accept` wrote labels for."""
    if not path.is_file():
        return []
    return [name for name, one in load_review(path).items() if one.keeps]


def _write_tables(
    folder: Path,
    found: StoredResults,
    stored: PromptFile | None,
    rows: Sequence[dict[str, Any]],
    done: Sequence[str],
    verdicts: Mapping[str, Verdict],
) -> None:
    write_csv(folder / "scores.csv", rows, columns=COLUMNS, overwrite=True)
    if found.stored is not None:
        kept = _prompts(found, stored, done)
        save_prompts(folder / "prompts.json", kept, overwrite=True)
    kept_images = [one for one in found.images if one.label in done and one.label in found.made]
    save_provenance(folder, {one.label: _made(folder, one, found) for one in kept_images})
    images = {one.label: _told(one.label, verdicts) for one in found.images}
    content = {"format": FORMAT, "version": VERSION, "images": images}
    write_json(folder / REVIEW, content, overwrite=True)


def _made(folder: Path, one: StoredResult, found: StoredResults) -> Provenance:
    """What made the labels, which an edit may have changed since."""
    made = found.made[one.label]
    return replace(made, labels=sha256_of(folder / made.file))


def _told(label: str, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    verdict = verdicts.get(label, Verdict("rejected", UNREVIEWED))
    return verdict.to_tree()


def _prompts(found: StoredResults, stored: PromptFile | None, done: Sequence[str]) -> PromptFile:
    """Of the kept images; those of edited ones count more."""
    own = found.stored
    if own is None:
        raise InputError(f"{found.folder}: has no prompts.json.")
    edited = {image.name: image for image in stored.images} if stored is not None else {}
    images = tuple(_joined(i, edited.get(i.name)) for i in own.images if i.name in done)
    classes = {**own.classes, **(stored.classes if stored is not None else {})}
    return PromptFile(images, own.model, own.normalisation, classes)


def _joined(image: ImagePrompts, edited: ImagePrompts | None) -> ImagePrompts:
    """Without the time that it took: a replay takes another."""
    if edited is None:
        return replace(image, seconds=None)
    return replace(image, objects=edited.objects, scores=edited.scores, seconds=None)


__all__ = ["REVIEW", "UNREVIEWED", "accept", "load_earlier"]
