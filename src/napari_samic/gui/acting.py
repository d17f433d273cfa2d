"""What is annotated, and the verbs that change prompts: the ground that `controller` stands on.

Plain Python: must not know Qt, napari, torch or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from napari_samic.gui.asking import Asking, Question
from napari_samic.gui.classes import Classes
from napari_samic.gui.items import Box, Item, Point
from napari_samic.gui.pages import Page, PromptsOf
from napari_samic.settings import AnnotateSettings

IDLE_S = 30.0
"""A pause longer than this is not counted as annotating."""


class Acting:
    """State and verbs of prompts; parent of `controller.Annotator`.

    Parameters
    ----------
    ask : callable
        The port: takes a Question, returns at once; the answer comes by `receive`.
    settings : AnnotateSettings, optional
        Its `saturation` says when further clicks change little.
    clock : callable
        Seconds, for the annotated time.

    Attributes
    ----------
    pages : dict of str to Page
        All images that were looked at, by name.
    page : Page or None
        The image that is shown.
    label : int
        Class of the next new object.
    classes : Classes
    message : str
        What the user should hear about the last verb; "" if nothing.
    listeners : list of callable
        Called with what changed: "page", "prompts", "answer" or "classes".
    """

    def __init__(
        self,
        ask: Callable[[Question], None],
        *,
        settings: AnnotateSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or AnnotateSettings()
        self.pages: dict[str, Page] = {}
        self.page: Page | None = None
        self.label = 1
        self.classes = Classes()
        self.message = ""
        self.listeners: list[Callable[[str], None]] = []
        self.asking = Asking(ask)
        self._clock = clock
        self._last_act: float | None = None

    def add_point(self, row: float, column: float, positive: bool = True) -> None:
        """Click on the current object; the first click makes it."""
        self.message = ""
        if self.page is not None and self._holds(row, column):
            points, box = self.page.prompts_of(self.page.current)
            self._prompt({self.page.current: ((*points, (row, column, positive)), box)})

    def remove_point(self, index: int, number: int | None = None) -> None:
        """Take a click back; an object without prompts falls away."""
        if (item := self.found(number)) is not None and 0 <= index < len(item.points):
            points = item.points[:index] + item.points[index + 1 :]
            self._prompt({item.number: (points, item.box)})

    def move_point(self, index: int, row: float, column: float, number: int | None = None) -> None:
        """Put a click elsewhere; it keeps its sign."""
        self.message = ""
        item = self.found(number)
        if item is None or not 0 <= index < len(item.points) or not self._holds(row, column):
            return
        points = list(item.points)
        points[index] = (row, column, points[index][2])
        self._prompt({item.number: (tuple(points), item.box)})

    def set_box(self, box: Box | None, number: int | None = None) -> None:
        """Draw, move or (None) remove the box of an object; it is cut at the image's edge."""
        if self.page is None:
            return
        self.message = ""
        wanted = self.page.current if number is None else number
        kept = None if box is None else self._clipped(box)
        if box is None or kept is not None:
            self._prompt({wanted: (self.page.prompts_of(wanted)[0], kept)})

    def replace_points(self, listed: Sequence[tuple[int, Point]]) -> None:
        """Take all points as the layer has them, (object, point): one step of undo.

        Points outside the image are left out, and `message` says so.
        """
        if self.page is None:
            return
        self.message = ""
        points: dict[int, tuple[Point, ...]] = {item.number: () for item in self.page.items}
        for number, point in listed:
            if self._holds(point[0], point[1]):
                points[number] = (*points.get(number, ()), point)
        self._prompt({n: (p, self.page.prompts_of(n)[1]) for n, p in points.items()})

    def replace_boxes(self, listed: Sequence[tuple[int, Box]]) -> None:
        """Take all boxes as the layer has them; of several for one object the last counts."""
        if self.page is None:
            return
        self.message = ""
        boxes: dict[int, Box | None] = {item.number: None for item in self.page.items}
        for number, box in listed:
            boxes[number] = self._clipped(box) or boxes.get(number)
        self._prompt({n: (self.page.prompts_of(n)[0], box) for n, box in boxes.items()})

    def _holds(self, row: float, column: float) -> bool:
        inside = self.page is not None and self.page.holds(row, column)
        if not inside:
            self.message = "A click outside the image was left out."
        return inside

    def _clipped(self, box: Box) -> Box | None:
        kept = None if self.page is None else self.page.clipped(box)
        if kept is None:
            self.message = "A box without area inside the image was left out."
        return kept

    def found(self, number: int | None) -> Item | None:
        """The object of that number (None: the current one) on the shown image."""
        return None if self.page is None else self.page.item(number)

    def _prompt(self, prompts: PromptsOf) -> None:
        """Give objects other prompts, ask for those that changed, and tell."""
        if self.page is None:
            return
        for item in self.page.prompt(prompts, self.label):
            self.touch(item.number)
            self.asking.submit(self.page, item)
        self.tell("prompts")

    def touch(self, number: int, clicks: int = 1) -> None:
        """Count the time since the last act for an object (0: only start the clock)."""
        now = self._clock()
        since = 0.0 if self._last_act is None else now - self._last_act
        self._last_act = now
        if self.page is not None and number > 0:
            self.page.spend(number, clicks, min(since, IDLE_S))

    def tell(self, what: str) -> None:
        """Let the listeners know what changed."""
        for listener in list(self.listeners):
            listener(what)
