"""The loop over planes that annotating and segmenting share.

A bad image is noted and passed over; images done before are skipped; what is done is recorded even
when the job is cancelled or the disk fills up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_samic import export
from napari_samic.contracts import Image, Job, Plane, Segmentation, Step
from napari_samic.errors import OutputError, SamicError
from napari_samic.normalise import read_rgb
from napari_samic.pipeline import common


@dataclass(frozen=True, eq=False)
class Answer:
    """Result of one plane, what to say about it, and further columns for each object."""

    result: Segmentation
    caption: str
    extra: Sequence[dict[str, Any]] = ()
    clicks: int | None = None
    iou: float | None = None


def over_planes(
    planes: Sequence[Plane],
    work: Callable[[Plane, Image], Answer],
    records: common.Records,
    sheet: common.Sheet,
    *,
    overwrite: bool,
    heatmaps: bool = False,
) -> Job[tuple[common.Outcome, list[Answer]]]:
    """Do every plane; yields a Step each.

    Raises
    ------
    OutputError
        The disk refuses: the next image would meet the same.
    """
    done: list[str] = []
    skipped: list[str] = []
    answers: list[Answer] = []
    try:
        for name, members in common.groups(planes):
            target = records.out / f"{name}.tif"
            if target.exists() and not overwrite:
                skipped += [p.label for p in members]
                yield Step(len(done) + len(skipped), len(planes), f"{name}: done before")
                continue
            records.forget([p.label for p in members])
            finished: dict[str, Answer] = {}
            with common.Labels(target, overwrite=overwrite) as labels:
                for plane in members:
                    try:
                        answer = _one(plane, work, records, sheet, labels, heatmaps=heatmaps)
                        finished[plane.label] = answer
                        message = f"{plane.label}: {answer.caption}"
                    except OutputError:
                        raise
                    except SamicError as error:
                        records.fail(plane.label, error)
                        message = str(error)
                    count = len(done) + len(skipped) + len(finished) + len(records.failures)
                    yield Step(count, len(planes), message)
            done += finished
            answers += finished.values()
    except BaseException:
        records.forget([p.label for p in planes if not _is_written(records.out, p)])
        raise
    finally:
        records.save()
        sheet.save()
    return common.Outcome(records.out, tuple(done), tuple(skipped), records.failures), answers


def _is_written(out: Path, plane: Plane) -> bool:
    return (out / f"{plane.name}.tif").exists()


def _one(
    plane: Plane,
    work: Callable[[Plane, Image], Answer],
    records: common.Records,
    sheet: common.Sheet,
    labels: common.Labels,
    *,
    heatmaps: bool,
) -> Answer:
    started = time.monotonic()
    image = read_rgb(plane, records.normalisation)
    answer = work(plane, image)
    labels.write(plane, answer.result.labels)
    if heatmaps and answer.result.heat_map is not None:
        folder = common.make_folder(records.out / "heatmaps")
        target = folder / f"{_file_name(plane)}.tif"
        export.write_heat_map(target, answer.result.heat_map, overwrite=True)
    seconds = round(time.monotonic() - started, 3)
    records.add(
        plane, image, answer.result, extra=answer.extra, clicks=answer.clicks, seconds=seconds
    )
    sheet.add(plane.label, image, answer.result.labels, answer.result.objects, answer.caption)
    return answer


def _file_name(plane: Plane) -> str:
    return "-".join([plane.name, *(f"{i:04d}" for i in plane.index)])
