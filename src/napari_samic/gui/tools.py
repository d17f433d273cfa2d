"""The verbs of the Annotate step, and what the next click or drag does.

The ground that `annotate` stands on. Must not know jobs or models.
"""

from __future__ import annotations

from collections.abc import Callable

from napari_samic.gui.desk import Desk
from napari_samic.gui.dialogs import Dialogs
from napari_samic.gui.guarding import shown
from napari_samic.gui.panel import AnnotatePanel
from napari_samic.gui.stage import Stage


class Tools:
    """Parent of `annotate.AnnotateStep`.

    Attributes
    ----------
    desk : Desk
    dialogs : Dialogs
    panel : AnnotatePanel
    stage : Stage or None
        Our layers; None while no image is chosen.
    """

    desk: Desk
    dialogs: Dialogs
    panel: AnnotatePanel
    stage: Stage | None = None
    _hinted = False

    def redraw(self) -> None:
        """Draw the shown image's page, and all of the panel."""
        raise NotImplementedError

    def verbs(self) -> dict[str, Callable[..., None]]:
        """What buttons and keys do, by name."""
        state = self.desk.state
        plain: dict[str, Callable[..., None]] = {
            "new": state.new_object,
            "previous": lambda: state.step_object(-1),
            "next": lambda: state.step_object(+1),
            "delete": state.delete_object,
            "cycle": state.cycle_mask,
            "class": lambda: state.set_class(state.classes.after(state.class_here)),
            "undo": state.undo,
            "redo": state.redo,
            "select": state.select,
            "classed": state.set_class,
            "reference": self._toggle_reference,
            "sign": self.toggle_sign,
            "box": self.toggle_box,
            "positive": lambda: self.use_tool("positive"),
            "negative": lambda: self.use_tool("negative"),
            "draw": lambda: self.use_tool("draw"),
            "hint": self.toggle_hint,
        }
        plain |= self.dialogs.verbs()
        return {name: shown(act) for name, act in plain.items()}

    def use_tool(self, tool: str) -> None:
        """Choose what the next click or drag does: "positive", "negative" or "draw"."""
        if self.stage is None:
            return
        self.stage.ensure()
        self.redraw()
        if tool == "draw":
            self.stage.use_boxes()
        else:
            self.stage.use_points(tool == "positive")
        self.panel.show_tool(tool)

    def toggle_sign(self) -> None:
        """From positive to negative clicks and back; from boxes to clicks."""
        if self.stage is not None:
            drawing = self.panel.tools["draw"].isChecked()
            positive = self.stage.sign if drawing else not self.stage.sign
            self.use_tool("positive" if positive else "negative")

    def toggle_box(self) -> None:
        """From clicks to boxes and back."""
        if self.stage is not None:
            drawing = self.panel.tools["draw"].isChecked()
            self.use_tool(("positive" if self.stage.sign else "negative") if drawing else "draw")

    def toggle_hint(self) -> None:
        """Show or hide what the encoder sees."""
        self._hinted = not self._hinted
        self.panel.hint.setChecked(self._hinted)
        self.desk.show_hint(self._hinted)

    def _toggle_reference(self) -> None:
        page = self.desk.state.page
        if page is not None:
            self.desk.state.use_as_reference(not page.is_reference)
