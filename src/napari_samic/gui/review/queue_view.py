"""The queue as the user sees it: the results with their doubts, and the buttons for each.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QStyledItemDelegate,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_samic.gui.review.presenter import MARKS, ReviewModel

KEYS: dict[str, tuple[str, str]] = {
    "previous": ("J", "previous result of the queue"),
    "next": ("K", "next result of the queue"),
    "accept": ("Y", "accept, and go to the next without a verdict"),
    "reject": ("N", "reject, and go to the next without a verdict"),
    "sign": ("Q", "switch between positive and negative points"),
    "reference": ("U", "make this result a reference"),
    "undo": ("Control-Z", "undo the last change of points or labels of this result"),
}
"""Verb to key, and what it does; they act while a layer of Review is the active one."""
Verbs = Mapping[str, Callable[..., None]]
COLUMNS = ("", "Image", "Score", "Doubt")


class QueueModel(QAbstractTableModel):
    """The queue as a table; asks for what is seen only, so it may be long."""

    def __init__(self, review: ReviewModel) -> None:
        super().__init__()
        self.review = review

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: D102
        return 0 if parent is not None and parent.isValid() else len(self.review.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: ARG002, D102
        return len(COLUMNS)

    def headerData(self, section: int, way: Any, role: int = 0) -> Any:  # noqa: D102
        is_title = role == Qt.ItemDataRole.DisplayRole and way == Qt.Orientation.Horizontal
        return COLUMNS[section] if is_title else None

    def data(self, index: QModelIndex, role: int = 0) -> Any:  # noqa: D102
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cell(index.row(), index.column())
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.review.order[index.row()].text
        return None

    def _cell(self, row: int, column: int) -> str:
        flag = self.review.order[row]
        if column == 0:
            return MARKS[self.review.decision(flag.name).verdict]
        if column == 2:
            score = self.review.scanned.facts[flag.name].score if self.review.scanned else None
            return "" if score is None else f"{score:.2f}"
        return flag.name if column == 1 else (flag.text if flag.reasons else "")

    def renew(self) -> None:
        """Other results."""
        self.beginResetModel()
        self.endResetModel()

    def renew_marks(self) -> None:
        """Other verdicts."""
        if self.review.order:
            last = self.index(len(self.review.order) - 1, 0)
            self.dataChanged.emit(self.index(0, 0), last)


class ElidedNames(QStyledItemDelegate):
    """Names are cut in the middle, for they differ at their ends."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:  # noqa: D102
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle


class QueueView(QWidget):
    """See the module.

    Parameters
    ----------
    review : ReviewModel
    handlers : mapping of str to callable
        Those of `KEYS`, and: go, accept_above, revert, positive, negative, select, brush, retrain,
        suggest, score, look.
    """

    def __init__(self, review: ReviewModel, handlers: Verbs) -> None:
        super().__init__()
        self.review, self.handlers = review, handlers
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(6)
        for part in (
            self._head(), self._table(), self._why(), self._verdicts(), self._tools(),
            self._above(), self._learning(), self._truth(), self._foot(),
        ):  # fmt: skip
            layout.addWidget(part)
        layout.setStretchFactor(self.table, 1)

    # --- building

    def _head(self) -> QWidget:
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.again = self._button("↻", "look", "Read the results of the project anew")
        self.again.setFixedWidth(32)
        self.classes = QLabel()
        self.classes.setWordWrap(True)
        self.classes.setToolTip("Objects of each class; those of rejected results are not counted")
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(_row(self.summary, self.again, stretch=0))
        column.addWidget(self.classes)
        return part

    def _table(self) -> QWidget:
        self.model = QueueModel(self.review)
        self.table = QTableView()
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.names = ElidedNames(self.table)
        self.table.setItemDelegateForColumn(1, self.names)
        self.table.setMinimumHeight(150)
        across, down = self.table.horizontalHeader(), self.table.verticalHeader()
        if across is not None and down is not None:
            across.setHighlightSections(False)
            across.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
            across.setMinimumSectionSize(22)
            across.setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
            down.hide()
            down.setDefaultSectionSize(22)
        for column, width in enumerate((22, 104, 44)):
            self.table.setColumnWidth(column, width)
        self.table.clicked.connect(self._clicked)
        return self.table

    def _clicked(self, index: QModelIndex) -> None:
        self.handlers["go"](self.review.order[index.row()].name)

    def _why(self) -> QWidget:
        self.why, self.status = QLabel(), QLabel()
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        for label in (self.why, self.status):
            label.setWordWrap(True)
            column.addWidget(label)
        self.why.setMinimumHeight(34)
        self.why.setAlignment(Qt.AlignmentFlag.AlignTop)
        return part

    def _verdicts(self) -> QWidget:
        names = (("◀", "previous"), ("Accept", "accept"), ("Reject", "reject"), ("▶", "next"))
        buttons = [self._button(text, verb) for text, verb in names]
        for arrow in (buttons[0], buttons[3]):
            arrow.setFixedWidth(36)
        self.accept, self.reject = buttons[1:3]
        return _row(*buttons)

    def _tools(self) -> QWidget:
        self.tools: dict[str, QPushButton] = {}
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        tips = {
            "positive": ("+ Point", "Click: a new object, or a part that its object lacks"),
            "negative": ("− Point", "Click on what does not belong to the object"),
            "select": ("Move", "Drag points, or delete them; the mask follows"),
            "brush": (
                "Paint",
                "Paint a new object with napari's brush, or pick one with its pipette (5) and "
                "correct it; kept as edited",
            ),
        }
        for column, (verb, (text, tip)) in enumerate(tips.items()):
            self.tools[verb] = self._button(text, verb, tip)
            self.tools[verb].setCheckable(True)
            grid.addWidget(self.tools[verb], 0, column)
        self.undo = self._button("Undo", "undo")
        self.revert = self._button("Revert", "revert", "Take edits and verdict back")
        grid.addWidget(self.undo, 1, 0, 1, 2)
        grid.addWidget(self.revert, 1, 2, 1, 2)
        return part

    def _above(self) -> QWidget:
        self.score = QDoubleSpinBox()
        self.score.setRange(0.0, 1.0)
        self.score.setSingleStep(0.01)
        self.score.setToolTip("At first the median of the scores of these results")
        self.score.valueChanged.connect(lambda _: self._show_above())
        self._offered: float | None = None
        tip = "Accept every result without a verdict that is at least this sure; asks first"
        self.all_above = self._button("", "accept_above", tip)
        return _row(self.all_above, self.score, stretch=0)

    def _offer_score(self) -> None:
        """The median of these results, unless the user has chosen another score."""
        usual = self.review.median_score
        if usual is None:  # another project
            self._offered = None
        elif self._offered in (None, round(self.score.value(), 2)):
            self._offered = usual
            self.score.setValue(usual)
        self._show_above()

    def _show_above(self) -> None:
        count = len(self.review.undecided_above(self.score.value()))
        self.all_above.setText(f"Accept {count} from score")
        self.all_above.setEnabled(count > 0)

    def _learning(self) -> QWidget:
        tip = "Show the image that would teach most: doubtful, and least like the references"
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        grid.addWidget(self._button("Make reference", "reference"), 0, 0)
        grid.addWidget(self._button("Annotate next", "suggest", tip), 0, 1)
        grid.addWidget(self._button("Retrain", "retrain", "Go to the Train step"), 1, 0, 1, 2)
        return part

    def _truth(self) -> QWidget:
        self.truth = QComboBox()
        self.truth.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.truth.setToolTip("A Labels layer with the ground truth of the same images")
        self.truth.activated.connect(lambda _: self.handlers["score"]())
        return _row(QLabel("Truth"), self.truth, stretch=1)

    def _foot(self) -> QWidget:
        self.scores = QLabel()
        self.scores.setToolTip("F1 is of objects: found where the IoU is at least 0.5")
        words = (f"{_plain(key)} {verb}" for verb, (key, _) in KEYS.items())
        self.keys = QLabel(" · ".join(words))
        self.keys.setEnabled(False)
        self.keys.setToolTip("These keys act while a layer of Review is the active one")
        for label in (self.scores, self.keys):
            label.setWordWrap(True)
        self.scores.hide()
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.scores)
        column.addWidget(self.keys)
        return part

    def _button(self, text: str, verb: str, tip: str = "") -> QPushButton:
        button = QPushButton(text)
        key, help_ = KEYS.get(verb, ("", tip))
        words = tip or help_[:1].upper() + help_[1:]
        button.setToolTip(f"{words}  [{_plain(key)}]" if key else words)
        button.clicked.connect(lambda: self.handlers[verb]())
        return button

    # --- showing

    def show_queue(self) -> None:
        """Show other results."""
        self.model.renew()
        self._offer_score()
        self.show_verdicts()
        self.show_current()

    def show_verdicts(self) -> None:
        """Show other verdicts."""
        self.model.renew_marks()
        self._show_above()
        counts, total = self.review.counts, len(self.review.order)
        given = [v for v in ("accepted", "edited", "rejected") if counts[v]]
        text = f"{total} result{'s' * (total != 1)}"
        marks = "  ".join(f"{MARKS[v]} {counts[v]}" for v in given)
        self.summary.setText(f"{text}: {marks}, {counts['']} to do" if given else text)
        self.summary.setToolTip(", ".join(f"{counts[v]} {v}" for v in given))
        objects = self.review.class_counts
        whole = {n: f" in slices, {k} as a whole" for n, k in self.review.linked_counts.items()}
        texts = (f"{name}: {count}{whole.get(name, '')}" for name, count in objects.items())
        self.classes.setText(", ".join(texts))
        self.classes.setVisible(bool(objects))

    def show_status(self, text: str) -> None:
        """Say what is going on; "" takes no room."""
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def show_current(self, name: str = "") -> None:
        """Show which result is on the screen, and why it is doubtful."""
        places = [flag.name for flag in self.review.order]
        here = name in places
        for button in (self.accept, self.reject, self.revert, *self.tools.values()):
            button.setEnabled(here)
        if not here:
            self.table.clearSelection()
            drawn = name in self.review.drawn
            self.why.setText(f"<b>{name}</b>: your own annotation." if drawn else "")
            return
        row = places.index(name)
        self.table.selectRow(row)
        self.table.scrollTo(self.model.index(row, 1))
        verdict = self.review.decision(name).verdict
        said = f" <i>({verdict})</i>" if verdict else ""
        score = self.review.scanned.facts[name].score if self.review.scanned else None
        text = self.review.order[row].text
        sure = "" if score is None or "confidence" in text else f"; confidence {score:.2f}"
        self.why.setText(f"<b>{name}</b>{said}: {text}{sure}")

    def show_tool(self, tool: str) -> None:
        """Show which tool is in use; "" if none is."""
        for name, button in self.tools.items():
            button.setChecked(name == tool)

    def show_truths(self, names: list[str], chosen: str) -> None:
        """List the layers that may hold ground truth."""
        self.truth.blockSignals(True)
        self.truth.clear()
        self.truth.addItems(["none", *names])
        self.truth.setCurrentIndex(names.index(chosen) + 1 if chosen in names else 0)
        self.truth.blockSignals(False)

    def show_scores(self, text: str) -> None:
        """Show scores against ground truth; "" hides them."""
        self.scores.setText(text)
        self.scores.setVisible(bool(text))


def _plain(key: str) -> str:
    """A key as it is written on keyboards: "Ctrl+Z"."""
    return key.replace("Control", "Ctrl").replace("-", "+")


def _row(*widgets: QWidget, stretch: int = -1) -> QWidget:
    """Side by side; `stretch` says which one takes the room, -1 all of them."""
    part = QWidget()
    row = QHBoxLayout(part)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    for place, widget in enumerate(widgets):
        row.addWidget(widget, int(stretch in (-1, place)))
    return part
