"""A network that sees the objects of one kind: an encoder fine-tuned to the references.

For every class two maps: where the objects are, and how deep inside one a pixel lies, by which
neighbors that touch are told apart. It is trained by `encoder`, kept inside the prompter file, and
needs no prompt. Must not know files of images, prompts or the window.

Source: ours; encoder and neck in `models.encoders`. The depth is the distance map of Naylor et al.,
IEEE TMI 2019, divided by its maximum in each object.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.errors import FormatError, ModelError
from napari_samic.core.types import FloatArray, Image
from napari_samic.models.encoders.openvino_engine import OpenVinoNetwork
from napari_samic.models.encoders.pyramid_encoder import (
    PyramidEncoder,
    bfloat16_autocast,
    fuse_batch_norms,
)
from napari_samic.models.features import timm_weights
from napari_samic.models.finetune.field_of_view import field_of_view
from napari_samic.models.hub import checkpoints, devices

STRIDE = 32
"""Sides of the input are multiples of it."""
EMBED = 64
"""Channels of its neck."""
GRAY = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
"""What an image is padded with: the mean color of pictures."""
TTA_SCALES = (1.0, 1.25)
"""Scales of test-time augmentation, as shares of the size that was learned at."""
FOREGROUND_BIAS = -1.5
"""First logit of every pixel: objects are rarer than ground."""


@dataclass(frozen=True, eq=False)
class ForegroundPrediction:
    """What the network sees of one class, both (H, W) float32 in [0, 1].

    Attributes
    ----------
    foreground_prob : (H, W) float32
        Probability of being in an object.
    distance_map : (H, W) float32
        0 outside and at the outline, 1 at the inner maximum of each object.
    """

    foreground_prob: FloatArray
    distance_map: FloatArray


class ForegroundDistanceNet(nn.Module):
    """Encoder, neck and a head: (B, 3, h, w) to logits (B, 2 C, h, w), inside first, then depth.

    Parameters
    ----------
    encoder : str
        timm's name.
    classes : int
    """

    def __init__(self, encoder: str, classes: int) -> None:
        super().__init__()
        self.encoder = PyramidEncoder(encoder, EMBED, 0)
        backbone = self.encoder.backbone
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(backbone.deviation).view(1, 3, 1, 1))
        self.context = nn.Linear(backbone.widths[-1], EMBED)
        self.last = nn.Conv2d(EMBED, 2 * classes, 1)
        nn.init.constant_(self.last.bias, FOREGROUND_BIAS)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 255], sides multiples of 32, to logits (B, 2 C, h, w) in float32."""
        size = (int(x.shape[-2]), int(x.shape[-1]))
        with bfloat16_autocast(x.device):
            x = (x - self.mean) / self.deviation  # type: ignore[operator]
            ends = self.encoder.backbone.ends(self.encoder.backbone.blocks(x), size)
            whole = self.context(F.relu(ends[-1]).mean((-2, -1)))  # (B, 64)
            logits = self.last(self.encoder.neck(ends, whole))  # (B, 2 C, h / 4, w / 4)
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)


def build(
    classes: int, seed: int = 0, encoder: str = timm_weights.SEGMENTER
) -> ForegroundDistanceNet:
    """An encoder with its weights under a new head, to be trained.

    The neck is the packaged segmenter's too where the encoder is, else new: with it 80 batches on 5
    polyps gave an IoU of 0.60, without it, from ImageNet's weights, 0.52.

    Parameters
    ----------
    classes : int
    seed : int
    encoder : str
        As `timm_weights.load` takes it; "segmenter" is the packaged one.
    """
    ours = timm_weights.packaged() if encoder == timm_weights.SEGMENTER else None
    start = timm_weights.load(encoder)[0] if ours is None else ours.backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ForegroundDistanceNet(start.name, classes)
    net.encoder.backbone.load_state_dict(start.state_dict())
    if ours is not None:
        net.encoder.neck.load_state_dict(ours.neck.state_dict())
    return net


def to_input(image: Image, side_px: int) -> tuple[Tensor, tuple[int, int]]:
    """Resize so that the longest side is `side_px`; pad to multiples of 32.

    Returns
    -------
    (1, 3, h, w) float32 Tensor in [0, 255], and the rows and columns that show the image.
    """
    scale = side_px / max(image.shape[:2])
    rows, columns = (max(1, round(n * scale)) for n in image.shape[:2])
    picture = PIL.Image.fromarray(np.ascontiguousarray(image))
    small = np.array(picture.resize((columns, rows), PIL.Image.Resampling.BILINEAR, reducing_gap=3))
    x = torch.from_numpy(small).permute(2, 0, 1)[None].float() - GRAY
    return F.pad(x, (0, -columns % STRIDE, 0, -rows % STRIDE)) + GRAY, (rows, columns)


class ForegroundPredictor:
    """A trained `ForegroundDistanceNet` that answers for whole images, by test-time augmentation.

    Test-time augmentation: the answers to an image, its mirror image and scaled copies of both
    are averaged.

    Parameters
    ----------
    net : ForegroundDistanceNet
        Kept as it is; a folded copy answers.
    labels : sequence of int
        Class of each pair of maps.
    side_px : int
        Longest side at which it looks at an image.
    device : torch.device
    whole : bool
        Whether it looks at all of an image, not at its field of view alone (see `field_of_view`).
    """

    def __init__(
        self,
        net: ForegroundDistanceNet,
        labels: Sequence[int],
        side_px: int,
        device: torch.device,
        *,
        whole: bool = False,
    ) -> None:
        self.labels = tuple(labels)
        self.side_px = side_px
        self.device = device
        self.whole = whole
        self._net = net
        self._is_openvino = False
        self._fused: Callable[[Tensor], Tensor] | None = None
        self._fusing = threading.Lock()

    def use_openvino(self) -> None:
        """Let OpenVINO answer from now on, on the CPU."""
        self._is_openvino, self._fused = True, None

    def predict(self, image: Image) -> dict[int, ForegroundPrediction]:
        """What it sees of each class, at the size of the image: the mean over scales and flips.

        If it looks at the field of view alone, nothing is in the frame around it. When the memory
        of its device runs out, it goes on on the CPU.

        Parameters
        ----------
        image : (H, W, 3) uint8
        """
        full, last = self.device, torch.device("cpu")
        try:
            return self._predict(image)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error) or full == last:
                raise
        msg = (
            f"fine-tuned network: {full} is out of memory; continuing on the CPU, which is slower."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=2)
        self.device, self._fused = last, None
        devices.release(full)
        return self._predict(image)

    def _predict(self, image: Image) -> dict[int, ForegroundPrediction]:
        with self._fusing:
            if self._fused is None:
                self._fused = self._fuse()
            net = self._fused
        inner = np.s_[:, :] if self.whole else field_of_view(image)
        count = len(self.labels)
        part = image[inner]
        with torch.inference_mode():
            total = self._flip_averaged(net, part, TTA_SCALES[0])
            for scale in TTA_SCALES[1:]:
                total += self._flip_averaged(net, part, scale)
            values = np.zeros((2 * count, *image.shape[:2]), np.float32)
            values[:, *inner] = total.div_(len(TTA_SCALES)).cpu().numpy()
        return {
            k: ForegroundPrediction(values[i], values[count + i]) for i, k in enumerate(self.labels)
        }

    def _fuse(self) -> Callable[[Tensor], Tensor]:
        net = fuse_batch_norms(self._net).to(self.device)
        if not self._is_openvino:
            return net.to(memory_format=torch.channels_last)
        compiled = OpenVinoNetwork(net)
        return lambda x: compiled(x)[0]

    def _flip_averaged(self, net: Callable[[Tensor], Tensor], image: Image, scale: float) -> Tensor:
        """(2 C, H, W), of the image and of its mirror image at `scale` times the usual size."""
        x, (rows, columns) = to_input(image, round(self.side_px * scale))
        x = x.to(self.device)
        logits = (net(x) + net(x.flip(-1)).flip(-1)) / 2  # (1, 2 C, h, w)
        maps = torch.sigmoid(logits[..., :rows, :columns])
        return F.interpolate(maps, size=image.shape[:2], mode="bilinear", align_corners=False)[0]

    def pack(self) -> dict[str, Any]:
        """Plain values and half-precision weights, for the prompter file."""
        state = {k: v.cpu() for k, v in self._net.state_dict().items()}
        return {
            "labels": list(self.labels),
            "side_px": self.side_px,
            "whole": self.whole,
            "encoder": self._net.encoder.backbone.name,
            "state": checkpoints.to_half(state),
        }

    @classmethod
    def unpack(cls, content: Mapping[str, Any], device: torch.device) -> ForegroundPredictor:
        """Back from `pack`.

        Raises
        ------
        FormatError
            Damaged.
        """
        try:
            labels = [int(k) for k in content["labels"]]
            net = ForegroundDistanceNet(str(content["encoder"]), len(labels))
            net.load_state_dict(checkpoints.to_float32(content["state"]))
            whole = bool(content.get("whole", False))
            return cls(net, labels, int(content["side_px"]), device, whole=whole)
        except (
            ModelError, KeyError, TypeError, ValueError, AttributeError, RuntimeError,
        ) as error:  # fmt: skip
            reason = " ".join(str(error).split())[:120]
            raise FormatError(f"its object network is damaged ({reason}). Train again.") from error
