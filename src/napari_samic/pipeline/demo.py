"""The whole job on the packaged sample sets: annotate, train, segment, evaluate, and a sheet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from napari_samic.core.errors import OutputError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import Job, JobProgress
from napari_samic.export import overlays
from napari_samic.io import writers
from napari_samic.io.files import atomic_file
from napari_samic.io.masks import read_labels
from napari_samic.io.prompts import load_prompts
from napari_samic.pipeline import common
from napari_samic.pipeline.annotate import annotate
from napari_samic.pipeline.evaluate import evaluate
from napari_samic.pipeline.segment import segment
from napari_samic.pipeline.train import train
from napari_samic.sample_data import samples

PARTS = ("annotate", "train", "segment", "evaluate")
MARK = "made-by-napari-samic-demo"
SETTINGS = TrainSettings(epochs=20)
"""Of SAMIC's own network, should the adapted one be refused."""
ADAPT = AdaptSettings(adapt_steps=60)
"""Drawn cells and coins are easy: more batches give no better masks (`docs/benchmarks.md`)."""


def demo(
    *,
    out: Path | str,
    model: str = "tiny",
    device: str = "auto",
    samples_only: bool = False,
    overwrite: bool = False,
) -> Job[common.JobResult]:
    """Run everything once on pictures that come with the package.

    Parameters
    ----------
    out : Path
        Folder; gets one subfolder for each sample set and `contact-sheet.png`.
    model, device : str
    samples_only : bool
        Write the pictures, their true masks and the clicks on the references, and stop.
    overwrite : bool
        Use a folder of an earlier demo again.

    Returns
    -------
    Job of JobResult
        `figures`: for each set `miou`, `dice`, `object_f1`, `seconds` and the scores of each image;
        of `samples_only` none.

    Raises
    ------
    OutputError
        `out` exists and is not of an earlier demo, or `overwrite` is off.
    """
    folder = _prepare(Path(out), overwrite=overwrite)
    yield JobProgress(0, 1, "writing the pictures")
    for name in samples.NAMES:
        _write_samples(name, folder / name)
    figures: dict[str, Any] = {}
    if samples_only:
        return common.JobResult(folder, samples.NAMES, (), {}, figures)
    tiles: list[Any] = []
    captions: list[str] = []
    for i, name in enumerate(samples.NAMES):
        progress = _OverallProgress(i * len(PARTS), len(samples.NAMES) * len(PARTS))
        figures[name] = yield from _run_sample_set(name, folder / name, model, device, progress)
        _draw(name, folder / name, figures[name]["images"], tiles, captions)
    sheet = overlays.contact_sheet(tiles, captions, columns=6, tile_px=256)
    writers.write_png(folder / "contact-sheet.png", sheet, overwrite=True)
    writers.write_json(folder / "metrics.json", figures, overwrite=True)
    return common.JobResult(folder, samples.NAMES, (), {}, figures)


def _prepare(folder: Path, *, overwrite: bool) -> Path:
    """An empty folder, or one of ours that may be written over."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            msg = f"{folder}: holds files that no demo made. Choose another folder with --out."
            raise OutputError(msg)
        if not overwrite:
            raise OutputError(f"{folder}: holds an earlier demo. Add --overwrite to replace it.")
    made_folder = common.make_folder(folder)
    with atomic_file(made_folder / MARK, overwrite=True) as mark:
        mark.touch()
    return made_folder


@contextmanager
def stored_prompts(name: str) -> Iterator[Path]:
    """The packaged prompt file of a sample set."""
    with as_file(files("napari_samic") / "data" / f"{name}.prompts.json") as path:
        yield path


def _write_samples(name: str, folder: Path) -> None:
    """The pictures of a set, the truth of those that are to be segmented, and `prompts.json`."""
    for sample in samples.sample_set(name):
        part = "references" if sample.is_reference else "images"
        writers.write_png(folder / part / f"{sample.name}.png", sample.image, overwrite=True)
        if not sample.is_reference:
            target = folder / "truth" / f"{sample.name}.tif"
            writers.write_labels(target, sample.truth, overwrite=True)
    with (
        stored_prompts(name) as prompts,
        atomic_file(folder / "prompts.json", overwrite=True) as to,
    ):
        to.write_bytes(prompts.read_bytes())


def _run_sample_set(
    name: str, folder: Path, model: str, device: str, progress: _OverallProgress
) -> Job[dict[str, Any]]:
    started = time.monotonic()
    prompter, prompts = folder / "prompter.pt", folder / "prompts.json"
    jobs = {
        "annotate": annotate(
            folder / "references", prompts=prompts, out=folder / "annotated", model=model,
            device=device, overlay=True, overwrite=True,
        ),
        "train": train(
            folder / "references", prompts=prompts, out=prompter, model=model, device=device,
            settings=SETTINGS, adapt=ADAPT, overwrite=True,
        ),
        "segment": segment(
            folder / "images", prompter=prompter, out=folder / "labels", device=device,
            heatmaps=True, overwrite=True,
        ),
        "evaluate": evaluate(predictions=folder / "labels", truth=folder / "truth"),
    }  # fmt: skip
    done: dict[str, common.JobResult] = {}
    for i, part in enumerate(PARTS):
        done[part] = yield from progress.relay(jobs[part], i, f"{name}: {part}")
    return {
        **done["evaluate"].figures,
        "training": done["train"].figures["growth"] or done["train"].figures["summary"],
        "seconds": round(time.monotonic() - started, 1),
    }


class _OverallProgress:
    """Relays the progress of one set's parts as its stretch of the whole."""

    def __init__(self, first: int, parts: int) -> None:
        self._first, self._parts = first, parts

    def relay(self, job: Job[common.JobResult], part: int, title: str) -> Job[common.JobResult]:
        """Drive a part's job."""
        start, reached = self._first + part, 0.0
        try:
            while True:
                step = next(job)
                phase = step.data.get("phase")
                if phase not in ("read", "load", "features") and step.total:  # those are short
                    reached = step.done / step.total
                done = int((start + reached) * 1000)
                text = f"{title}: {step.message}"
                yield JobProgress(done, self._parts * 1000, text, {"phase": "demo"})
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            job.close()


def _draw(
    name: str, folder: Path, scores: dict[str, Any], tiles: list[Any], captions: list[str]
) -> None:
    """One tile for each segmented image: outlines, predicted points, truth in dashes."""
    predicted = {i.name: i for i in load_prompts(folder / "labels" / "prompts.json").images}
    for sample in samples.sample_set(name):
        if sample.is_reference:
            continue
        labels = read_labels(folder / "labels" / f"{sample.name}.tif")
        points = predicted[sample.name].objects
        tiles.append(overlays.overlay(sample.image, labels, points=points, truth=sample.truth))
        captions.append(f"{sample.name}  IoU {scores[sample.name]['iou']:.2f}")
