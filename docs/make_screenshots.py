"""Drive the whole story in a real napari window and write one picture a step into docs/images/.

    xvfb-run -a -s "-screen 0 1280x1024x24" python docs/make_screenshots.py

Takes a few minutes on two cores; `docs/make_screenshots.py review export` writes only those two.
The pictures come from the packaged sample scenes; the project and the cache are throw-away folders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_samic.core.settings import TrainSettings
from napari_samic.gui.data.project import Project
from napari_samic.gui.plugin.commands import dock_of
from napari_samic.sample_data.samples import sample_set

IMAGES = Path(__file__).with_name("images")
NAMES = ("annotate", "train", "propagate", "review", "export")
WIDTH_PX, HEIGHT_PX, COLOURS = 1240, 870, 256
DOCK_PX = 370
REFERENCES, EPOCHS, LOOKED_AT = 6, 12, 8
FORMATS = ("tiff", "coco", "geojson", "table")


def wait(done: Callable[[], bool], *, limit_s: float = 600) -> None:
    """Let Qt work until a condition holds."""
    tick = QTimer()  # wakes the loop when nothing else happens
    tick.start(20)
    end = monotonic() + limit_s
    while not done():
        if monotonic() > end:
            raise TimeoutError(f"not done after {limit_s:.0f} s: {done.__code__.co_names}")
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    tick.stop()


def is_drawn(clicks: Any, page: Any) -> bool:
    """Whether the layer shows this page, so that the next click goes to its current object."""
    points = [point[:2] for item in page.items for point in item.points]
    drawn_points = [tuple(at[-2:]) for at in clicks.data]
    return drawn_points == points and clicks.feature_defaults["object"].iloc[0] == page.current


class Story:
    """A user of the window, who waits until what was begun is done.

    Parameters
    ----------
    viewer : napari.Viewer
    folder : Path
        Of the new project.
    names : collection of str
        Of the pictures that are wanted.
    """

    def __init__(self, viewer: napari.Viewer, folder: Path, names: tuple[str, ...]) -> None:
        self.viewer, self.names = viewer, names
        viewer.open_sample("napari-samic", "scenes")
        viewer.dims.set_point(0, 0)
        self.dock = dock_of(viewer)
        self.lay_out(viewer.window._qt_window)
        self.session = self.dock.session
        wait(lambda: self.session.scheduler.status.startswith("Ready"))
        self.session.scheduler.autosaver.begin_project(Project.create(folder))

    def lay_out(self, window: Any) -> None:
        """Give most of the window to the image."""
        window.resize(WIDTH_PX, HEIGHT_PX)
        wait(lambda: window.width() == WIDTH_PX and self.dock.isVisible())
        docks = [dock for dock in window.findChildren(QDockWidget) if dock.isAncestorOf(self.dock)]
        window.resizeDocks(docks, [DOCK_PX], Qt.Orientation.Horizontal)

    def rest(self) -> None:
        """Wait until no job runs."""
        wait(lambda: self.session.runner.count == 0, limit_s=1800)

    def step(self, title: str) -> Any:
        """Go to a step."""
        self.dock.go_to(title)
        self.rest()
        return self.dock.step

    def picture(self, name: str) -> None:
        """Write what the window shows."""
        if name not in self.names:
            return
        self.viewer.reset_view()
        self.rest()
        QApplication.sendPostedEvents()  # what the end of a job hides and shows is laid out twice
        QApplication.processEvents()
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)  # (H, W, 4) uint8
        picture = Image.fromarray(pixels).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(IMAGES / f"{name}.png", optimize=True)
        print(f"{name}: {picture.width} x {picture.height}", flush=True)

    def click(self, number: int) -> None:
        """Click on each object of a slice, where its pixels are nearest to their mean."""
        step = self.step("Annotate")
        self.viewer.dims.set_point(0, number)
        state, clicks = self.session.scheduler.state, step.owned_layers.layers["clicks"]
        truth = sample_set()[number].truth
        for value in np.unique(truth[truth > 0]):
            inside = np.argwhere(truth == value)
            row, column = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
            step.panel.handlers["new"]()
            # a hand is slower than the timer that draws
            wait(lambda: is_drawn(clicks, state.annotation))
            clicks.add((number, row, column))
            wait(lambda: state.annotation.item() is not None and not state.is_waiting)

    def annotate(self) -> None:
        """Make the references."""
        for number in range(REFERENCES):
            self.click(number)
            if number == REFERENCES - 1:
                self.picture("annotate")
            self.dock.step.panel.handlers["reference"]()
            self.rest()

    def train(self) -> None:
        """Train for a few epochs, with the heat map of a reference on its image."""
        step = self.step("Train")
        step.panel.form.show_values(TrainSettings(epochs=EPOCHS))
        step.panel.handlers["select"](self.session.scheduler.state.references[-1])
        step.panel.heat_button.click()
        step.panel.handlers["start"]()
        self.rest()
        if not self.session.project.prompter_file.exists():
            raise RuntimeError(step.trainer.news)
        self.picture("train")
        step.panel.heat_button.click()

    def propagate(self) -> None:
        """Do all slices, and preview one that is no reference."""
        step = self.step("Propagate")
        step.panel.handlers["start"]()
        self.rest()
        if step.presenter.run.failures:
            raise RuntimeError(step.presenter.run.failures)
        self.viewer.dims.set_point(0, LOOKED_AT)
        step.panel.preview.click()
        self.picture("propagate")
        step.panel.preview.click()

    def review(self) -> None:
        """Reject the most doubtful, accept the next, look at the third; then accept the others."""
        step = self.step("Review")
        for verb in ("reject", "accept", "accept"):
            step.queue.handlers[verb]()
            self.rest()
        self.picture("review")
        while any(not step.review.decision(result.name).verdict for result in step.review.order):
            step.queue.handlers["accept"]()
            self.rest()

    def export(self) -> None:
        """Write what was accepted."""
        step = self.step("Review")
        step.tabs.setCurrentIndex(1)
        for name in FORMATS:
            step.exports.boxes[name].setChecked(True)
        step.exports.button.click()
        self.rest()
        self.picture("export")


def main() -> None:
    """Tell the story in folders that are removed at the end."""
    names = tuple(sys.argv[1:]) or NAMES
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"{', '.join(sorted(unknown))}: expected some of {', '.join(NAMES)}.")
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="samic-") as folder:
        os.environ["NAPARI_SAMIC_HOME"] = str(Path(folder, "home"))
        os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
        viewer = napari.Viewer()
        story = Story(viewer, Path(folder, "cells"), names)
        for name in NAMES:
            getattr(story, name)()
        story.dock.release()
        viewer.close()


if __name__ == "__main__":
    main()
