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
from napari_samic.pipeline.results.ledger import (
    Ledger,
    Provenance,
    complete_results,
    load_provenance,
)
from napari_samic.pipeline.results.reader import (
    StoredResult,
    StoredResults,
    read_results,
    stacks,
    staleness_notices,
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
        Folder for label TIFFs, `prompts.json`, `scores.csv`, `ledger.sqlite`, and `review.json`,
        which says of each image whether it is there, and why.
    edits : Path, optional
        Folder of the edited label files; needed if there are any.
    prompts : Path, optional
        Prompt file of the edited images, and of the names of the classes.
    overwrite : bool
        Replace what was accepted before; labels that are no longer accepted go.

    Returns
    -------
    Job of JobResult
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
    stored_results = read_results(results)
    verdicts = load_review(review)
    stored = recorded_prompts(prompts) if prompts is not None else None
    _check_names(stored_results, verdicts, review)
    _check_hashes(stored_results, verdicts, review)
    edited_files = _edited_files(verdicts, edits)
    folder = common.results_folder(
        out, [*stored_results.inputs, *edited_files.values()], review, prompts
    )
    kept_files = {k: v for k, v in stacks(stored_results).items() if _has_kept(v, verdicts)}
    notices = yield from staleness_notices(stored_results)
    run = {"job": "accept", "of": stored_results.sha256, "review": sha256_of(Path(review))}
    run |= {"prompts": sha256_of(Path(prompts))} if prompts is not None else {}
    rows: list[dict[str, Any]] = []
    done: list[str] = []
    with complete_results(folder, run) as session:
        may_overwrite = overwrite or session.resumes
        _clear_folder(folder, [f"{name}.tif" for name in kept_files], overwrite=may_overwrite)
        session.begin()
        for name, members in kept_files.items():
            with LabelFileWriter(folder / f"{name}.tif", overwrite=may_overwrite) as file:
                for result in members:
                    labels, result_rows = _reviewed_labels(
                        result, verdicts.get(result.label), edited_files
                    )
                    file.write(result.plane, labels)
                    rows += result_rows
            done += [result.label for result in members if _is_kept(verdicts, result)]
            yield JobProgress(len(done), len(stored_results.images), name)
        _write_tables(session.ledger, stored_results, stored, rows, done, verdicts)
    counts = Counter(v.verdict for v in verdicts.values())
    figures = {kind: counts[kind] for kind in ("accepted", "edited", "rejected")}
    figures["unreviewed"] = len(stored_results.images) - len(verdicts)
    return common.JobResult(folder, tuple(done), (), {}, figures, notices=notices)


def _is_kept(verdicts: Mapping[str, Verdict], result: StoredResult) -> bool:
    return result.label in verdicts and verdicts[result.label].keeps


def _has_kept(members: Sequence[StoredResult], verdicts: Mapping[str, Verdict]) -> bool:
    return any(_is_kept(verdicts, result) for result in members)


def _check_names(
    results: StoredResults, verdicts: Mapping[str, Verdict], review: Path | str
) -> None:
    result_names = {result.label for result in results.images}
    if unknown := [name for name in verdicts if name not in result_names]:
        msg = (
            f"{Path(review).name}: {some(unknown)} not in {results.folder}. Give the "
            "folder of the results that were reviewed."
        )
        raise InputError(msg)
    if not any(v.keeps for v in verdicts.values()):
        raise InputError(f"{Path(review).name}: nothing is accepted. Accept a result first.")


def _check_hashes(
    results: StoredResults, verdicts: Mapping[str, Verdict], review: Path | str
) -> None:
    """Raise InputError where labels are others than those that were judged."""
    changed = []
    for result in results.images:
        verdict = verdicts.get(result.label)
        if verdict is not None and verdict.of and verdict.keeps:
            changed += [result.label] if results.hash_of(result) != verdict.of else []
    if changed:
        msg = (
            f"{Path(review).name}: the labels of {some(changed)} are not those that "
            "were reviewed. Review these images again."
        )
        raise InputError(msg)


def _edited_files(verdicts: Mapping[str, Verdict], edits: Path | str | None) -> dict[str, Path]:
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


def _reviewed_labels(
    result: StoredResult, verdict: Verdict | None, edited_files: Mapping[str, Path]
) -> tuple[IntArray, list[dict[str, Any]]]:
    """Labels of one image, and its rows of the table; blank in a stack if it is not kept."""
    labels = result.labels()
    if verdict is None or not verdict.keeps:
        return np.zeros_like(labels), []
    if verdict.verdict != EDITED:
        return labels, _rows(result, labels)
    edited = masks.read_labels(edited_files[result.label])
    if edited.shape != labels.shape:
        name = edited_files[result.label].name
        msg = f"{name}: {edited.shape} for {result.label} of {labels.shape}."
        raise InputError(f"{msg} Review this image again.")
    objects = {k: {"class": a.label, "score": a.score} for k, a in verdict.objects.items()}
    return edited, _rows_of(result.label, edited, objects)


def _rows(result: StoredResult, labels: IntArray) -> list[dict[str, Any]]:
    """Those of the results, or, if these have no table, the objects that are there."""
    if result.rows or result.score is not None:
        rows = [{key: row.get(key) for key in COLUMNS} for row in result.rows]
        return rows or [{"image": result.label, "image_score": result.score, "object": 0}]
    return _rows_of(result.label, labels, {})


def _rows_of(
    label: str, labels: IntArray, objects: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    values_and_areas = np.unique(labels[labels > 0], return_counts=True)
    areas = dict(zip(*(part.tolist() for part in values_and_areas), strict=True))
    scores = [
        objects[v]["score"] for v in areas if v in objects and objects[v]["score"] is not None
    ]
    head = {"image": label, "image_score": round(float(np.mean(scores)), 4) if scores else None}
    rows = [
        {**head, "object": v, **objects.get(v, {"class": 1}), "area_px": area}
        for v, area in areas.items()
    ]
    return rows or [{**head, "object": 0}]


def _clear_folder(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Raise if anything is in the way; drop labels of an earlier review that are not renewed."""
    ours = (*names, REVIEW, "prompts.json", "scores.csv")
    if not overwrite:
        for name in ours:
            io_files.check_free(folder / name, overwrite=False)
        return
    with suppress(FormatError, InputError):
        provenances = load_provenance(folder)
        for label in load_kept_names(folder / REVIEW):
            own = f"{label}.tif"  # also of a slice that is a file of its own
            file_name = own if (folder / own).exists() else f"{image_of(label)}.tif"
            file_name = provenances[label].file if label in provenances else file_name
            if file_name not in names:
                io_files.remove(folder / file_name)


def load_kept_names(path: Path) -> list[str]:
    """Images that an earlier `accept` wrote labels for."""
    if not path.is_file():
        return []
    return [name for name, verdict in load_review(path).items() if verdict.keeps]


def _write_tables(
    ledger: Ledger,
    results: StoredResults,
    stored: PromptFile | None,
    rows: Sequence[dict[str, Any]],
    done: Sequence[str],
    verdicts: Mapping[str, Verdict],
) -> None:
    folder = ledger.folder
    write_csv(folder / "scores.csv", rows, columns=COLUMNS, overwrite=True)
    if results.stored is not None:
        kept = _prompts(results, stored, done)
        save_prompts(folder / "prompts.json", kept, overwrite=True)
    kept_images = [
        result
        for result in results.images
        if result.label in done and result.label in results.provenance
    ]
    ledger.store(
        {result.label: _updated_provenance(folder, result, results) for result in kept_images},
    )
    images = {result.label: _verdict_tree(result.label, verdicts) for result in results.images}
    content = {"format": FORMAT, "version": VERSION, "images": images}
    write_json(folder / REVIEW, content, overwrite=True)


def _updated_provenance(folder: Path, result: StoredResult, results: StoredResults) -> Provenance:
    """What made the labels, which an edit may have changed since."""
    provenance = results.provenance[result.label]
    return replace(provenance, labels=sha256_of(folder / provenance.file))


def _verdict_tree(label: str, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    verdict = verdicts.get(label, Verdict("rejected", UNREVIEWED))
    return verdict.to_tree()


def _prompts(results: StoredResults, stored: PromptFile | None, done: Sequence[str]) -> PromptFile:
    """Of the kept images; those of edited ones count more."""
    own = results.stored
    if own is None:
        raise InputError(f"{results.folder}: has no prompts.json.")
    edited = {image.name: image for image in stored.images} if stored is not None else {}
    images = tuple(_with_edits(i, edited.get(i.name)) for i in own.images if i.name in done)
    classes = {**own.classes, **(stored.classes if stored is not None else {})}
    return PromptFile(images, own.model, own.normalization, classes)


def _with_edits(image: ImagePrompts, edited: ImagePrompts | None) -> ImagePrompts:
    """Without the time that it took: a replay takes another."""
    if edited is None:
        return replace(image, seconds=None)
    return replace(image, objects=edited.objects, scores=edited.scores, seconds=None)


__all__ = ["REVIEW", "UNREVIEWED", "accept", "load_kept_names"]
