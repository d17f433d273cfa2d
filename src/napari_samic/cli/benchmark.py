"""The command of the shell that compares ways on public data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_samic.cli.options import AsJson, Device, Model, with_settings
from napari_samic.cli.progress import drive, report
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.io.text_files import read_text

SETS = "Data set, as kvasir-seg, davis-16 or folder; docs/settings.md lists all."
WAYS = "What is compared, as paper+level,default,unet; docs/settings.md lists all."


def _numbers(text: str, what: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{what} {text!r}: expected numbers, as 1,5,20.") from error


def _names(files: list[Path] | None) -> list[str]:
    lines = [n for file in files or () for n in read_text(file, "a list of names").splitlines()]
    return [line.strip() for line in lines if line.strip()]


@with_settings(
    "data", "out", "ways", "shots", "seeds", "targets", "model", "device", "epochs", "minutes",
    training=TrainSettings, adapt=AdaptSettings,
)  # fmt: skip
def benchmark(
    name: Annotated[str, typer.Argument(help=SETS)],
    *,
    data: Annotated[Path, typer.Option(help="Its folder, as its archive unpacks.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; cells in it are kept.")],
    ways: Annotated[str, typer.Option(help=WAYS)] = "paper+level,default",
    shots: Annotated[str, typer.Option(help="Numbers of references, as 1,5,20.")] = "5",
    seeds: Annotated[str, typer.Option(help="As 0,1,2.")] = "0",
    targets: Annotated[int, typer.Option(help="Images an episode at most; 0: all.", min=0)] = 0,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="File of names, one a line, that are never targets; may be repeated."),
    ] = None,
    elsewhere: Annotated[
        Path | None,
        typer.Option(help="Another folder of this layout: targets, too, but no references."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this part of the set.")] = None,
    share: Annotated[
        float, typer.Option(help="Part of the training images that is learned from.")
    ] = 0.2,
    baseline: Annotated[
        str | None, typer.Option(help="The way that others are compared with. [first]")
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    json_: AsJson = False,
    training: TrainSettings,
    adapt: AdaptSettings,
) -> None:
    """Compare ways of segmenting on a public data set, over the same images and seeds."""
    from napari_samic.benchmark.run import benchmark as job_of

    job = job_of(
        name, data=data, out=out, ways=ways.split(","), shots=_numbers(shots, "--shots"),
        seeds=_numbers(seeds, "--seeds"), targets=targets, split=split, share=share,
        without=_names(without), elsewhere=elsewhere, baseline=baseline, model=model,
        device=device, training=training, adapt=adapt,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    tables = [
        outcome.figures[k]
        for k in ("table", "measures_table", "cost_table")
        if k in outcome.figures
    ]
    report(outcome, [*tables, f"wrote {outcome.out}"], as_json=json_)
