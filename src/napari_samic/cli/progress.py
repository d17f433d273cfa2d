"""Driving a job from the shell: a bar with rate and remaining time, Ctrl-C, and the report."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:  # `--help` loads no NumPy
    from napari_samic.core.types import Job, JobProgress

R = TypeVar("R")
SHOWN = 5
"""Failures that are told on the shell; the others stand in failures.csv."""

# Phase of a Step: what one unit is called, and how many of its counts make one unit.
_UNITS = {
    "batch": ("epoch", 1000),
    "epoch": ("epoch", 1000),
    "load": ("", 1),
    "demo": ("", 1),
    "hash": ("file", 1),
    "check": ("file", 1),
}


class _Rate(ProgressColumn):
    """`3.2 images/s`, or `4.1 s/image` if that is slower."""

    def render(self, task: Task) -> Text:
        unit, speed = task.fields.get("unit", ""), task.finished_speed or task.speed
        if not unit or not speed:
            return Text("")
        text = f"{speed:.1f} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"
        return Text(text, style="cyan")


class ProgressBoard:
    """Shows Steps; every phase of a job has a bar of its own, so that no bar goes back."""

    def __init__(self, console: Console, *, disable: bool) -> None:
        self.bar = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
            _Rate(table_column=Column(no_wrap=True, min_width=10)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            disable=disable,
            expand=True,
            speed_estimate_period=600,  # s; a large network takes a minute for an image
        )
        self._task: TaskID | None = None
        self._phase = ""

    def show(self, step: JobProgress) -> None:
        """Bring the bar of the step's phase up to date."""
        phase = str(step.data.get("phase", ""))
        unit, scale = _UNITS.get(phase, ("image", 1))
        phase = "epoch" if phase == "batch" else phase
        phase += f" {step.data.get('step', '')}"  # of a recipe
        if self._task is None or phase != self._phase:
            self._close()
            self._task = self.bar.add_task(step.message, total=None, unit=unit)
            self._phase = phase
        total = step.total / scale if step.total else None
        self.bar.update(
            self._task, completed=step.done / scale, total=total, description=step.message
        )

    def _close(self) -> None:
        """A phase that ended early is done all the same."""
        if self._task is not None:
            now = self.bar.tasks[self._task]
            self.bar.update(self._task, total=now.completed or 1, completed=now.completed or 1)

    def finish(self) -> None:
        """Close the last bar."""
        self._close()

    def vanish(self) -> None:
        """Leave no bar behind: the error line is what matters."""
        self.bar.live.transient = True


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the work; further ones do not disturb the tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = [k for k in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(k) != signal.SIG_IGN]

    def stop(*_: Any) -> None:
        for kind in kinds:
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, stop) or signal.SIG_DFL for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def drive(job: Job[R], *, as_json: bool) -> R:
    """Run a job; its bar is drawn on stderr if that is a terminal."""
    console = Console(stderr=True)
    board = ProgressBoard(console, disable=as_json or not console.is_terminal)
    with one_interrupt(), board.bar:
        try:
            while True:
                board.show(next(job))
        except StopIteration as stop:
            board.finish()
            return stop.value  # type: ignore[no-any-return]
        except BaseException:
            board.vanish()
            raise
        finally:
            job.close()


def print_json(content: Any) -> None:
    """Print one JSON document."""
    from napari_samic.io.writers import plain

    print(json.dumps(plain(content), ensure_ascii=False))


def report(outcome: Any, lines: list[str], *, as_json: bool) -> None:
    """Print what a job did and what to know of it, name failed images, and leave with 1 if any."""
    failures = dict(outcome.failures)
    if as_json:
        content = {
            "out": outcome.out,
            "done": len(outcome.done),
            "skipped": len(outcome.skipped),
            "failures": failures,
            "notices": outcome.notices,
            **outcome.figures,
        }
        print_json(content)
    else:
        for line in lines:
            print(line)
        for notice in outcome.notices:
            print(f"note: {notice}", file=sys.stderr)
        for reason in list(failures.values())[:SHOWN]:
            print(f"failed: {reason}", file=sys.stderr)
        if len(failures) > SHOWN:
            print(f"failed: {len(failures) - SHOWN} more", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def counts(outcome: Any) -> str:
    """One line: how many were done, skipped, failed, and where the results are."""
    line = f"{len(outcome.done)} done"
    if outcome.skipped:
        line += f", {len(outcome.skipped)} done before (add --overwrite to do them again)"
    if outcome.failures:
        line += f", {len(outcome.failures)} failed (see failures.csv)"
    return f"{line}; results in {outcome.out}"
