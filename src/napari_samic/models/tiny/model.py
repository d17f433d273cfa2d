"""The packaged small promptable model: a real `segment_anything` Sam around our own three modules.

Here it is put together, and its file. The image encoder is in `models.encoders`: its block outputs
feed the prompter's hypercorrelation, its stride-4 embedding the mask decoder. Prompt encoder and
mask decoder are in `decoder`. They keep segment-anything's call signatures, so `SamPredictor` and
all code written for SAM run them unchanged. Must not know files of images, settings or napari.

Source: architecture ours; interface of Kirillov et al., Segment Anything, 2023.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam

from napari_samic.core.errors import FormatError, ModelError
from napari_samic.models.encoders.pyramid_encoder import PyramidEncoder, fuse_batch_norms
from napari_samic.models.hub import checkpoints
from napari_samic.models.tiny.decoder import PROMPT_MAPS, STRIDE, TinyMaskDecoder, TinyPromptEncoder

__all__ = [
    "PROMPT_MAPS",
    "STRIDE",
    "TinyConfig",
    "TinyMaskDecoder",
    "TinyPromptEncoder",
    "build",
    "load",
    "optimize_for_inference",
    "pack",
    "unpack",
]

KIND = "napari-samic/tiny"
VERSION = 2


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the network; stored in the weights file.

    Attributes
    ----------
    encoder : str
        timm's name.
    side_px : int
    embed : int
        Channels of the embedding.
    unet : (int, int, int, int)
        Channels of the mask decoder.
    """

    encoder: str = "tf_efficientnet_lite2"
    side_px: int = 512
    embed: int = 64
    unet: tuple[int, int, int, int] = (48, 80, 128, 192)


def build(config: TinyConfig | None = None) -> Sam:
    """A Sam with random weights."""
    config = config or TinyConfig()
    encoder = PyramidEncoder(config.encoder, config.embed, config.side_px)
    return Sam(
        encoder,
        TinyPromptEncoder(config.side_px),
        TinyMaskDecoder(config.embed, config.unet),
        list(encoder.backbone.mean),
        list(encoder.backbone.deviation),
    )


def pack(model: Sam, config: TinyConfig, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the weights file holds: kind, version, config and half-precision weights."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    state = checkpoints.to_half(model.state_dict())
    return {**(extra or {}), "kind": KIND, "version": VERSION, "config": plain, "state": state}


def unpack(content: Any, name: str) -> Sam:
    """Rebuild the Sam from what `pack` made.

    Raises
    ------
    FormatError
        Another kind or version of file, or weights that do not fit its config.
    """
    header = content if isinstance(content, dict) else {"kind": type(content).__name__}
    kind, version = header.get("kind"), header.get("version")
    if (kind, version) != (KIND, VERSION):
        which = f"{kind!r:.40} version {version!r:.40}"
        raise FormatError(f"{name}: {which}, expected {KIND!r} version {VERSION}.")
    try:
        values = content["config"].items()
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values}
        model = build(TinyConfig(**plain))
        model.load_state_dict(checkpoints.to_float32(content["state"]))
    except (
        ModelError, KeyError, TypeError, ValueError, AttributeError, RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{name}: damaged ({reason}). Fetch or copy it again.") from error
    return model.eval()


def optimize_for_inference(model: Sam) -> Sam:
    """Fastest form of the same network, changed in place; it can't be trained any more.

    Sixteen bits where the device is made for that.
    """
    model.image_encoder = fuse_batch_norms(model.image_encoder)
    model.image_encoder.quick = model.mask_decoder.quick = True
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
    return optimize_for_inference(unpack(checkpoints.read(Path(path)), Path(path).name))
