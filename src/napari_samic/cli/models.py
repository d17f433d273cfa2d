"""The shell's `models` commands: what there is, and how weights get here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from napari_samic.cli.options import AsJson
from napari_samic.cli.progress import one_interrupt, print_json

models_app = typer.Typer(help="List, fetch, import and verify networks.", no_args_is_help=True)


@models_app.command("list")
def models_list(json_: AsJson = False) -> None:
    """What is known, what is on this machine, and what other packages bring."""
    from napari_samic.models.hub import registry

    states = {name: status for name, status, _ in registry.verify(quick=True)}
    rows = [
        (s.name, s.role, states.get(s.name, ""), s.licence, str(registry.card(s) or ""))
        for s in registry.specs()
    ]
    rows += [
        (name, role, "another package's", "", "")
        for role in ("segmenter", "prompter")
        for name in registry.plugins(f"{role}s")
    ]
    if json_:
        keys = ("name", "role", "status", "licence", "card")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table = Table("name", "role", "status", "licence")
    for row in rows:
        table.add_row(*row[:4])
    Console().print(table)
    for name, *_, card in rows:
        if card:
            print(f"model card of {name}: {card}")


class _Download:
    """A bar as pooch wants it: `total`, `update`, `reset`, `close`."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(name, total=None)

    @property
    def total(self) -> int:
        return int(self._bar.tasks[self._task].total or 0)

    @total.setter
    def total(self, size: int) -> None:
        self._bar.start()
        self._bar.update(self._task, total=size)

    def update(self, more: int) -> None:
        """Note bytes that came."""
        self._bar.update(self._task, advance=more)

    def reset(self) -> None:
        """Begin anew; pooch does so before it sets all of it."""
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="As in `models list`.")], json_: AsJson = False
) -> None:
    """Download weights and check their checksum."""
    import pooch

    from napari_samic.models.hub import registry

    pooch.get_logger().setLevel("WARNING")
    bar = _Download(name)
    with one_interrupt():
        try:
            path = registry.fetch(name, progress=bar)
        finally:
            bar.close()
    if json_:
        print_json({"name": name, "path": path})
    else:
        print(f"{name}: {path}")


@models_app.command("import")
def models_import(
    file: Annotated[Path, typer.Argument(help="Weights that you have.")],
    name: Annotated[str, typer.Option(help="Name to use it by.")],
    arch: Annotated[
        str,
        typer.Option(
            help="Network: vit_b, vit_l, vit_h, mobile_sam, tiny, resnet50, or timm for an encoder "
            "whose --name begins with timm's name of it; default: told from the file when it is "
            "used as a segmenter."
        ),
    ] = "",
    sha256: Annotated[str | None, typer.Option(help="Checksum that it must have.")] = None,
    json_: AsJson = False,
) -> None:
    """Copy a weights file into the package's folder."""
    from napari_samic.models.hub import registry

    with one_interrupt():
        spec = registry.import_file(file, name=name, arch=arch or "auto", sha256=sha256)
    checksum = registry.weights_sha256(spec.name)
    if json_:
        print_json({"name": spec.name, "role": spec.role, "arch": spec.arch, "sha256": checksum})
    else:
        print(f"{spec.name}: imported as {spec.role}, sha256 {checksum}")


@models_app.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    json_: AsJson = False,
) -> None:
    """Compare weights on this machine with their checksums; 3 if one is damaged."""
    from napari_samic.models.hub import registry

    rows = registry.verify(name)
    if json_:
        print_json([dict(zip(("name", "status", "detail"), row, strict=True)) for row in rows])
    for model, status, detail in rows:
        if not json_:
            print(f"{model}: {status} {detail}".rstrip())
        if status == "damaged":
            print(f"error: {model}: {detail}. Fetch or import it again.", file=sys.stderr)
    if any(status == "damaged" for _, status, _ in rows):
        raise typer.Exit(3)
