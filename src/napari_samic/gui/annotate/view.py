"""The Annotate step as the user sees it: builds the widgets, shows the state, passes actions on.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QDragEnterEvent, QDropEvent, QIcon, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.gui.annotate import keys
from napari_samic.gui.annotate.confidence_bar import ConfidenceBar
from napari_samic.gui.annotate.object_table import ObjectTable
from napari_samic.gui.canvas.style import NEGATIVE, POSITIVE
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.classes import ClassStyle
from napari_samic.gui.state.thumbnails import Thumb
from napari_samic.gui.widgets.thumbnail_list import ThumbList

Verbs = Mapping[str, Callable[..., Any]]
_LONGEST = 28
"""Characters of a name that a line of the dock has room for."""


class AnnotatePanel(QWidget):
    """See the module.

    Parameters
    ----------
    handlers : mapping of str to callable
        Those of `keys.KEYS`, and: folder, positive, negative, draw, scribble, brush, one_click,
        select, classed, new_class, style, save, load, load_folder, load_paths, load_layer,
        restore, discard, show_image. And labels, which gives what `load_layer` may take: a name,
        the layer, and whether as a whole.
    """

    def __init__(self, handlers: Verbs) -> None:
        super().__init__()
        self.handlers = handlers
        self._listed_classes: list[tuple[int, ClassStyle]] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(8)
        for part in (
            self._recovery_bar(), self._choices(), self._guide(), self._tools(), self._confidence(),
            self._objects(), self._classes(), self._files(),
        ):  # fmt: skip
            layout.addWidget(part)
        layout.setStretchFactor(self.table, 1)
        self.setAcceptDrops(True)

    # --- building

    def _recovery_bar(self) -> QWidget:
        self.recovery = QFrame()
        self.recovery.setFrameShape(QFrame.Shape.StyledPanel)
        self.recovery_text = _wrapped()
        row = QHBoxLayout()
        row.addWidget(self._button("Restore", "restore"))
        row.addWidget(self._button("Discard", "discard"))
        column = QVBoxLayout(self.recovery)
        column.addWidget(self.recovery_text)
        column.addLayout(row)
        self.recovery.hide()
        return self.recovery

    def _choices(self) -> QWidget:
        self.image, self.channels, self.model = QComboBox(), QComboBox(), QComboBox()
        for box in (self.image, self.channels, self.model):
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.status = QLabel()
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.status.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        part = QWidget()
        form = QFormLayout(part)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.folder = self._button("Open folder", "folder")
        self.folder.setToolTip("Open a folder of images; each is read when it is looked at.")
        images = QHBoxLayout()
        images.addWidget(self.image, 1)
        images.addWidget(self.folder)
        form.addRow("Image", images)
        form.addRow("Colours", self.channels)
        form.addRow("Model", self.model)
        form.addRow(self.status)
        self.choices = form
        return part

    def _guide(self) -> QWidget:
        self.guide = _wrapped()
        self.guide.setMinimumHeight(84)
        self.guide.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.guide.setStyleSheet(
            "QLabel { background: rgba(53, 184, 255, 40); border-radius: 4px; padding: 6px; }"
        )
        self.guide.setToolTip(
            "Keys, while one of the layers of this dock is active:\n" + keys.table()
        )
        return self.guide

    def _tools(self) -> QWidget:
        self.tools = {
            "positive": self._tool("Positive", "positive", "sign", _dot(POSITIVE)),
            "negative": self._tool("Negative", "negative", "sign", _dot(NEGATIVE)),
            "draw": self._tool("Box (W)", "draw", "box", _dot(POSITIVE, square=True)),
            "scribble": self._tool("Scribble", "scribble", icon=_dot(POSITIVE, square=True)),
            "brush": self._tool("Brush", "brush"),
        }
        self.tools["scribble"].setToolTip(
            "Draw a line along the object, or along what its mask has too much "
            f"({keys.text('sign')} switches)."
        )
        self.tools["brush"].setToolTip(
            "Correct the mask of the object with napari's brush and eraser; of a new one, draw it. "
            "It then stays as you drew it, until you click on the object again."
        )
        self._exclusive = QButtonGroup(self)
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, button in enumerate(self.tools.values()):
            self._exclusive.addButton(button)
            grid.addWidget(button, place // 3, place % 3)
        self.one_click = QCheckBox("One click an object")
        self.one_click.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.one_click.setToolTip("Each positive click and each box begins another object.")
        self.one_click.toggled.connect(lambda on: self.handlers["one_click"](on))
        self.live = self._tool("Live (Y)", "live", "live")
        self.live_status = QLabel()
        self.live_status.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        grid.addWidget(self.live, 1, 2)
        grid.addWidget(self._button("Undo", "undo"), 2, 0)
        grid.addWidget(self._button("Redo", "redo"), 2, 1)
        grid.addWidget(self.one_click, 3, 0, 1, 3)
        grid.addWidget(self.live_status, 4, 0, 1, 3)
        self.live_thumbs = ThumbList(lambda name: self.handlers["show_image"](name))
        self.live_thumbs.setAccessibleName("What would be found in other slices")
        grid.addWidget(self.live_thumbs, 5, 0, 1, 3)
        self.show_live(is_on=False, status="", thumbs=())
        return part

    def _confidence(self) -> QWidget:
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        self.confidence = ConfidenceBar()
        self.cycle = self._button("Other mask", "cycle")
        self.hint = self._tool("Hints (H)", "hint", "hint")
        column.addWidget(self.confidence)
        row = QHBoxLayout()
        row.addWidget(self.cycle, 2)
        row.addWidget(self.hint, 1)
        column.addLayout(row)
        return part

    def _objects(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.table = ObjectTable(self.handlers["select"])
        grid.addWidget(self.table, 0, 0, 1, 4)
        for column, (name, verb) in enumerate(
            (("New", "new"), ("Prev", "previous"), ("Next", "next"), ("Delete", "delete"))
        ):
            grid.addWidget(self._button(name, verb), 1, column)
        self.totals = _wrapped()
        grid.addWidget(self.totals, 2, 0, 1, 4)
        return part

    def _classes(self) -> QWidget:
        part = QWidget()
        row = QHBoxLayout(part)
        row.setContentsMargins(0, 0, 0, 0)
        self.classes = QComboBox()
        self.classes.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.classes.setAccessibleName("Class")
        self.classes.setToolTip(
            "<qt>Class of the next object; of one that you select in the table, or with J and K, "
            f"its own. {keys.text('class')} changes that of the last one, too.</qt>"
        )
        self.classes.activated.connect(
            lambda i: self.handlers["classed"](int(self.classes.itemData(i)))
        )
        row.addWidget(self.classes, 1)
        for name, verb, tip in (
            ("Add", "new_class", "Make another class, for the selected object or the next"),
            ("Name", "rename", "Give the class another name"),
            ("Colour", "recolor", "Give the class another colour"),
        ):
            button = self._button(name, verb)
            button.setToolTip(tip)
            row.addWidget(button)
        return part

    def _files(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        self.reference = self._tool("Use as reference", "reference", "reference")
        self.reference.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        grid.addWidget(self.reference, 0, 0, 1, 2)
        save = self._button("Save ...", "save")
        save.setToolTip("Prompts and label images, into a folder; replaces nothing")
        grid.addWidget(save, 1, 0)
        grid.addWidget(self._load_button(), 1, 1)
        return part

    def _load_button(self) -> QPushButton:
        """Its menu is filled when it is opened: layers come and go."""
        button = QPushButton("Load")
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setToolTip(
            "Existing labels, or prompts: a Labels layer, masks, COCO, GeoJSON or a prompt file. "
            "Files go to the open images by name, and may be dropped here. They take the place of "
            "the objects of these images; undo brings those back."
        )
        self.load_menu = QMenu(button)
        self.load_menu.aboutToShow.connect(self._fill_load_menu)
        button.setMenu(self.load_menu)
        return button

    def _fill_load_menu(self) -> None:
        menu = self.load_menu
        menu.clear()
        menu.addAction("Masks, outlines or prompts ...", lambda: self.handlers["load"]())
        menu.addAction("A folder of masks ...", lambda: self.handlers["load_folder"]())
        menu.addSeparator()
        for name, layer, whole in self.handlers["labels"]():
            take = partial(self.handlers["load_layer"], layer, whole)
            menu.addAction(f"Layer {name}", lambda take=take: take())

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Files may be dropped."""
        data = event.mimeData() if event is not None else None
        if event is not None and data is not None and all(u.isLocalFile() for u in data.urls()):
            event.setAccepted(data.hasUrls())

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Load files that are dropped."""
        data = event.mimeData() if event is not None else None
        if event is not None and data is not None:
            event.acceptProposedAction()
            self.handlers["load_paths"]([Path(url.toLocalFile()) for url in data.urls()])

    def _button(self, name: str, verb: str) -> QPushButton:
        key = keys.text(verb) if verb in keys.KEYS else ""
        button = QPushButton(f"{name} ({key})" if len(key) == 1 else name)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setToolTip(f"{keys.KEYS[verb][1]} ({key})" if key else name)
        button.clicked.connect(lambda: self.handlers[verb]())
        return button

    def _tool(self, name: str, verb: str, key: str = "", icon: QIcon | None = None) -> QPushButton:
        button = QPushButton(name)
        button.setCheckable(True)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        if icon is not None:
            button.setIcon(icon)
        if key:
            button.setToolTip(f"{keys.KEYS[key][1]} ({keys.text(key)})")
        button.clicked.connect(lambda: self.handlers[verb]())
        return button

    # --- showing

    def show_tool(self, tool: str) -> None:
        """Mark the tool that the next click or drag uses."""
        self.tools[tool].setChecked(True)

    def show_live(self, *, is_on: bool, status: str, thumbs: Sequence[Thumb]) -> None:
        """Show what would be found now: here in words, in other slices as pictures."""
        self.live.setChecked(is_on)
        self.live_status.setText(status)
        self.live_status.setVisible(is_on)
        self.live_thumbs.show_thumbs(thumbs, "")

    def show_sign(self, sign: bool) -> None:
        """Mark whether strokes are on the object or on what is too much."""
        self.tools["scribble"].setIcon(_dot(POSITIVE if sign else NEGATIVE, square=True))

    def show_recovery(self, text: str) -> None:
        """Offer to restore; "" hides the offer."""
        self.recovery_text.setText(text)
        self.recovery.setVisible(bool(text))

    def show_state(self, state: AnnotationModel) -> None:
        """Show objects, confidence, class and totals of the current image."""
        annotation = state.annotation
        item = annotation.item() if annotation is not None else None
        steady = item is not None and item.is_steady()
        self.confidence.show_scores(
            None if item is None else item.score, () if item is None else item.scores, steady
        )
        masks = len(item.answer.masks) if item is not None and item.answer is not None else 0
        position = f": {item.choice + 1} of {masks}" if item is not None and masks > 1 else ""
        self.cycle.setText(f"Other mask (C){position}")
        self.cycle.setEnabled(masks > 1)
        self.table.show_objects(annotation, state.classes)
        self._show_classes(state, item.label if item is not None else state.label)
        self.reference.setChecked(annotation is not None and annotation.is_reference)
        count = len(state.references)
        marked = f" ({count} so far)" if count else ""
        self.reference.setText(f"Use as reference (U){marked}")
        self.totals.setText(_totals(state))
        self.totals.setToolTip("" if annotation is None else annotation.name)

    def _show_classes(self, state: AnnotationModel, label: int) -> None:
        wanted = [(n, state.classes.style(n)) for n in state.classes.labels]
        if wanted != self._listed_classes:
            self._listed_classes = wanted
            self.classes.clear()
            for number, style in wanted:
                self.classes.addItem(_dot(style.color, square=True), style.name, number)
        self.classes.setCurrentIndex(self.classes.findData(label))


def short(name: str) -> str:
    """The name of an image for a line of the dock: its middle is left out if it is long."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"


def _totals(state: AnnotationModel) -> str:
    if state.annotation is None:
        return "No object yet."
    name = short(state.annotation.name)
    if not state.annotation.items:
        return f"{name}: no object yet."
    cost, count = state.annotation.cost(), len(state.annotation.items)
    clicks = sum(item.clicks for item in state.annotation.items)
    return (
        f"{name}: {count} object{'s' * (count != 1)}, {clicks} click{'s' * (clicks != 1)}, "
        f"{cost.seconds:.0f} s"
    )


def _wrapped() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label


def _dot(color: str, square: bool = False) -> QIcon:
    from qtpy.QtGui import QPainter

    picture = QPixmap(14, 14)
    picture.fill(QColor(0, 0, 0, 0))
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(color))
    painter.setPen(QColor("#101010"))
    (painter.drawRect if square else painter.drawEllipse)(2, 2, 10, 10)
    painter.end()
    return QIcon(picture)
