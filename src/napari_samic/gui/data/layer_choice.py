"""What can be chosen: image layers, their colors, models. Knows layers, no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_samic.core.errors import SamicError
from napari_samic.gui.canvas.owned_layers import OURS
from napari_samic.gui.data.layer_pixels import file_of
from napari_samic.io.images import open_file


def image_layers(viewer: Any) -> list[Any]:
    """Image layers that can be annotated, the topmost first."""
    from napari.layers import Image

    return [
        layer
        for layer in reversed(viewer.layers)
        if isinstance(layer, Image) and layer.ndim >= 2 and not layer.metadata.get(OURS)
    ]


def labels_layers(viewer: Any) -> list[Any]:
    """Labels layers that are not ours, the topmost first."""
    from napari.layers import Labels

    return [
        layer
        for layer in reversed(viewer.layers)
        if isinstance(layer, Labels) and not layer.metadata.get(OURS)
    ]


def first_choice(viewer: Any) -> Any | None:
    """The active layer if it is an image, else the topmost image."""
    layers = image_layers(viewer)
    active = viewer.layers.selection.active  # napari wraps what it gives to plugins
    return next((layer for layer in layers if layer == active), layers[0] if layers else None)


def color_choices(viewer: Any, image: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """How an image may be seen: alone, or with the other channels of its shape as colors.

    () stands for a layer whose first axis may be channels, to be split into layers.
    """
    alone = ("this layer", (image,))
    if image.rgb or image.multiscale:
        return [alone]
    if may_be_channels(image):
        count = image.data.shape[0]
        return [(f"{count} slices, one by one", (image,)), (f"{count} channels: split them", ())]
    alike = [
        layer
        for layer in reversed(image_layers(viewer))
        if not layer.rgb and not layer.multiscale and layer.data.shape == image.data.shape
    ]
    if len(alike) not in (2, 3):
        return [alone]
    names = " + ".join(str(layer.name) for layer in alike)
    return [alone, (f"red, green{', blue' * (len(alike) > 2)}: {names}", tuple(alike))]


def may_be_channels(image: Any) -> bool:
    """Whether the first axis is so short that it may be channels; the file may say that it is not.

    A stack of two to four slices looks the same, so this alone decides nothing.
    """
    if image.rgb or image.multiscale or image.ndim != 3 or not 2 <= image.data.shape[0] <= 4:
        return False
    return _first_axis(image) in ("", "C")


def is_channels(image: Any) -> bool:
    """Whether the first axis is channels by what its layer or file says."""
    return may_be_channels(image) and _first_axis(image) == "C"


def _first_axis(image: Any) -> str:
    """Letter of the first axis, C for samples, too; "" if nobody says what it is."""
    label = str(image.axis_labels[0]).upper() if hasattr(image, "axis_labels") else ""
    if label in ("C", "CHANNEL", "CHANNELS"):
        return "C"
    if label in ("Z", "T", "TIME"):
        return label[0]
    path = Path(file_of(image) or ".")
    with suppress(SamicError, OSError):
        opened = open_file(path) if path.is_file() else None
        if opened is not None and opened.series[0].shape == tuple(image.data.shape):
            return {"C": "C", "S": "C", "Z": "Z", "T": "T"}.get(opened.series[0].axes[:1], "")
    return ""


def models() -> list[tuple[str, str]]:
    """Segmenters by name, and why one can't be used now ("" if it can)."""
    from napari_samic.models.hub import registry

    out = []
    for spec in registry.specs():
        if spec.role == "segmenter":
            problem = f"not on this machine: run `napari-samic models fetch {spec.name}`"
            with suppress(SamicError):
                registry.locate(spec.name)
                problem = ""
            out.append((spec.name, problem))
    names: Sequence[str] = [name for name, _ in out]
    return out + [(name, "") for name in registry.plugins("segmenters") if name not in names]
