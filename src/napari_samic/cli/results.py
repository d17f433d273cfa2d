"""The shell's `accept`, `export` and `status`: what is kept of results, read by others, or left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_samic.cli.options import AsJson, Out, Overwrite, Record, with_settings
from napari_samic.cli.progress import drive, report
from napari_samic.core.settings import ExportSettings


def accept(
    *,
    results: Annotated[Path, typer.Option(help="Folder of `segment` or `annotate`.")],
    review: Annotated[Path, typer.Option(help="Review file: a verdict for each image.")],
    out: Out,
    edits: Annotated[
        Path | None, typer.Option(help="Folder of the edited label files that the review names.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompt file of the edited images, and of the names of the classes."),
    ] = None,
    overwrite: Overwrite = False,
    record: Record = None,
    json_: AsJson = False,
) -> None:
    """Copy what a review accepts to a clean folder, edited labels in place of predicted ones."""
    from napari_samic import pipeline, recipes

    job = recipes.recorded(pipeline.accept, record)(
        results, review=review, out=out, edits=edits, prompts=prompts,
        overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    figures = outcome.figures
    line = (
        f"{figures['accepted']} accepted, {figures['edited']} edited, "
        f"{figures['rejected']} rejected, {figures['unreviewed']} not reviewed; "
        f"labels in {outcome.out}"
    )
    report(outcome, [line], as_json=json_)


@with_settings(
    "results", "out", "tiff", "png", "ome_zarr", "coco", "geojson", "roi", "table",
    "prompt_file", "overwrite",
    settings=ExportSettings,
)  # fmt: skip
def export(
    *,
    results: Annotated[Path, typer.Option(help="Folder of `segment`, `annotate` or `accept`.")],
    out: Out,
    classes: Annotated[
        Path | None, typer.Option(help="Prompt file whose names of the classes are used.")
    ] = None,
    overwrite: Overwrite = False,
    record: Record = None,
    json_: AsJson = False,
    settings: ExportSettings,
) -> None:
    """Write results as label TIFF, PNG, OME-Zarr, COCO, GeoJSON, ROIs, measurements or prompts."""
    from napari_samic import pipeline, recipes

    job = recipes.recorded(pipeline.export, record)(
        results, out=out, classes=classes, settings=settings, overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    figures = outcome.figures
    count = len(figures["files"])
    line = (
        f"{figures['objects']} objects of {len(outcome.done)} images in {count} "
        f"file{'s' * (count != 1)}; in {outcome.out}"
    )
    report(outcome, [line], as_json=json_)


def status(
    results: Annotated[Path, typer.Argument(help="Folder of `segment`, `annotate` or `accept`.")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every label file, not only what looks changed.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Say how far a folder of results is, also while a run goes on; 0 if all is done and intact."""
    from napari_samic import pipeline
    from napari_samic.pipeline.results.status import STATES

    outcome = drive(pipeline.status(results, verify=verify), as_json=json_)
    figures = outcome.figures
    counts = {"done": len(outcome.done)} | {k: figures[k] for k in STATES[1:]}
    lines = [f"{name:<10} {count:>7}" for name, count in counts.items() if count or name == "done"]
    if outcome.done:
        line = f"{figures['objects']} objects"
        if figures["mean_score"] is not None:
            line += f", mean confidence {figures['mean_score']:.2f}"
        if figures["seconds"] is not None:
            line += f", {figures['seconds']:.2f} s an image"
        lines.append(line)
    lines += [_run_line(run) for run in figures["runs"]]
    report(outcome, [*lines, f"next: {figures['next']}"], as_json=json_)
    if figures["unfinished"] or figures["is_stopped"]:
        raise typer.Exit(1)


def _run_line(run: Mapping[str, Any]) -> str:
    """What a run was, in short: hashes by their first digits, without its groups of settings."""
    values = {k: v for k, v in run["run"].items() if isinstance(v, str | int) and v != ""}
    job, version = values.pop("job", "?"), values.pop("version", "?")
    short = [f"{k} {str(v)[:12] if len(str(v)) == 64 else v}" for k, v in values.items()]
    line = f"{run['images']} by {', '.join([f'{job} of napari-samic {version}', *short])}"
    when = f"; begun {run['started']} on {run['host']}" if run["started"] else ""
    return line + when + (f", ended {run['ended']}" if run["ended"] else "")
