"""Drive the whole story in a real napari window and write one picture a step into docs/images/.

    xvfb-run -a -s "-screen 0 1600x1100x24" python docs/make_screenshots.py --data BBBC038

Takes a few minutes on two cores; `docs/make_screenshots.py review export` writes only those two.
--data is a folder with `images/` and `masks/` of the first stage of BBBC038 (CC0, Caicedo et al.,
"Nucleus segmentation across imaging experiments", Nature Methods 2019), of which PICTURES are
shown, stained tissue that no weights were trained on; without it they are the packaged scenes.
--looks FOLDER writes no picture for the docs, but every page in all sizes of LOOKS and in both
themes, for somebody to look at. The project and the cache are throw-away folders.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Collection
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
LOOKS = ((1024, 700, DOCK_PX), (1400, 950, DOCK_PX), (1400, 950, 300))
"""Width and height of the window, and width of the dock."""
PICTURES = (
    "353ab0", "420f43", "7773ac", "79fe41", "0e21d7", "a5fe0b", "b21480", "3bfa8b", "2255d5",
    "4d4f25", "a7f619", "f952cc",
)  # fmt: skip
"""Beginnings of names in BBBC038; the first six are the references."""


def truths_of(data: Path | None) -> list[np.ndarray]:
    """The truth (H, W) of each picture."""
    if data is None:
        return [sample.truth for sample in sample_set()]
    masks = [next((data / "masks").glob(f"{name}*")) for name in PICTURES]
    return [np.asarray(Image.open(mask)).astype(np.int32) for mask in masks]


def copied(data: Path, folder: Path) -> Path:
    """A folder of PICTURES, in their order."""
    folder.mkdir()
    for number, name in enumerate(PICTURES, start=1):
        shutil.copy(next((data / "images").glob(f"{name}*")), folder / f"tissue-{number:02d}.jpg")
    return folder


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
    data : Path, optional
        Of BBBC038.
    looks : Path, optional
        Where all sizes and themes go.
    """

    def __init__(
        self,
        viewer: napari.Viewer,
        folder: Path,
        names: Collection[str],
        data: Path | None = None,
        looks: Path | None = None,
    ) -> None:
        self.viewer, self.names, self.looks = viewer, names, looks
        self.truths = truths_of(data)
        if data is None:
            viewer.open_sample("napari-samic", "scenes")
        self.dock = dock_of(viewer)
        if data is not None:
            self.dock.annotate.open_folder(copied(data, folder.with_name("tissue")))
        wait(lambda: len(viewer.layers) > 0)
        viewer.dims.set_point(0, 0)
        self.lay_out(WIDTH_PX, HEIGHT_PX, DOCK_PX)
        self.session = self.dock.session
        wait(lambda: self.session.scheduler.status.startswith("Ready"))
        self.session.scheduler.autosaver.begin_project(Project.create(folder))

    def lay_out(self, width: int, height: int, dock_width: int) -> None:
        """Give most of the window to the image."""
        window: Any = self.viewer.window._qt_window
        window.resize(width, height)
        wait(lambda: window.width() == width and self.dock.isVisible())
        docks = [dock for dock in window.findChildren(QDockWidget) if dock.isAncestorOf(self.dock)]
        window.resizeDocks(docks, [dock_width], Qt.Orientation.Horizontal)

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
        if self.looks is None:
            self.save(IMAGES / f"{name}.png")
            return
        for theme in ("dark", "light"):
            self.viewer.theme = theme
            for width, height, dock in LOOKS:
                self.lay_out(width, height, dock)
                self.save(self.looks / f"{name}-{width}-{dock}-{theme}.png")
        self.viewer.theme = "dark"
        self.lay_out(WIDTH_PX, HEIGHT_PX, DOCK_PX)

    def save(self, path: Path) -> None:
        """Write one picture."""
        self.viewer.reset_view()
        self.rest()
        for _ in range(2):  # what the end of a job hides and shows is laid out twice
            QApplication.sendPostedEvents()
            QApplication.processEvents()
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)  # (H, W, 4) uint8
        picture = Image.fromarray(pixels).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
        canvas = self.viewer.window._qt_viewer.canvas.native.width()
        print(f"{path.stem}: {picture.width} x {picture.height}, canvas {canvas}", flush=True)

    def click(self, number: int) -> None:
        """Click on each object of a slice, where its pixels are nearest to their mean."""
        step = self.step("Annotate")
        self.viewer.dims.set_point(0, number)
        state, clicks = self.session.scheduler.state, step.owned_layers.layers["clicks"]
        truth = self.truths[number]
        for value in np.unique(truth[truth > 0]):
            inside = np.argwhere(truth == value)
            row, column = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
            step.panel.handlers["new"]()
            # a hand is slower than the timer that draws
            wait(lambda: is_drawn(clicks, state.annotation))
            clicks.add((number, row, column))
            wait(lambda: state.annotation.item() is not None and not state.is_waiting)

    def take_labels(self, number: int) -> None:
        """Let the true labels of a slice be what is annotated."""
        step = self.step("Annotate")
        stack = np.stack(self.truths)
        layer = self.viewer.add_labels(stack, name="labels", visible=False)
        self.viewer.dims.set_point(0, number)
        self.rest()
        step.panel.handlers["load_layer"](layer, False)
        self.rest()
        self.viewer.layers.remove(layer)

    def annotate(self) -> None:
        """Make the references: of tissue with many nuclei all by labels but the last."""
        has_many = len(np.unique(self.truths[0])) > 20
        for number in range(REFERENCES):
            if has_many and number < REFERENCES - 1:
                self.take_labels(number)
            else:
                self.click(number)
            if number == REFERENCES - 1:
                self.picture("annotate")
            if not self.session.scheduler.state.annotation.is_reference:
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
        step.tabs.setCurrentIndex(2)
        for name in FORMATS:
            step.exports.boxes[name].setChecked(True)
        step.exports.button.click()
        self.rest()
        self.picture("export")


def main() -> None:
    """Tell the story in folders that are removed at the end."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--looks", type=Path)
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(NAMES)}.")
    for path in (IMAGES, options.looks):
        if path is not None:
            path.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="samic-") as folder:
        os.environ["NAPARI_SAMIC_HOME"] = str(Path(folder, "home"))
        os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
        viewer = napari.Viewer()
        names = options.names or NAMES
        story = Story(viewer, Path(folder, "cells"), names, options.data, options.looks)
        for name in NAMES:
            getattr(story, name)()
        story.dock.release()
        viewer.close()


if __name__ == "__main__":
    main()
