"""What the user may do next, in one or two sentences. Plain Python: knows no Qt, no napari."""

from __future__ import annotations

from napari_samic.gui.annotate.keys import text
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.objects import AnnotatedObject

CHANNELS = (
    "By its file, an axis of this image is channels. Split them under Colours, or each is annotated"
    " as an image of its own."
)
TOO_LARGE = (
    "This image has too many pixels to be clicked in: a model sees an image as a whole. Annotate "
    "crops of it, as files of their own, train with these, and propagate to it."
)
DOUBTFUL = 0.7
"""Confidence below which a mask that clicks no longer change is not called done."""
_NEW, _SIGN, _CYCLE = text("new"), text("sign"), text("cycle")


def what_next(
    state: AnnotationModel, *, has_image: bool, is_flat: bool, is_active: bool, has_model: bool
) -> str:
    """Say what to do next.

    Parameters
    ----------
    has_image : bool
        An image layer is chosen.
    is_flat : bool
        The screen shows one of its slices, in 2-D.
    is_active : bool
        Clicks come to the layers of this step, since none of the user's is the active one.
    has_model : bool
        A segmenter is loaded.
    """
    if not has_image:
        return "Open an image or a folder, or try File > Open Sample > SAMIC sample scenes."
    if not is_flat or state.annotation is None:
        return "Show a single slice: 2-D view, last two axes."
    if state.message:
        return state.message
    if not is_active:
        return "Another layer is active and takes clicks and keys. Press Positive to go on here."
    item = state.annotation.item()
    if item is None:
        which = "the next object" if state.annotation.items else "an object"
        return f"Click on {which} in the image, or draw a box around it."
    if not has_model:
        return "The model is being loaded. Click on; masks follow."
    if state.one_click and item.is_askable:
        return (
            f"Click on the next object, or draw a box around it. {_SIGN}: negative clicks, which "
            "take away from this one. Untick 'One click an object' to add to it."
        )
    return _about(item)


def _about(item: AnnotatedObject) -> str:
    if not item.is_askable:
        return "Negative clicks only take away. Add a positive click or a box."
    if item.drawn is not None:
        return (
            "This mask is as it was drawn. Correct it with the brush, or click to ask the model "
            f"anew; {_NEW} begins the next object."
        )
    if item.answer is None:
        return "Drawing the mask ..."
    if item.mask is not None and not item.mask.area_px:
        return "The model found nothing there. Click on another part of the object, or draw a box."
    if item.is_steady():
        if (item.score or 0.0) < DOUBTFUL:
            return (
                "Further clicks change little, and the model stays unsure. Draw a box around the "
                f"object, try {_CYCLE}: other masks; or press {_NEW} for the next object."
            )
        return f"Further clicks change little. Press {_NEW} and click on the next object."
    if len(item.scores) < 2:
        return (
            f"Does the mask fit? Then press {_NEW} for the next object. Else click on what is "
            f"missing; press {_SIGN} and click on what is too much; or try {_CYCLE}: other masks."
        )
    return f"Go on until the confidence stays the same, or press {_NEW} for the next object."
