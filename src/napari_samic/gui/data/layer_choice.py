"""What can be chosen: image layers, their colors, models. Knows layers, no Qt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_samic.core.errors import InputError, SamicError
from napari_samic.gui.canvas.owned_layers import OURS, user_images
from napari_samic.gui.data.layer_pixels import CHANNEL, FILE, STORED, file_of
from napari_samic.io.images import channel_names, open_file

_LETTERS = {"C": "C", "CHANNEL": "C", "CHANNELS": "C", "S": "C", "Z": "Z", "T": "T", "TIME": "T"}


def image_layers(viewer: Any) -> list[Any]:
    """Image layers that can be annotated, the topmost first."""
    return [layer for layer in reversed(user_images(viewer.layers)) if layer.ndim >= 2]


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

    () stands for a layer with an axis that may be channels, to be split into layers.
    """
    alone = ("this layer", (image,))
    if image.rgb or image.multiscale:
        return [alone]
    if (axis := channel_axis(image)) is not None:
        count, lead = image.data.shape[axis], math.prod(image.data.shape[:-2])
        return [(f"{lead} slices, one by one", (image,)), (f"{count} channels: split them", ())]
    alike = [
        layer
        for layer in reversed(image_layers(viewer))
        if not layer.rgb and not layer.multiscale and layer.data.shape == image.data.shape
        and _whole_of(layer) == _whole_of(image)
    ]  # fmt: skip
    alike.sort(key=lambda layer: layer.metadata.get(CHANNEL, ()))
    if len(alike) not in (2, 3):
        return [alone]
    names = " + ".join(str(layer.name) for layer in alike)
    return [alone, (f"red, green{', blue' * (len(alike) > 2)}: {names}", tuple(alike))]


def _whole_of(layer: Any) -> tuple[str, int] | None:
    """Of a channel the file and the axis that it was split from; None of all else."""
    channel = layer.metadata.get(CHANNEL)
    return None if channel is None else (file_of(layer), channel[0])


def channel_axis(image: Any) -> int | None:
    """The axis that is channels by what the layer or its file says, or else may be.

    The first of three that is so short that it may be channels: a stack of two to four slices looks
    the same, so this alone decides nothing.
    """
    if image.rgb or image.multiscale or image.ndim < 3:
        return None
    letters = _axes_of(image)[:-2]
    if "C" in letters:
        axis = letters.index("C")
        return axis if image.data.shape[axis] > 1 else None
    return 0 if letters == "?" and 2 <= image.data.shape[0] <= 4 else None


def is_channels(image: Any) -> bool:
    """Whether one of the axes is channels by what its layer or file says."""
    return channel_axis(image) is not None and "C" in _axes_of(image)[:-2]


def _axes_of(image: Any) -> str:
    """A letter of each axis, C for samples, too; ? where nobody says what it is."""
    labels = [str(label).upper() for label in getattr(image, "axis_labels", ())]
    letters = "".join(_LETTERS.get(label, "?") for label in labels) or "?" * image.ndim
    path = Path(file_of(image) or ".")
    if "C" in letters or not path.is_file():
        return letters
    with suppress(SamicError, OSError):
        opened = open_file(path)
        if opened is not None and opened.series[0].shape == tuple(image.data.shape):
            named = [_LETTERS.get(letter, "?") for letter in opened.series[0].axes]
            letters = "".join(a if b == "?" else b for a, b in zip(letters, named, strict=False))
    return letters or "?" * image.ndim


def channel_layers(image: Any, name: str) -> list[Any]:
    """A layer of each channel of an image, which still knows the file it is from.

    Parameters
    ----------
    image : napari.layers.Image
        One with a `channel_axis`.
    name : str
        Of the image.
    """
    from napari.layers.utils.stack_utils import stack_to_images

    axis = channel_axis(image)
    if axis is None:
        raise InputError(f"{name}: none of its axes may be channels.")
    kept = [n for n in range(image.ndim) if n != axis]
    metadata = {**image.metadata, FILE: file_of(image)}
    metadata[STORED] = bool(metadata.get(STORED) or image.source.path)
    layers: list[Any] = stack_to_images(image, axis)
    titles = [f"channel {number}" for number in range(len(layers))]
    told = channel_names(Path(file_of(image) or "."))
    if len(told) == len(layers):
        titles = [told[i] or title for i, title in enumerate(titles)]
    for number, layer in enumerate(layers):
        layer.name = f"{name} {titles[number]}"
        layer.units = [image.units[n] for n in kept]
        if not image.axis_labels[0].startswith("-"):  # so napari calls axes without a name
            layer.axis_labels = [image.axis_labels[n] for n in kept]
        layer.metadata = {**metadata, CHANNEL: (axis, number)}
    return layers


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
