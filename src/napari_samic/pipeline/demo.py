"""The whole job on the packaged sample sets: annotate, train, segment, evaluate, and a sheet."""

from __future__ import annotations

import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from napari_samic import export, pictures, samples
from napari_samic.contracts import Job, Step
from napari_samic.errors import OutputError
from napari_samic.masks import read_labels
from napari_samic.pipeline import common
from napari_samic.pipeline.annotate import annotate
from napari_samic.pipeline.evaluate import evaluate
from napari_samic.pipeline.segment import segment
from napari_samic.pipeline.train import train
from napari_samic.prompts import load_prompts
from napari_samic.settings import TrainSettings

MARK = "made-by-napari-samic-demo"
SETTINGS = TrainSettings(epochs=30, patience=8, views=2)


def demo(
    *, out: Path | str, model: str = "tiny", device: str = "auto", overwrite: bool = False
) -> Job[common.Outcome]:
    """Run everything once on pictures that come with the package.

    Parameters
    ----------
    out : Path
        Folder; gets one subfolder for each sample set and `contact-sheet.png`.
    model, device : str
    overwrite : bool
        Use a folder of an earlier demo again.

    Returns
    -------
    Job of Outcome
        `figures`: for each set `miou`, `dice`, `object_f1`, `seconds` and the scores of each image.

    Raises
    ------
    OutputError
        `out` exists and is not of an earlier demo, or `overwrite` is off.
    """
    folder = _prepare(Path(out), overwrite=overwrite)
    figures: dict[str, Any] = {}
    tiles: list[Any] = []
    captions: list[str] = []
    for name in samples.NAMES:
        figures[name] = yield from _one_set(name, folder / name, model, device)
        _draw(name, folder / name, figures[name]["images"], tiles, captions)
    sheet = pictures.contact_sheet(tiles, captions, columns=6, tile_px=256)
    export.write_png(folder / "contact-sheet.png", sheet, overwrite=True)
    export.write_json(folder / "metrics.json", figures, overwrite=True)
    return common.Outcome(folder, samples.NAMES, (), {}, figures)


def _prepare(folder: Path, *, overwrite: bool) -> Path:
    """An empty folder, or one of ours that may be written over."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            msg = f"{folder}: holds files that no demo made. Choose another folder with --out."
            raise OutputError(msg)
        if not overwrite:
            raise OutputError(f"{folder}: holds an earlier demo. Add --overwrite to replace it.")
    made = common.make_folder(folder)
    (made / MARK).touch()
    return made


def _one_set(name: str, folder: Path, model: str, device: str) -> Job[dict[str, Any]]:
    started = time.monotonic()
    for sample in samples.sample_set(name):
        part = "references" if sample.is_reference else "images"
        export.write_png(folder / part / f"{sample.name}.png", sample.image, overwrite=True)
        if not sample.is_reference:
            target = folder / "truth" / f"{sample.name}.tif"
            export.write_labels(target, sample.truth, overwrite=True)
    yield Step(0, 4, f"{name}: SAMBOX masks of the references")
    with as_file(files("napari_samic") / "data" / f"{name}.prompts.json") as prompts:
        yield from _scaled(
            annotate(folder / "references", prompts=prompts, out=folder / "annotated",
                     model=model, device=device, overlay=True, overwrite=True),
            0, f"{name}: annotate",
        )  # fmt: skip
        training = yield from _scaled(
            train(folder / "references", prompts=prompts, out=folder / "prompter.pt", model=model,
                  device=device, settings=SETTINGS, overwrite=True),
            1, f"{name}: train",
        )  # fmt: skip
    yield from _scaled(
        segment(folder / "images", prompter=folder / "prompter.pt", out=folder / "labels",
                device=device, heatmaps=True, overwrite=True),
        2, f"{name}: segment",
    )  # fmt: skip
    scored = yield from _scaled(
        evaluate(predictions=folder / "labels", truth=folder / "truth"), 3, f"{name}: evaluate"
    )
    seconds = round(time.monotonic() - started, 1)
    return {**scored.figures, "training": training.figures["summary"], "seconds": seconds}


def _scaled(job: Job[common.Outcome], part: int, title: str) -> Job[common.Outcome]:
    """Relay a job's Steps as one quarter of a set's progress."""
    try:
        while True:
            step = next(job)
            share = step.done / step.total if step.total else 0.0
            yield Step(int((part + share) * 1000), 4000, f"{title}: {step.message}", step.data)
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
        tiles.append(pictures.overlay(sample.image, labels, points=points, truth=sample.truth))
        captions.append(f"{sample.name}  IoU {scores[sample.name]['iou']:.2f}")
