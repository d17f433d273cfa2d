"""The shell: `napari-samic demo|annotate|train|segment|evaluate|models`.

Wiring only: options come from the settings dataclasses, work from the pipeline's jobs.
Exit codes: 0 done; 1 done, but some images failed; 2 bad input or usage; 3 something of the machine
is missing or refuses (weights, network, disk); 130 Ctrl-C.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from napari_samic import __version__
from napari_samic.contracts import Job
from napari_samic.errors import SamicError
from napari_samic.export import plain
from napari_samic.settings import (
    AnnotateSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    Settings,
    TrainSettings,
)

R = TypeVar("R")
S = TypeVar("S", bound=Settings)

app = typer.Typer(
    help="Click on five images, get five hundred: in-context segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
models_app = typer.Typer(help="List, fetch, import and verify networks.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Images = Annotated[list[str], typer.Argument(help="Images: files, folders, globs, OME-Zarr.")]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Model = Annotated[str, typer.Option(help="Segmenter: see `models list`, or path:FILE.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Channels = Annotated[
    str | None, typer.Option(help="Channels that become red, green, blue, as 2,0,1.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Overlay = Annotated[bool, typer.Option("--overlay", help="Also draw a contact sheet.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]


def with_settings(**groups: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of each dataclass.

    The command takes one argument a group; what is not given on the shell keeps its default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [p for p in own.parameters.values() if p.name not in groups]
        extra = [
            _option(spec, hints[spec.name])
            for kind in groups.values()
            for hints in [get_type_hints(kind)]
            for spec in fields(kind)
        ]

        def call(**values: Any) -> None:
            made = {
                name: kind.from_dict({s.name: values.pop(s.name) for s in fields(kind)})
                for name, kind in groups.items()
            }
            command(**values, **made)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = own.replace(parameters=[*kept, *extra])  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*kept, *extra]}
        return call

    return decorate


def _option(spec: Any, kind: Any) -> inspect.Parameter:
    meta = spec.metadata
    text = meta["help"] + (f" In {meta['unit']}." if meta["unit"] else "")
    if meta["choices"]:
        text += f" One of {', '.join(map(str, meta['choices']))}."
    option = typer.Option(help=text, rich_help_panel="Settings")
    return inspect.Parameter(
        spec.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=spec.default,
        annotation=Annotated[kind, option],
    )


def drive(job: Job[R], *, as_json: bool) -> R:
    """Run a job behind a progress bar on stderr, with rate and remaining time."""
    console = Console(stderr=True, quiet=as_json)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("starting", total=None)
        try:
            while True:
                step = next(job)
                text = step.message if len(step.message) < 60 else step.message[:59] + "…"
                bar.update(task, completed=step.done, total=step.total or None, description=text)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            job.close()


def report(outcome: Any, lines: list[str], *, as_json: bool) -> None:
    """Print what a job did, name the images that failed, and leave with 1 if any did."""
    failures = dict(getattr(outcome, "failures", {}))
    if as_json:
        content = {
            "out": outcome.out,
            "done": len(outcome.done),
            "skipped": len(outcome.skipped),
            "failures": failures,
            **outcome.figures,
        }
        print(json.dumps(plain(content)))
    else:
        for line in lines:
            print(line)
        for name, reason in failures.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def _counts(outcome: Any) -> str:
    line = f"{len(outcome.done)} done"
    if outcome.skipped:
        line += f", {len(outcome.skipped)} done before (add --overwrite to do them again)"
    if outcome.failures:
        line += f", {len(outcome.failures)} failed"
    return f"{line}; results in {outcome.out}"


@app.command()
def demo(
    out: Out = Path("samic-demo"),
    model: Model = "tiny",
    device: Device = "auto",
    overwrite: Overwrite = False,
    json_: AsJson = False,
) -> None:
    """Annotate, train, segment and evaluate the packaged sample sets; needs no download."""
    from napari_samic import pipeline

    outcome = drive(
        pipeline.demo(out=out, model=model, device=device, overwrite=overwrite), as_json=json_
    )
    lines = []
    for name, found in outcome.figures.items():
        lines.append(f"{name}: {found['training']}")
        for image, row in found["images"].items():
            counts = f"{row['n_matched']:.0f} of {row['n_true']:.0f} objects found"
            extra = row["n_predicted"] - row["n_matched"]
            lines.append(f"  {image}  IoU {row['iou']:.3f}  {counts}, {extra:.0f} false")
        lines.append(
            f"{name}: mIoU {found['miou']:.3f}  Dice {found['dice']:.3f}  "
            f"object F1 {found['object_f1']:.3f}  ({found['seconds']} s)"
        )
    lines.append(f"look at {outcome.out / 'contact-sheet.png'}")
    report(outcome, lines, as_json=json_)


@app.command()
@with_settings(settings=AnnotateSettings, segment=SegmentSettings)
def annotate(
    images: Images,
    *,
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="SAMBOX prompt file.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of ground-truth masks.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Click as a user would, from the masks.")
    ] = False,
    model: Model = "tiny",
    device: Device = "auto",
    channels: Channels = None,
    overlay: Overlay = False,
    overwrite: Overwrite = False,
    json_: AsJson = False,
    settings: AnnotateSettings,
    segment: SegmentSettings,
) -> None:
    """Turn prompts, or simulated clicks, into masks and a prompt file."""
    from napari_samic import pipeline
    from napari_samic.pipeline.common import check_channels

    job = pipeline.annotate(
        images, out=out, prompts=prompts, masks=masks, simulate=simulate, model=model,
        device=device, channels=check_channels(channels), settings=settings, segment=segment,
        overlay=overlay, overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    found = outcome.figures
    line = (
        f"{found['objects']} objects, {found['clicks_per_object']:.1f} clicks each, "
        f"mean confidence {found['mean_score']:.2f}"
    )
    if "miou" in found:
        line += f", mIoU {found['miou']:.3f} against the masks"
    report(outcome, [line, _counts(outcome)], as_json=json_)


@app.command()
@with_settings(
    settings=TrainSettings, prompter=PrompterSettings, heat=HeatMapSettings, peaks=PeakSettings
)
def train(
    images: Annotated[list[str], typer.Option("--images", help="Folder of the images.")],
    *,
    out: Annotated[Path, typer.Option(help="Prompter file to write.")],
    prompts: Annotated[Path | None, typer.Option(help="SAMBOX prompt file.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks.")] = None,
    model: Model = "tiny",
    device: Device = "auto",
    channels: Channels = None,
    overwrite: Overwrite = False,
    json_: AsJson = False,
    settings: TrainSettings,
    prompter: PrompterSettings,
    heat: HeatMapSettings,
    peaks: PeakSettings,
) -> None:
    """Train a prompter from a few annotated images."""
    from napari_samic import pipeline
    from napari_samic.pipeline.common import check_channels

    job = pipeline.train(
        images, out=out, prompts=prompts, masks=masks, model=model, device=device,
        channels=check_channels(channels), settings=settings, prompter=prompter, heat=heat,
        peaks=peaks, overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    lines = [
        f"{len(outcome.done)} references: {outcome.figures['summary']}",
        f"wrote {outcome.out}",
    ]
    report(outcome, lines, as_json=json_)


@app.command()
@with_settings(settings=SegmentSettings)
def segment(
    images: Images,
    *,
    prompter: Annotated[Path, typer.Option(help="Prompter file of `train`.")],
    out: Out,
    device: Device = "auto",
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also write heat maps.")] = False,
    overlay: Overlay = False,
    overwrite: Overwrite = False,
    json_: AsJson = False,
    settings: SegmentSettings,
) -> None:
    """Segment images with a trained prompter."""
    from napari_samic import pipeline

    job = pipeline.segment(
        images, prompter=prompter, out=out, device=device, settings=settings,
        heatmaps=heatmaps, overlay=overlay, overwrite=overwrite,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    found = outcome.figures
    line = f"{found['objects']} objects, mean confidence {found['mean_score']:.2f}"
    if found["empty"]:
        line += f", {found['empty']} images without any"
    report(outcome, [line, _counts(outcome)], as_json=json_)


@app.command()
def evaluate(
    *,
    predictions: Annotated[Path, typer.Option(help="Folder of label files.")],
    truth: Annotated[Path, typer.Option(help="Folder of ground-truth masks, same stems.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    overwrite: Overwrite = False,
    json_: AsJson = False,
) -> None:
    """Score label files against ground truth."""
    from napari_samic import pipeline

    job = pipeline.evaluate(predictions=predictions, truth=truth, out=out, overwrite=overwrite)
    outcome = drive(job, as_json=json_)
    found = outcome.figures
    line = (
        f"{found['n']} images: mIoU {found['miou']:.3f}, Dice {found['dice']:.3f}, "
        f"boundary F {found['boundary_f']:.3f}; objects: precision "
        f"{found['object_precision']:.3f}, recall {found['object_recall']:.3f}, "
        f"F1 {found['object_f1']:.3f}"
    )
    report(outcome, [line], as_json=json_)


@models_app.command("list")
def models_list(json_: AsJson = False) -> None:
    """What is known, and what is on this machine."""
    from napari_samic.models import registry

    states = {name: status for name, status, _ in registry.verify(quick=True)}
    rows = [(s.name, s.role, states.get(s.name, ""), s.licence) for s in registry.specs()]
    if json_:
        keys = ("name", "role", "status", "licence")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    table = Table("name", "role", "status", "licence")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(help="As in `models list`.")]) -> None:
    """Download weights and check their checksum."""
    from napari_samic.models import registry

    print(f"{name}: {registry.fetch(name, progress=True)}")


@models_app.command("import")
def models_import(
    file: Annotated[Path, typer.Argument(help="Weights that you have.")],
    name: Annotated[str, typer.Option(help="Name to use it by.")],
    arch: Annotated[
        str,
        typer.Option(
            help="Network: vit_b, vit_l, vit_h, mobile_sam, tiny, resnet50; default: guessed."
        ),
    ] = "",
    sha256: Annotated[str | None, typer.Option(help="Checksum that it must have.")] = None,
) -> None:
    """Copy a weights file into the package's folder."""
    from napari_samic.models import registry

    spec = registry.import_file(file, name=name, arch=arch or "auto", sha256=sha256)
    print(f"{spec.name}: imported, sha256 {spec.sha256}")


@models_app.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
) -> None:
    """Compare weights on this machine with their checksums."""
    from napari_samic.models import registry

    bad = False
    for model, status, detail in registry.verify(name):
        print(f"{model}: {status} {detail}".rstrip())
        bad |= status == "damaged"
    if bad:
        raise typer.Exit(3)


def _version(shown: bool) -> None:
    if shown:
        print(f"napari-samic {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main(arguments: list[str] | None = None) -> None:
    """Run the shell; an error of ours is one line, a bug is a traceback."""
    try:
        code = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        print("cancelled; what was done is kept", file=sys.stderr)
        sys.exit(130)
    except SamicError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()  # usage errors of typer's
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
