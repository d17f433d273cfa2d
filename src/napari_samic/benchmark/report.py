"""Results of a comparison to files: every image as CSV, the summary as JSON and Markdown.

A cell is a data set with a number of shots; in it a method has its mean, an interval, and its
difference to a baseline over the images that both have. Statistics are made in
`statistics`; files are complete or not there.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from napari_samic.benchmark.statistics import (
    Difference,
    Interval,
    bootstrap_interval,
    paired_difference,
)
from napari_samic.core.errors import FormatError, InputError
from napari_samic.io.files import atomic_file, check_free
from napari_samic.io.text_files import read_text
from napari_samic.io.writers import write_csv, write_json

Measure: TypeAlias = Literal["iou", "dice", "boundary_f", "object_f1"]
MEASURES = get_args(Measure)
Place: TypeAlias = tuple[str, int]
"""Data set and shots."""


@dataclass(frozen=True)
class ImageScore:
    """One method on one image.

    Attributes
    ----------
    set : str
        Name of the data set.
    seed, shots : int
    method : str
    image : str
        Name of the item; unique for a set, seed, shots and method.
    iou, dice, boundary_f, object_f1 : float
        In [0, 1]; all but the first NaN if they were not measured.
    score : float
        The method's own confidence; NaN if it has none.
    seconds : float
        For this image; NaN if it was not measured.
    label : str
        Name of the class; "" if it was not told.
    both, either : float
        Pixels of it in the answer and the truth, and in any of them; NaN if not counted.
    """

    set: str
    seed: int
    shots: int
    method: str
    image: str
    iou: float
    dice: float
    boundary_f: float = float("nan")
    object_f1: float = float("nan")
    score: float = float("nan")
    seconds: float = float("nan")
    label: str = ""
    both: float = float("nan")
    either: float = float("nan")


FILES = ("images.csv", "summary.json", "summary.md")
LATER = ("label", "both", "either")
"""Columns that tables of before have not."""
LEAST = 6
"""Units that a clear difference takes: of fewer, no signed-rank test can be below 0.05."""
COLUMNS = tuple(field.name for field in fields(ImageScore))


@dataclass(frozen=True)
class CellSummary:
    """One method on one data set with one number of shots.

    Attributes
    ----------
    value : Interval
        Over all images; each counts once, with the mean of its seeds.
    images, seeds : int
        Results, and seeds among them.
    difference : Difference or None
        To the baseline; None for the baseline itself, and where they share no image.
    """

    set: str
    shots: int
    method: str
    value: Interval
    images: int
    seeds: int
    difference: Difference | None = None


def cells(
    results: Iterable[ImageScore],
    *,
    baseline: str | None = None,
    measure: Measure = "iou",
    seed: int = 0,
    units: Mapping[str, str] | None = None,
) -> list[CellSummary]:
    """Summarize results by data set, shots and method.

    Parameters
    ----------
    results : iterable of ImageScore
    baseline : str, optional
        Method that the others are compared with.
    measure : {"iou", "dice", "boundary_f", "object_f1"}
        Results that have not measured it are left out.
    seed : int
        Of the resamples.
    units : dict of str to str, optional
        Video of each image. A unit counts once and is drawn as a whole: by default an image,
        whichever seeds asked for it.

    Returns
    -------
    list of CellSummary
        In the order in which sets, shots and methods first appear.

    Raises
    ------
    InputError
        No result, one image twice, an unknown baseline or measure.
    """
    table = _table(results, measure)
    methods = {method for _, method in table}
    if baseline is not None and baseline not in methods:
        available = ", ".join(sorted(methods))
        raise InputError(f"no result of the baseline '{baseline}'. There are: {available}.")
    out = []
    for (place, method), values in table.items():
        belongs = [unit_of(image, units) for _, image in values]
        value = bootstrap_interval(list(values.values()), belongs, seed=seed)
        other = table.get((place, baseline)) if baseline not in (None, method) else None
        gain = _difference(values, other, seed, units) if other else None
        out.append(
            CellSummary(*place, method, value, len(values), len({s for s, _ in values}), gain)
        )
    return out


def unit_of(image: str, units: Mapping[str, str] | None) -> str:
    """What an image belongs to: see `cells`. An image that was asked for again is the same one.

    >>> unit_of("cat/7 again 2", None), unit_of("cat/7", {"cat/7": "cat"})
    ('cat/7', 'cat')
    """
    name = re.sub(r" again \d+$", "", image)
    return name if units is None else units.get(name, name)


_Values: TypeAlias = dict[tuple[int, str], float]
"""Value of each seed and image."""


def _table(results: Iterable[ImageScore], measure: str) -> dict[tuple[Place, Any], _Values]:
    if measure not in MEASURES:
        raise InputError(f"measure is {measure!r}, expected one of {', '.join(MEASURES)}.")
    out: defaultdict[tuple[Place, Any], _Values] = defaultdict(dict)
    for r in results:
        values = out[(r.set, r.shots), r.method]
        if (r.seed, r.image) in values:
            where = f"{r.set}, {r.shots} shots, seed {r.seed}, {r.method}"
            raise InputError(f"{where}: two results of '{r.image}'. Keep one of them.")
        values[r.seed, r.image] = float(getattr(r, measure))
    finite = {k: {at: v for at, v in vs.items() if not math.isnan(v)} for k, vs in out.items()}
    measured = {k: values for k, values in finite.items() if values}
    if not measured:
        raise InputError("no result to report. Give at least one.")
    return measured


def _difference(
    a: _Values, b: _Values, seed: int, units: Mapping[str, str] | None
) -> Difference | None:
    both = sorted(a.keys() & b.keys())
    if not both:
        return None
    belongs = [unit_of(image, units) for _, image in both]
    return paired_difference([a[k] for k in both], [b[k] for k in both], belongs, seed=seed)


def markdown(summaries: Sequence[CellSummary], *, digits: int = 3) -> str:
    """A table with a row for each method, and a column for each data set and number of shots.

    Parameters
    ----------
    summaries : sequence of CellSummary
    digits : int
        After the point.

    Returns
    -------
    str
        In a cell: the mean, its 95 % interval, and the difference to the baseline with its own
        interval, bold where that leaves out 0 and there are six units or more.

    Examples
    --------
    >>> cell = CellSummary("polyps", 5, "SAMIC", Interval(0.8, 0.7, 0.9), 100, 1)
    >>> print(markdown([cell], digits=2))
    | method | polyps, 5 shots |
    |---|---|
    | SAMIC | 0.80 [0.70, 0.90] |
    <BLANKLINE>
    """
    places = list(dict.fromkeys((c.set, c.shots) for c in summaries))
    texts = {(c.method, (c.set, c.shots)): _text(c, digits) for c in summaries}
    heads = [_safe(f"{name}, {n} {'shot' if n == 1 else 'shots'}") for name, n in places]
    lines = [["method", *heads]]
    for method in dict.fromkeys(c.method for c in summaries):
        lines.append([_safe(method), *(texts.get((method, place), "") for place in places)])
    return table_of(lines)


def table_of(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is the head.

    >>> print(table_of([["way", "ms"], ["paper", "31.4"]]), end="")
    | way | ms |
    |---|---|
    | paper | 31.4 |
    """
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest]) + "\n"


def _text(cell: CellSummary, digits: int) -> str:
    v, d = cell.value, cell.difference
    text = f"{v.mean:.{digits}f} [{v.low:.{digits}f}, {v.high:.{digits}f}]"
    if d is None:
        return text
    mean = f"{d.mean:+.{digits}f}"
    clear = (d.low > 0 or d.high < 0) and d.n >= LEAST
    more = f"[{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
    return f"{text}; {f'**{mean}**' if clear else mean} {more}"


def _safe(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def write_report(
    folder: str | Path,
    results: Sequence[ImageScore],
    *,
    baseline: str | None = None,
    measure: Measure = "iou",
    units: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> list[CellSummary]:
    """Write images.csv, summary.json and summary.md.

    Parameters
    ----------
    folder : str or Path
        Made if need be.
    results : sequence of ImageScore
    baseline, measure, units
        As in `cells`.
    overwrite : bool
        Whether files of these names may be replaced.

    Returns
    -------
    list of CellSummary
        What the summary says.

    Raises
    ------
    InputError
        As in `cells`.
    OutputError
        Disk full, read-only, or a file in the way.
    """
    summaries = cells(results, baseline=baseline, measure=measure, units=units)
    table, tree, page = (Path(folder) / name for name in FILES)
    for path in (table, tree, page):  # all or none of them
        check_free(path, overwrite=overwrite)
    write_csv(table, [asdict(r) for r in results], columns=COLUMNS, overwrite=overwrite)
    summary = {
        "measure": measure,
        "baseline": baseline,
        "cells": [asdict(cell) for cell in summaries],
    }
    write_json(tree, summary, overwrite=overwrite)
    with atomic_file(page, overwrite=overwrite) as temporary:
        temporary.write_text(markdown(summaries), encoding="utf-8", newline="\n")
    return summaries


def read_results(path: str | Path) -> list[ImageScore]:
    """Read images.csv back.

    Raises
    ------
    InputError
        No such file.
    FormatError
        A table of another kind, or with a cell that is no number.
    """
    source = Path(path)
    rows = csv.DictReader(io.StringIO(read_text(source, "an images.csv"), newline=""))
    if tuple(rows.fieldnames or ()) not in (COLUMNS, COLUMNS[: -len(LATER)]):
        msg = f"{source}: columns {rows.fieldnames}, expected {', '.join(COLUMNS)}."
        raise FormatError(f"{msg} Pick an images.csv.")
    try:
        return [_result(row) for row in rows]
    except (TypeError, ValueError) as error:
        msg = f"{source}, line {rows.line_num}: {error}. Pick a whole images.csv."
        raise FormatError(msg) from error


def _result(row: dict[str, str]) -> ImageScore:
    kinds: dict[str, Callable[[str], Any]] = {"seed": int, "shots": int}
    kinds |= dict.fromkeys((*MEASURES, "score", "seconds", "both", "either"), _number)
    return ImageScore(**{k: kinds.get(k, str)(v) for k, v in row.items()})


def _number(text: str) -> float:
    return float(text) if text != "" else float("nan")
