"""How the window feels while it works: stalls, click to mask, what is read, memory. One table.

    xvfb-run -a -s "-screen 0 1280x1024x24" python benchmarks/window.py [--images 60] [--out DIR]

A real napari window with the dock, the packaged model and drawn scenes of 512 x 512. Rows:

- stalls: gaps between the ticks of a 10 ms timer in the main thread, in ms: half of them, 99 % and
  all are below; while nothing is done, while a prompter is trained, and while it propagates. The
  line below counts only what the window does itself: not the time in which the main thread could
  run but other processes had the cores (as Linux counts it).
- dock open: from the menu entry to the dock's first paint, in the first window of a process; image
  clickable: from there until the model is loaded and the image encoded; stalls in that time.
- click to mask: from a click (`Points.add`) to the end of the first frame that shows the mask, in
  ms; the median and worst of 30, each on an encoded image, half of them second clicks on an object.
- live: from the mask of a new object to the frame that shows what would be found now, with five
  references; the median and worst of 8.
- reads: planes of a file that are read when it is opened and shown, of how many; a stack of 200
  slices in one file, and a folder of 500.
- memory: largest resident size of the process, in MB, sampled every 20 ms.

What else runs on the machine counts, so the load average stands below the table.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 512


class Ticker:
    """Gaps between ticks of a 10 ms timer in the main thread."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps_ms: list[float] = []
        self.own_ms: list[float] = []
        self.last, self._waited = time.perf_counter(), queued_ms()
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)

    def _tick(self) -> None:
        now, waited = time.perf_counter(), queued_ms()
        gap = 1e3 * (now - self.last)
        self.gaps_ms.append(gap)
        self.own_ms.append(max(0.0, gap - (waited - self._waited)))
        self.last, self._waited = now, waited

    def __enter__(self) -> Ticker:
        self.last, self._waited = time.perf_counter(), queued_ms()
        self.timer.start(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.stop()

    def rows(self) -> tuple[list[float], list[float]]:
        """Half, 99 % and all of the gaps; and without waiting for a core."""
        percentiles = [
            [float(np.percentile(v, p)) for p in (50, 99, 100)] for v in (self.gaps_ms, self.own_ms)
        ]
        return percentiles[0], percentiles[1]


def queued_ms() -> float:
    """How long the calling thread has waited for a core that others used; Linux says so."""
    try:
        text = Path("/proc/thread-self/schedstat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(text.split()[1]) / 1e6


class Memory(threading.Thread):
    """Largest resident size while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import psutil

        self._process, self._stop = psutil.Process(), threading.Event()
        self.before_mb = self.peak_mb = self._now()

    def _now(self) -> float:
        return float(self._process.memory_info().rss / 2**20)

    def run(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_mb = max(self.peak_mb, self._now())

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()


def pump(until: Callable[[], bool], limit_s: float) -> bool:
    """Let the window live until something holds."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, ends = QEventLoop(), time.perf_counter() + limit_s
    held: list[bool] = []

    def look() -> None:
        if until():
            held.append(True)
        if held or time.perf_counter() > ends:
            loop.quit()

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(5)
    loop.exec()
    return bool(held)


# --- data


@functools.cache
def cells() -> list[Any]:
    """The drawn cells of the sample set."""
    from napari_samic.sample_data.samples import sample_set

    return [s for s in sample_set() if s.name.startswith("cells")]


@functools.cache
def base(number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A drawn scene at SIDE x SIDE in gray, with its truth."""
    scene = cells()[number]
    factor = SIDE // scene.image.shape[0]
    gray = np.kron(scene.image.mean(-1).astype(np.uint8), np.ones((factor, factor), np.uint8))
    truth = np.kron(scene.truth.astype(np.int32), np.ones((factor, factor), np.int32))
    return gray, truth


def picture(number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One of many: no two are alike, so that no cache of encoded images helps."""
    gray, truth = base(number % len(cells()))
    return np.roll(gray, 3 * number, axis=1), np.roll(truth, 3 * number, axis=1)


def write_data(folder: Path, slices: int, files: int) -> None:
    """A stack file, a folder of files, and three references with masks."""
    import tifffile

    for name in ("many", "references", "masks"):
        (folder / name).mkdir(parents=True)
    with tifffile.TiffWriter(folder / "stack.tif") as file:
        pages = (picture(i)[0] for i in range(slices))
        file.write(pages, shape=(slices, SIDE, SIDE), dtype="uint8", photometric="minisblack")
    for i in range(files):
        gray = picture(i + slices)[0]
        tifffile.imwrite(folder / "many" / f"image_{i:03d}.tif", gray, photometric="minisblack")
    for i in range(3):
        gray, truth = picture(i)
        tifffile.imwrite(folder / "references" / f"r{i}.tif", gray, photometric="minisblack")
        tifffile.imwrite(folder / "masks" / f"r{i}.tif", truth)


# --- the window


class Window:
    """A viewer with the dock on a fresh project."""

    def __init__(self, folder: Path) -> None:
        import napari

        from napari_samic.gui.data.project import Project
        from napari_samic.gui.plugin.commands import dock_of

        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 960)
        first = self.viewer.add_image(picture(0)[0])
        pump(lambda: False, 1)
        start = time.perf_counter()
        self.dock = dock_of(self.viewer)
        self.session = self.dock.session
        painted = first_paint(self.dock)
        with Ticker() as self.opening:
            pump(lambda: bool(painted), 60)
            self.open_s = painted[0] - start
            pump(lambda: self.session.scheduler.status.startswith("Ready"), 60)
            self.clickable_s = time.perf_counter() - start
        self.viewer.layers.remove(first)
        self.project = Project.create(folder / "project")
        self.session.scheduler.autosaver.begin_project(self.project)
        self.step: Any = next(s for s in self.dock.steps if s.title == "Propagate")

    def idle(self, limit_s: float = 300) -> None:
        scheduler = self.session.scheduler
        pump(lambda: scheduler.segmenter is not None and scheduler.runner.count == 0, limit_s)

    def open(self, source: Path) -> tuple[int, int]:
        """Open lazily; returns planes that were read, and how many there are."""
        from napari_samic.gui.data.lazy_layers import lazy_layers

        counted = ReadCounter()
        with counted:
            (layer,) = lazy_layers(source)
            data, options, _ = layer
            image_layer = self.viewer.add_image(data, **options)
            self.session.choose_layer(image_layer)
            self.idle()
        return len(counted.seen), len(data)


class ReadCounter:
    """Counts the planes of files of which pixels are read, each once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __enter__(self) -> ReadCounter:
        from napari_samic.core.types import ImagePlane

        self._before, seen = ImagePlane.__init__, self.seen

        def counting(
            plane: ImagePlane, name: str, index: Any, read: Any, *more: Any, **kw: Any
        ) -> None:
            def noted() -> Any:
                seen.add(plane.label)
                return read()

            self._before(plane, name, index, noted, *more, **kw)

        ImagePlane.__init__ = counting  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        from napari_samic.core.types import ImagePlane

        ImagePlane.__init__ = self._before  # type: ignore[method-assign]


def first_paint(widget: Any) -> list[float]:
    """Gets the time at which a widget is painted first."""
    from qtpy.QtCore import QEvent, QObject

    times: list[float] = []

    class Watcher(QObject):
        def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.Paint and not times:
                times.append(time.perf_counter())
            return False

    widget.installEventFilter(Watcher(widget))
    return times


def train(window: Window, epochs: int) -> Ticker:
    """Stalls while a prompter is trained; it goes into the project."""
    from napari_samic import pipeline, recipes
    from napari_samic.core.settings import TrainSettings
    from napari_samic.gui.runner.jobs import Calls

    ended: list[bool] = []
    job = recipes.recorded(pipeline.train, window.project.recipe)(
        window.folder / "references", masks=window.folder / "masks",
        out=window.project.prompter_file, settings=TrainSettings(epochs=epochs),
        overwrite=True,
    )  # fmt: skip
    calls = Calls(on_end=lambda: ended.append(True))
    with Ticker() as ticker:
        window.session.runner.start(job, calls, title="SAMIC: training")
        pump(lambda: bool(ended), 1800)
    window.session.events.prompter.emit()
    return ticker


def propagate(window: Window, count: int) -> tuple[Ticker, Memory, float]:
    """Stalls, memory before and at its peak, and images a second, over so many images."""
    run = window.step.presenter.run
    window.dock.go_to("Propagate")
    with Memory() as memory, Ticker() as ticker:
        window.step.panel.start.click()
        place = 0

        def enough() -> bool:
            nonlocal place
            if len(run.finished) > place + 4:  # the user looks on
                place = len(run.finished)
                window.viewer.dims.set_point(0, place - 1)
            return len(run.finished) >= count or run.state == "idle"

        pump(enough, 3600)
        rate = run.progress.rate or 0.0
        run.cancel()
        pump(lambda: run.state == "idle", 120)
    return ticker, memory, rate


def clicks(window: Window, count: int) -> list[float]:
    """Latency of each click, in ms."""
    window.dock.go_to("Annotate")
    out = []
    for number in range(count):
        if number % 2 == 0:  # another slice; its image is encoded before the clock starts
            window.viewer.dims.set_point(0, number // 2)
            pump(lambda: False, 0.4)
        window.idle()
        out.append(click(window, np.random.default_rng(number)))
    return out


def click(window: Window, rng: np.random.Generator) -> float:
    """From the click to the mask on the screen, in ms."""
    scheduler, owned_layers = window.session.scheduler, window.dock.annotate.owned_layers
    painted: list[bool] = []

    def on_answer() -> None:
        painted.append(True)

    scheduler.state.events.answer.connect(on_answer)  # after the dock's own, which paints
    place = (*scheduler.index, *(float(v) for v in rng.integers(SIDE // 4, 3 * SIDE // 4, 2)))
    frames: list[float] = []
    answered: list[bool] = []
    canvas = window.viewer.window._qt_viewer.canvas

    def drawn(_event: Any = None) -> None:
        if painted:
            answered.append(True)

    def swapped() -> None:
        if answered:
            frames.append(time.perf_counter())

    canvas._scene_canvas.events.draw.connect(drawn)
    canvas.native.frameSwapped.connect(swapped)
    started = time.perf_counter()
    owned_layers.layers["clicks"].add(place)
    pump(lambda: bool(frames), 120)
    canvas._scene_canvas.events.draw.disconnect(drawn)
    canvas.native.frameSwapped.disconnect(swapped)
    scheduler.state.events.answer.disconnect(on_answer)
    return 1e3 * (frames[0] - started)


def live(window: Window, slices: int, count: int) -> list[float]:
    """Latency of what would be found now, in ms, with five references; on other slices."""
    handlers, preview = window.dock.annotate.panel.handlers, window.session.live
    window.dock.go_to("Annotate")
    truth = np.zeros((slices, SIDE, SIDE), np.uint8)
    for number in range(5):
        truth[-1 - number] = picture(slices - 1 - number)[1]
    labels = window.viewer.add_labels(truth, visible=False)
    for number in range(5):
        window.viewer.dims.set_point(0, slices - 1 - number)
        window.idle()
        handlers["load_layer"](labels, False)
        window.idle()
        if not window.session.scheduler.state.annotation.is_reference:
            handlers["reference"]()
        window.idle()
    window.viewer.layers.remove(labels)
    window.viewer.dims.set_point(0, slices // 2)
    window.idle()
    handlers["live"]()
    pump(lambda: preview.result is not None, 120)
    out, frames = [], []
    canvas = window.viewer.window._qt_viewer.canvas.native
    canvas.frameSwapped.connect(lambda: frames.append(preview.result))
    for number in range(count):
        handlers["new"]()
        before = preview.result
        click(window, np.random.default_rng(100 + number))
        start = time.perf_counter()
        is_shown = pump(lambda before=before: _is_new(frames, before), 20)
        out.append(1e3 * (time.perf_counter() - start) if is_shown else float("inf"))
    handlers["live"]()
    return out


def _is_new(frames: list[Any], before: Any) -> bool:
    return bool(frames) and frames[-1] is not None and frames[-1] is not before


def measure(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    from qtpy.QtWidgets import QApplication

    write_data(folder, args.slices, args.files)
    window = Window(folder)
    rows: list[list[str]] = []

    def add(what: str, value: str, target: str = "") -> None:
        rows.append([what, value, target])
        print(f"  {what}: {value}", file=sys.stderr, flush=True)

    def stall(what: str, ticker: Ticker) -> None:
        gaps, own = ("{:.0f} / {:.0f} / {:.0f} ms".format(*row) for row in ticker.rows())
        add(f"stalls, {what}", gaps, "99 % < 50 ms")
        add("  without waiting for a core", own)

    add("dock open", f"{window.open_s:.2f} s", "< 1.5 s")
    add("image clickable", f"{window.clickable_s - window.open_s:.2f} s", "< 3 s after the dock")
    stall("opening", window.opening)
    window.idle()
    read, total = window.open(folder / "stack.tif")
    add("reads, stack of one file", f"{read} of {total} planes", "not all")
    with Ticker() as ticker:
        pump(lambda: False, 5)
    stall("idle", ticker)
    taken = clicks(window, args.clicks)
    add("click to mask, median / worst",
        f"{statistics.median(taken):.0f} / {max(taken):.0f} ms", "median < 120 ms")  # fmt: skip
    taken = live(window, args.slices, 8)
    add("live, median / worst",
        f"{statistics.median(taken):.0f} / {max(taken):.0f} ms", "median < 1500 ms")  # fmt: skip
    stall("training", train(window, args.epochs))
    ticker, memory, rate = propagate(window, args.images)
    stall(f"propagating to {args.images} slices", ticker)
    add("memory, stack", f"{memory.before_mb:.0f} to {memory.peak_mb:.0f} MB", "< 1500 MB")
    add("speed, stack", f"{rate:.2f} images/s")
    read, total = window.open(folder / "many")
    add("reads, folder", f"{read} of {total} planes", "not all")
    ticker, memory, rate = propagate(window, args.images)
    stall(f"propagating to {args.images} files", ticker)
    add("memory, folder", f"{memory.before_mb:.0f} to {memory.peak_mb:.0f} MB", "< 1500 MB")
    add("speed, folder", f"{rate:.2f} images/s")
    window.viewer.close()
    QApplication.processEvents()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=60, help="images to propagate to, each time")
    parser.add_argument("--epochs", type=int, default=10, help="of the training")
    parser.add_argument("--out", type=Path, help="folder for window.json")
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--slices", type=int, default=200, help="of the stack")
    parser.add_argument("--files", type=int, default=500, help="of the folder")
    args = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        print("needs a screen: see the first lines of this file for xvfb-run.")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="samic-window-"))
    os.environ["NAPARI_SAMIC_HOME"] = str(folder / "home")
    try:
        rows = measure(args, folder / "data")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    cores, load = os.cpu_count(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"{cores} cores, load average {load:.1f} (with this); half / 99 % / all are below")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "window.json").write_text(json.dumps({"rows": rows, "load": load}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
