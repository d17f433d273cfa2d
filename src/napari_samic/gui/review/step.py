"""The Review step on its viewer: wiring only.

Views and layers on one side, `presenter`, `editor` and `export` on the other; lets all go when
the dock or the viewer closes. Must not decide or compute.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from qtpy.QtWidgets import QMessageBox, QTabWidget, QWidget

from napari_samic.gui.canvas.owned_layers import OURS
from napari_samic.gui.review.export import Exporter
from napari_samic.gui.review.export_view import ExportView
from napari_samic.gui.review.layers import ReviewLayers
from napari_samic.gui.review.objects_view import ObjectsView
from napari_samic.gui.review.presenter import ReviewModel
from napari_samic.gui.review.queue_view import KEYS, QueueView
from napari_samic.gui.review.recipe import RecipeRunner
from napari_samic.gui.review.recipe_view import RecipeView
from napari_samic.gui.runner.jobs import notify_errors
from napari_samic.gui.session.session import Session
from napari_samic.gui.widgets.base import later, scrolled

PAUSE_MS = 250
"""A brush stroke is taken once the brush rests for so long."""


class ReviewStep:
    """See the module.

    Parameters
    ----------
    session : Session
    """

    title = "Review"

    def __init__(self, session: Session) -> None:
        self.session = session
        self.review = ReviewModel(session)
        self.exporter = Exporter(self.review, lambda: self.review.editor.is_writing)
        self.recipe_runner = RecipeRunner(session.runner, lambda: session.project)
        self.owned_layers = ReviewLayers(
            session.viewer, on_points=self._on_points, on_labels=self._on_labels
        )
        self.owned_layers.on_new = self._bind
        self._bound: list[Any] = []
        self._tool = ""
        self._visible = self._closed = False
        self.queue = QueueView(self.review, self._handlers())
        self.exports, self.recipe = ExportView(self.exporter), RecipeView(self.recipe_runner)
        self.tabs = QTabWidget()
        self.objects = ObjectsView(
            self.review, notify_errors(lambda of: self.review.show_object(of.image, of.number))
        )
        pages = {
            "Queue": self.queue,
            "Objects": self.objects,
            "Export": self.exports,
            "Recipe": self.recipe,
        }
        for name, page in pages.items():
            self.tabs.addTab(scrolled(page), name)
        self.tabs.setDocumentMode(True)
        if (bar := self.tabs.tabBar()) is not None:
            bar.setDrawBase(False)  # a white line on napari's dark ground
        self.tabs.currentChanged.connect(self._show_page)
        self.widget: QWidget = self.tabs
        self._rest = later(self.tabs, PAUSE_MS, notify_errors(self._take_labels))
        self._soon = later(self.tabs, 0, notify_errors(self._take_points))
        self._connect()

    def _connect(self) -> None:
        events, editor = self.review.events, self.review.editor.events
        events.queue.connect(self.queue.show_queue)
        events.queue.connect(self._show_objects)
        events.verdicts.connect(self._show_objects)
        events.verdicts.connect(self.queue.show_verdicts)
        editor.reviewed.connect(self._show_reviewed)
        editor.labels.connect(self._show_labels)
        editor.points.connect(self._show_points)
        for group in (events, editor):
            group.connect(self._show_current)
        layers, session = self.session.viewer.layers.events, self.session.events
        self._wires: list[tuple[Any, Callable[..., None]]] = [
            (layers.inserted, self._inserted),
            (layers.removed, self._fill_truths),
            (session.project, self._project_changed),
            (session.results, self._look),
            (self.session.scheduler.state.events.annotation, self._annotation_changed),
        ]
        for event, slot in self._wires:
            event.connect(slot)
        self.queue.show_queue()
        self._show_choices()

    def load_recipe(self) -> None:
        """Show the page Recipe, and ask for one."""
        self.tabs.setCurrentIndex(self.tabs.count() - 1)
        self.recipe.load()

    def _show_page(self, _index: int) -> None:
        self.recipe.refresh()
        self._show_objects()

    def _show_objects(self) -> None:
        if self.objects.isVisible():
            self.objects.refresh()

    # --- actions

    def _handlers(self) -> dict[str, Callable[..., None]]:
        review = self.review
        plain: dict[str, Callable[..., None]] = {
            "previous": lambda: review.move(-1),
            "next": lambda: review.move(+1),
            "accept": self._settled(review.accept),
            "reject": self._settled(review.reject),
            "revert": self._revert,
            "undo": self._settled(review.editor.undo),
            "go": review.show_result,
            "look": review.scan_results,
            "sign": lambda: self.use_tool("negative" if self.owned_layers.sign else "positive"),
            "accept_above": self._accept_above,
            "reference": review.make_reference,
            "retrain": lambda: self.session.go_to("Train"),
            "suggest": review.suggest,
            "score": self._score,
        }
        tools = {t: partial(self.use_tool, t) for t in ("positive", "negative", "select", "brush")}
        return {name: notify_errors(act) for name, act in (plain | tools).items()}

    def _settled(self, act: Callable[[], None]) -> Callable[[], None]:
        """A stroke that was just painted counts first."""

        def settled() -> None:
            if self._rest.isActive():
                self._rest.stop()
                self._take_labels()
            act()

        return settled

    def use_tool(self, tool: str) -> None:
        """Choose what the mouse does: "positive", "negative", "select", "brush"; again: nothing."""
        if self.review.editor.reviewed is not None:
            self.review.editor.reviewed.check_changeable()
        self._tool = "" if tool == self._tool else tool
        if not self._tool:
            self.owned_layers.use_hand()
        elif tool == "select":
            self.owned_layers.use_select()
        elif tool == "brush":
            self.owned_layers.use_brush()
        else:
            self.owned_layers.use_points(tool == "positive")
        self.queue.show_tool(self._tool)

    def ask(self, question: str) -> bool:
        """Yes or no."""
        answer = QMessageBox.question(self.tabs, "SAMIC", question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _revert(self) -> None:
        edited = self.review.decision(self.review.current).edit is not None
        if not edited or self.ask("Take all edits of this result back? Undo can't redo them."):
            self.review.revert()

    def _accept_above(self) -> None:
        score = self.queue.score.value()
        count = len(self.review.undecided_above(score))
        if not count:
            self.review.set_status(f"No result without a verdict has a score from {score:.2f}.")
        elif self.ask(f"Accept {count} result{'s' * (count != 1)} with a score from {score:.2f}?"):
            self.review.accept_above(score)

    # --- ground truth

    def _truth_layers(self) -> list[Any]:
        from napari.layers import Labels

        return [
            layer
            for layer in self.session.viewer.layers
            if isinstance(layer, Labels) and not layer.metadata.get(OURS)
        ]

    def _inserted(self, _event: Any = None) -> None:
        self._fill_truths()
        if self._visible:  # results that another step draws would cover what is edited here
            self.owned_layers.hide_others()

    def _fill_truths(self, _event: Any = None) -> None:
        if not self._closed:
            names = [str(layer.name) for layer in self._truth_layers()]
            self.queue.show_truths(names, self.queue.truth.currentText())

    def _score(self) -> None:
        wanted = self.queue.truth.currentText()
        layer = next(
            (candidate for candidate in self._truth_layers() if candidate.name == wanted), None
        )
        if layer is None or self.review.scanned is None:
            self.queue.show_scores("")
            return
        truths = {}
        for name in self.review.scanned.facts:
            location = self.session.find(name)
            if location is not None and len(layer.data.shape) == len(location[2]) + 2:
                truths[name] = partial(_plane, layer.data, location[2])
        self.review.score_against(truths)

    def _show_scores(self) -> None:
        total, own = self.review.total, self.review.scores.get(self.review.current)
        if not total:
            self.queue.show_scores("")
            return
        text = f"Mean of {total['n']:.0f}: {_figures(total['miou'], total)}"
        self.queue.show_scores(
            f"This image: {_figures(own['iou'], own)}<br>{text}" if own else text
        )

    # --- layers to state

    def _on_points(self) -> None:  # napari may be in the middle of adding one
        self._soon.start()

    def _take_points(self) -> None:
        self.review.editor.take_points(self.owned_layers.points())

    def _on_labels(self) -> None:
        self._rest.start()

    def _take_labels(self) -> None:
        labels = self.owned_layers.labels()
        if labels is not None and self._visible:
            self.review.editor.take_labels(labels)

    # --- state to views and layers

    def _show_reviewed(self) -> None:
        reviewed = self.review.editor.reviewed
        if reviewed is not None and self._visible:
            self._rest.stop()
            self.owned_layers.show(reviewed, self.session.find(reviewed.name), self.review.picture)
            if self.review.wanted is not None and self.review.wanted[0] == reviewed.name:
                self.owned_layers.look_at(self.review.wanted[1], reviewed)
            self.review.wanted = None

    def _show_labels(self) -> None:
        if (reviewed := self.review.editor.reviewed) is not None:
            self.owned_layers.draw_labels(reviewed)

    def _show_points(self) -> None:
        if (reviewed := self.review.editor.reviewed) is not None:
            self.owned_layers.draw_points(reviewed)

    def _show_current(self) -> None:
        self.queue.show_current(self.review.current)
        self._show_scores()
        self.queue.show_status(self.review.status)

    def _project_changed(self) -> None:
        self.review.clear()
        self.owned_layers.clear()
        self._show_choices()
        self._look()

    def _look(self) -> None:
        if self._visible:
            self.review.scan_results()

    def _annotation_changed(self) -> None:
        annotation = self.session.scheduler.state.annotation
        if self._visible and annotation is not None:
            self.review.follow(annotation.name)

    def _show_choices(self) -> None:
        self.exports.show_settings(self.exporter.settings, self.exporter.folder)

    # --- coming and going

    def enter(self) -> None:
        """Read the results if there are any, and show the most doubtful."""
        self._visible = True
        self.owned_layers.hide_others()
        self._fill_truths()
        self.recipe.refresh()
        self.review.scan_results()

    def leave(self) -> None:
        """Take our layers off; edits are kept."""
        if self._rest.isActive():
            self._rest.stop()
            self._take_labels()
        self._visible, self._tool = False, ""
        self.queue.show_tool("")
        self._release_keys()
        self.owned_layers.clear()
        self.owned_layers.aside.bring_back()

    def release(self) -> None:
        """Let go of the viewer: no key, callback or job of ours is left."""
        if self._closed:
            return
        self.leave()
        self._closed = True
        for event, slot in self._wires:
            event.disconnect(slot)
        self.review.close()

    def _bind(self, layer: Any) -> None:
        for verb, (key, _) in KEYS.items():
            layer.bind_key(key, _ignoring(self.queue.handlers[verb]), overwrite=True)
        self._bound.append(layer)

    def _release_keys(self) -> None:
        for layer in self._bound:
            for key, _ in KEYS.values():
                with suppress(KeyError):
                    layer.bind_key(key, None)
        self._bound.clear()


def _ignoring(act: Callable[[], None]) -> Callable[[Any], None]:
    def pressed(_layer: Any) -> None:
        act()

    return pressed


def _plane(data: Any, index: tuple[int, ...]) -> Any:
    return np.asarray(data[index])


def _figures(iou: float, row: dict[str, float]) -> str:
    return f"IoU {iou:.2f}, Dice {row['dice']:.2f}, F1 {row['object_f1']:.2f}"
