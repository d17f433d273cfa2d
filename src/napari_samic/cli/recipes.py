"""The shell's `run`: a recipe replayed, or what would happen told step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_samic.cli.options import AsJson, Overwrite
from napari_samic.cli.progress import drive, report
from napari_samic.core.errors import InputError


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file that --record made.")],
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[STEP.]KEY=VALUE",
            help="Change a setting, path or model, as epochs=20, train.epochs=20 or 2.epochs=20; "
            "may be repeated.",
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Segment these instead of the recorded images; may be repeated. Needs --out."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all results.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would happen; write nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what has changed since.")
    ] = False,
    anywhere: Annotated[
        bool,
        typer.Option("--anywhere", help="Also write outside of the recipe's folder."),
    ] = False,
    overwrite: Overwrite = False,
    json_: AsJson = False,
) -> None:
    """Replay a recipe: the same commands, the same labels."""
    from napari_samic import recipes

    job = recipes.replay(
        recipe, set=_changes(set_ or []), images=images or None, out=out, overwrite=overwrite,
        strict=strict, dry_run=dry_run, anywhere=anywhere,
    )  # fmt: skip
    outcome = drive(job, as_json=json_)
    tell = _would if dry_run else _did
    lines = [line for row in outcome.figures["steps"] for line in tell(row)]
    report(outcome, [*lines, *(["nothing was written"] * dry_run)], as_json=json_)


def _changes(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    faulty = [repr(word) for word, (key, sign, _) in zip(words, pairs, strict=True)
              if not (key and sign)]  # fmt: skip
    if faulty:
        raise InputError(f"--set {', '.join(faulty)}: expected KEY=VALUE, as train.epochs=20.")
    return {key: value for key, _, value in pairs}


def _head(row: dict[str, Any]) -> str:
    return f"{row['step']} {row['do']}"


def _would(row: dict[str, Any]) -> list[str]:
    """What a step would do."""
    if "left_out" in row:
        return [f"{_head(row)}: left out: {row['left_out']}"]
    lines = [f"{_head(row)}:"]
    for key, source in row["inputs"].items():
        paths = source["path"] if isinstance(source["path"], str) else ", ".join(source["path"])
        origin = f"from step {source['from_step']}"
        what = (
            origin
            if source["from_step"]
            else f"{source['files']} file{'s' * (source['files'] != 1)}"
        )
        lines.append(f"    {key}: {paths} ({what})")
    if row["model"]:
        lines.append(f"    model: {row['model']}")
    if row["settings"]:
        lines.append(f"    settings: {', '.join(f'{k}={v}' for k, v in row['settings'].items())}")
    return [*lines, f"    to: {row['out']}"] if row["out"] else lines


def _did(row: dict[str, Any]) -> list[str]:
    """What a step did."""
    if "left_out" in row:
        return [f"{_head(row)}: left out: {row['left_out']}"]
    line = f"{_head(row)}: {row['done']} done"
    if row["skipped"]:
        line += f", {row['skipped']} done before (add --overwrite to do them again)"
    if row["failures"]:
        line += f", {row['failures']} failed"
    if "miou" in row["figures"]:
        line += f", mIoU {row['figures']['miou']:.3f}"
    if row["same_labels"] is not None:
        line += (
            ", same labels as recorded" if row["same_labels"] else ", OTHER labels than recorded"
        )
    return [line + (f"; results in {row['out']}" if row["out"] else "")]
