"""The commands of the shell: each reads its options, drives one job and says what came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_samic import __version__
from napari_samic.cli.benchmark import benchmark
from napari_samic.cli.models import models_app
from napari_samic.cli.options import (
    AsJson,
    Axes,
    ChangedSettings,
    Channels,
    Dask,
    Device,
    Images,
    MaskValues,
    Model,
    Out,
    Overlay,
    Overwrite,
    PresetName,
    Record,
    Series,
    with_settings,
)
from napari_samic.cli.progress import counts, drive, report
from napari_samic.cli.recipes import run
from napari_samic.cli.results import accept, export, status
from napari_samic.core.settings import (
    PRESETS,
    AdaptSettings,
    AnnotateSettings,
    HeatMapSettings,
    MemorySettings,
    PeakSettings,
    PrompterSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
    TrainSettings,
)

app = typer.Typer(
    help="Click on five images, get five hundred: in-context segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(models_app, name="models")
app.command("run")(run)


@app.command()
def demo(
    out: Out = Path("samic-demo"),
    model: Model = "tiny",
    device: Device = "auto",
    samples_only: Annotated[
        bool, typer.Option("--samples-only", help="Write the pictures and clicks, and stop.")
    ] = False,
    overwrite: Overwrite = False,
    json_: AsJson = False,
) -> None:
    """Annotate, train, segment and evaluate the packaged sample sets; needs no download."""
    from napari_samic import pipeline

    job = pipeline.demo(
        out=out, model=model, device=device, samples_only=samples_only, overwrite=overwrite
    )
    outcome = drive(job, as_json=json_)
    lines = []
    for name, figures in outcome.figures.items():
        lines.append(f"{name}: {figures['training']}")
        for image, row in figures["images"].items():
            counts = f"{row['n_matched']:.0f} of {row['n_true']:.0f} objects found"
            extra = row["n_predicted"] - row["n_matched"]
            lines.append(f"  {image}  IoU {row['iou']:.3f}  {counts}, {extra:.0f} false")
        lines.append(
            f"{name}: mIoU {figures['miou']:.3f}  Dice {figures['dice']:.3f}  "
            f"object F1 {figures['object_f1']:.3f}  ({figures['seconds']} s)"
        )
    names = ", ".join(outcome.done)
    lines.append(
        f"{names}: references, images, truth and prompts.json in {out}"
        if samples_only
        else f"look at {out / 'contact-sheet.png'}"
    )
    report(outcome, lines, as_json=json_)


@app.command()
@with_settings(
    "out", "prompts", "masks", "simulate", "model", "device", "max_clicks", "overlay", "overwrite",
    "record",
    settings=AnnotateSettings, segment=SegmentSettings,
)  # fmt: skip
def annotate(
    images: Images,
    *,
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="SAMBOX prompt file.")] = None,
    masks: Annotated[Path | None, typer.Option(help="True masks: folder, COCO or GeoJSON.")] = None,
    mask_values: MaskValues = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Click as a user would, from the masks.")
    ] = False,
    model: Model = "tiny",
    device: Device = "auto",
    channels: Channels = None,
    axes: Axes = None,
    series: Series = None,
    overlay: Overlay = False,
    overwrite: Overwrite = False,
    dask: Dask = None,
    record: Record = None,
    json_: AsJson = False,
    settings: AnnotateSettings,
    segment: SegmentSettings,
) -> None:
    """Turn prompts, or simulated clicks, into masks and a prompt file."""
    from napari_samic import pipeline, recipes
    from napari_samic.pipeline.common import check_channels

    job = recipes.recorded(pipeline.annotate, record)(
        images, out=out, prompts=prompts, masks=masks, mask_values=mask_values,
        simulate=simulate, model=model, device=device, channels=check_channels(channels),
        axes=axes, series=series,
        settings=settings, segment=segment, overlay=overlay, overwrite=overwrite, dask=dask,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    figures = outcome.figures
    line = (
        f"{figures['objects']} objects, {figures['clicks_per_object']:.1f} clicks each, "
        f"mean confidence {figures['mean_score']:.2f}"
    )
    if figures["hidden"]:
        line += f", {figures['hidden']} hidden by others"
    if "miou" in figures:
        line += f", mIoU {figures['miou']:.3f} against the masks"
    report(outcome, [line] * bool(outcome.done) + [counts(outcome)], as_json=json_)


@app.command()
@with_settings(
    "images", "out", "prompts", "masks", "model", "encoder", "epochs", "minutes", "seed",
    "overwrite", "record",
    settings=TrainSettings, prompter=PrompterSettings, heat=HeatMapSettings, peaks=PeakSettings,
    adapt=AdaptSettings,
)  # fmt: skip
def train(
    images: Annotated[list[str], typer.Option("--images", help="Folder of the images.")],
    *,
    out: Annotated[Path, typer.Option(help="Prompter file to write.")],
    prompts: Annotated[Path | None, typer.Option(help="SAMBOX prompt file.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks: folder, COCO or GeoJSON.")] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Every setting as the paper has it; settings given besides count.",
        ),
    ] = False,
    mask_values: MaskValues = None,
    others: Annotated[
        list[str] | None,
        typer.Option(help="Images without annotation to learn from, too."),
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    channels: Channels = None,
    axes: Axes = None,
    series: Series = None,
    overwrite: Overwrite = False,
    record: Record = None,
    json_: AsJson = False,
    settings: TrainSettings,
    prompter: PrompterSettings,
    heat: HeatMapSettings,
    peaks: PeakSettings,
    adapt: AdaptSettings,
) -> None:
    """Train a prompter from a few annotated images."""
    from napari_samic import pipeline, recipes
    from napari_samic.pipeline.common import check_channels

    del paper  # in the settings
    job = recipes.recorded(pipeline.train, record)(
        images, out=out, prompts=prompts, masks=masks, mask_values=mask_values,
        others=others or None, model=model, device=device, channels=check_channels(channels),
        axes=axes, series=series, settings=settings, prompter=prompter,
        heat=heat, peaks=peaks, adapt=adapt, overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    summaries = [text for k in ("summary", "growth", "tuning") if (text := outcome.figures[k])]
    lines = [
        f"{len(outcome.done)} references: {summaries[0]}",
        *summaries[1:],
        f"wrote {outcome.out}",
    ]
    report(outcome, lines, as_json=json_)


@app.command()
def precompute(
    images: Images,
    *,
    prompter: Annotated[
        Path | None, typer.Option(help="Prompter file that is to segment them.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file whose range of pixels is taken.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Segmenter; else the prompter's, or tiny.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Another network whose features are kept, too.")
    ] = None,
    device: Device = "auto",
    channels: Channels = None,
    axes: Axes = None,
    series: Series = None,
    dask: Dask = None,
    json_: AsJson = False,
) -> None:
    """Encode images ahead, so that to annotate or segment them is quick."""
    from napari_samic import pipeline
    from napari_samic.pipeline.common import check_channels

    job = pipeline.precompute(
        images, prompter=prompter, prompts=prompts, model=model, encoder=encoder, device=device,
        channels=check_channels(channels), axes=axes, series=series, dask=dask,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    line = (
        f"{len(outcome.done)} encoded, {len(outcome.skipped)} known before: "
        f"{outcome.figures['bytes'] / 1e6:.1f} MB in {outcome.out}"
    )
    report(outcome, [line], as_json=json_)


@app.command()
@with_settings(
    "prompter", "out", "preset", "method", "device", "threshold", "min_score", "strategy", "follow",
    "overlay", "overwrite", "record",
    settings=SegmentSettings, peaks=ChangedSettings(PeakSettings), memory=MemorySettings,
    strategy=StrategySettings, refine=RefineSettings,
)  # fmt: skip
def segment(
    images: Images,
    *,
    prompter: Annotated[Path, typer.Option(help="Prompter file of `train`.")],
    out: Out,
    annotated: Annotated[
        Path | None,
        typer.Option(help="Folder of `annotate` whose images keep their labels."),
    ] = None,
    preset: PresetName = PRESETS[0].name,
    model: Annotated[
        str | None, typer.Option(help="Where its segmenter is now, if it moved.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Where its encoder is now, if it moved.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="What says where objects are: auto, samic, persam, persam-f, matcher, prototypes, "
            "forest, instant, registration; other packages' are in `models list`."
        ),
    ] = "auto",
    device: Device = "auto",
    axes: Axes = None,
    series: Series = None,
    rescale: Annotated[
        bool,
        typer.Option("--rescale", help="Fit the range anew to images of another scale."),
    ] = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also write heat maps.")] = False,
    overlay: Overlay = False,
    overwrite: Overwrite = False,
    dask: Dask = None,
    record: Record = None,
    json_: AsJson = False,
    settings: SegmentSettings,
    peaks: dict[str, Any],
    memory: MemorySettings,
    strategy: StrategySettings,
    refine: RefineSettings,
) -> None:
    """Segment images with a trained prompter."""
    from napari_samic import pipeline, recipes
    from napari_samic.pipeline.segment import stored_peaks

    del preset  # in the settings
    job = recipes.recorded(pipeline.segment, record)(
        images, prompter=prompter, out=out, annotated=annotated, model=model, encoder=encoder,
        method=method, device=device, axes=axes, series=series, settings=settings,
        peaks=replace(stored_peaks(prompter), **peaks) if peaks else None, memory=memory,
        strategy=strategy, refine=refine,
        rescale=rescale, heatmaps=heatmaps, overlay=overlay, overwrite=overwrite, dask=dask,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    figures = outcome.figures
    line = f"{figures['objects']} objects, mean confidence {figures['mean_score']:.2f}"
    if figures["empty"]:
        line += f", {figures['empty']} images without any"
    report(outcome, [line] * bool(outcome.done) + [counts(outcome)], as_json=json_)


@app.command()
def evaluate(
    *,
    predictions: Annotated[Path, typer.Option(help="Folder of label files.")],
    truth: Annotated[Path, typer.Option(help="True masks: folder (same stems), COCO, GeoJSON.")],
    mask_values: MaskValues = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    overwrite: Overwrite = False,
    dask: Dask = None,
    record: Record = None,
    json_: AsJson = False,
) -> None:
    """Score label files against ground truth."""
    from napari_samic import pipeline, recipes

    job = recipes.recorded(pipeline.evaluate, record)(
        predictions=predictions, truth=truth, mask_values=mask_values, out=out,
        overwrite=overwrite, dask=dask,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    figures = outcome.figures
    line = (
        f"{figures['n']} images: mIoU {figures['miou']:.3f}, Dice {figures['dice']:.3f}, "
        f"boundary F {figures['boundary_f']:.3f}; objects: precision "
        f"{figures['object_precision']:.3f}, recall {figures['object_recall']:.3f}, "
        f"F1 {figures['object_f1']:.3f}"
    )
    report(outcome, [line], as_json=json_)


app.command()(accept)
app.command()(benchmark)
app.command()(export)
app.command()(status)


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"napari-samic {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
