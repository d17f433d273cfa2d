"""What a button does, with errors of ours turned into a notification."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from napari_samic.errors import SamicError
from napari_samic.gui import jobs


def shown(act: Callable[..., object]) -> Callable[..., None]:
    """Let an error of ours become a notification."""

    @wraps(act)
    def guarded(*args: Any) -> None:
        try:
            act(*args)
        except SamicError as error:
            jobs.show(error)

    return guarded
