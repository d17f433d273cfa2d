"""The shell's `accept` and `export`: from results to what is kept, and to what others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    "results", "out", "tiff", "png", "ome_zarr", "coco", "geojson", "table", "prompt_file",
    "overwrite",
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
    """Write results as label TIFF, PNG, OME-Zarr, COCO, GeoJSON, measurements or prompts."""
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
