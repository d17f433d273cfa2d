"""The packaged small promptable model: a real `segment_anything` Sam around our own three modules.

Here it is put together, and its file. The image encoder is in `tinyencoder`: one pass serves both
sides, its pre-ReLU block outputs feed the prompter's hypercorrelation, its stride-4 embedding the
mask decoder. Prompt encoder and mask decoder are in `tinydecoder`, both at two scales in
`tinyscales`. They keep segment-anything's call signatures, so `SamPredictor` and all code written
for SAM run them unchanged. Must not know files of images, settings or napari.

Source: architecture ours; interface of Kirillov et al., Segment Anything, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam

from napari_samic.errors import FormatError
from napari_samic.models import checkpoints, tinyscales
from napari_samic.models.tinydecoder import PROMPT_MAPS, STRIDE, TinyMaskDecoder, TinyPromptEncoder
from napari_samic.models.tinyencoder import TinyConfig, TinyEncoder, folded

__all__ = [
    "PROMPT_MAPS",
    "STRIDE",
    "TinyConfig",
    "TinyEncoder",
    "TinyMaskDecoder",
    "TinyPromptEncoder",
    "build",
    "load",
    "pack",
    "ready",
    "unpack",
]

KIND = "napari-samic/tiny"
VERSION = 1


def build(config: TinyConfig | None = None) -> Sam:
    """A Sam with fresh weights."""
    config = config or TinyConfig()
    if config.scales == 2:
        return Sam(
            tinyscales.TwoScaleEncoder(config),
            tinyscales.TwoScalePromptEncoder(config.side_px),
            tinyscales.TwoScaleMaskDecoder(config),
        )
    return Sam(TinyEncoder(config), TinyPromptEncoder(config.side_px), TinyMaskDecoder(config))


def pack(model: Sam, config: TinyConfig, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the weights file holds: kind, version, config and half-precision weights."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    plain = {k: list(v) if isinstance(v, Sequence) else v for k, v in asdict(config).items()}
    return {**(extra or {}), "kind": KIND, "version": VERSION, "config": plain, "state": state}


def unpack(content: Any, name: str) -> Sam:
    """Rebuild the Sam from what `pack` made.

    Raises
    ------
    FormatError
        Another kind or version of file, or weights that do not fit its config.
    """
    kind = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if kind != KIND or content.get("version") != VERSION:
        found = f"{kind!r} version {content.get('version') if isinstance(content, dict) else None}"
        raise FormatError(f"{name}: {found}, expected {KIND!r} version {VERSION}.")
    try:
        values = content["config"].items()
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values}
        config = TinyConfig(**plain)
        model = build(config)
        state = content["state"].items()
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        told = " ".join(str(error).split())[:120]
        raise FormatError(f"{name}: damaged ({told}). Fetch or copy it again.") from error
    return model.eval()


def ready(model: Sam) -> Sam:
    """Fastest form of the same network, changed in place; it can't be trained any more."""
    model.image_encoder = folded(model.image_encoder)
    if isinstance(model.image_encoder, tinyscales.TwoScaleEncoder):
        tinyscales.quicken(model.image_encoder, model.mask_decoder)
    return model.eval().to(memory_format=torch.channels_last)


def load(path: Path | str) -> Sam:
    """Read a `tiny` weights file, ready to answer.

    Raises
    ------
    FormatError
        As `unpack`; also truncated, or a pickle that holds code.
    WeightsError
        The file can't be opened.
    """
    return ready(unpack(checkpoints.read(Path(path)), Path(path).name))
