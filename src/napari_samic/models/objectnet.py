"""A network that sees the objects of one kind: the packaged encoder, grown to the references.

For every class two maps: where the objects are, and how deep inside one a pixel lies, by which
neighbours that touch are told apart. It is made by `adapting`, kept inside the prompter file, and
needs no prompt. Must not know files of images, prompts or the window.

Source: ours; encoder in `tinyencoder`. The depth is the distance map of Naylor et al., IEEE TMI
2019, divided by its maximum in each object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.contracts import FloatArray, Image
from napari_samic.errors import FormatError
from napari_samic.models import checkpoints, registry, tiny, tinyscales
from napari_samic.models.field import field_of
from napari_samic.models.tinyencoder import TinyConfig, TinyEncoder, folded

START = "tiny"
"""Whose encoder it starts from: the packaged model's."""
NECK = ("lateral", "smooth", "calm")
"""Parts of the packaged encoder that start anew: kept, they gave no more."""
STRIDE = 32
"""Sides of the input are multiples of it."""
_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
_DEVIATION = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
ZOOMS = (1.0, 1.25)
"""Sizes at which an image is looked at, as shares of the size that was learned at."""
RARE = -1.5
"""First logit of every pixel: objects are rarer than ground."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network sees of one class, both (H, W) float32 in [0, 1].

    Attributes
    ----------
    inside : (H, W) float32
        Probability of being in an object.
    depth : (H, W) float32
        0 outside and at the outline, 1 at the inner maximum of each object.
    """

    inside: FloatArray
    depth: FloatArray


class ObjectNet(nn.Module):
    """Encoder and a head: (B, 3, h, w) to logits (B, 2 C, h, w), inside first, then depth.

    Parameters
    ----------
    config : TinyConfig
        Of the encoder.
    classes : int
    """

    def __init__(self, config: TinyConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = TinyEncoder(config)
        width = config.embed
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.context = nn.Linear(config.widths[-1], width)
        self.norm = nn.GroupNorm(8, width)
        self.last = nn.Conv2d(width, 2 * classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w), sides multiples of 32, to logits (B, 2 C, h, w) in float32."""
        size = x.shape[-2:]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=_fast_half(x.device)):
            embedding, taps = self.encoder.encode(x)
            whole = self.context(F.relu(taps[-1][-1]).mean((-2, -1)))  # (B, 64)
            x = F.relu(self.norm(self.first(embedding) + whole[..., None, None]))
            logits = self.last(x)  # (B, 2 C, h / 4, w / 4)
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)


def _fast_half(device: torch.device) -> bool:
    return device.type == "cpu" and tinyscales.has_fast_half()


def fresh(classes: int, seed: int = 0) -> ObjectNet:
    """The packaged encoder under a new head, to be trained."""
    content = checkpoints.read(registry.locate(START))
    encoder = tiny.unpack(content, START).image_encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ObjectNet(replace(_config(content["config"]), neck_norm=True), classes)
    stages = getattr(encoder, "one", encoder).state_dict()
    kept = {k: v for k, v in stages.items() if not k.startswith(NECK)}
    net.encoder.load_state_dict(kept, strict=False)
    net.last.bias.data.fill_(RARE)  # type: ignore[union-attr]
    return net


def _config(values: Mapping[str, Any]) -> TinyConfig:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return TinyConfig(**plain)


def to_input(image: Image, side_px: int) -> tuple[Tensor, tuple[int, int]]:
    """Resize so that the longest side is `side_px`; scale; pad to multiples of 32.

    Returns
    -------
    (1, 3, h, w) float32 Tensor, and the rows and columns that show the image.
    """
    scale = side_px / max(image.shape[:2])
    rows, columns = (max(1, round(n * scale)) for n in image.shape[:2])
    picture = PIL.Image.fromarray(np.ascontiguousarray(image))
    small = np.array(picture.resize((columns, rows), PIL.Image.Resampling.BILINEAR, reducing_gap=3))
    x = standard(torch.from_numpy(small).permute(2, 0, 1)[None].float())
    return F.pad(x, (0, -columns % STRIDE, 0, -rows % STRIDE)), (rows, columns)


def standard(rgb: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 255] to what the encoder was trained on."""
    return (rgb - _MEAN) / _DEVIATION


def colours(x: Tensor) -> Tensor:
    """Back from `standard`."""
    return x * _DEVIATION + _MEAN


class Finder:
    """A trained ObjectNet that answers for whole images.

    Parameters
    ----------
    net : ObjectNet
        Kept as it is; a folded copy answers.
    labels : sequence of int
        Class of each pair of maps.
    side_px : int
        Longest side at which it looks at an image.
    device : torch.device
    whole : bool
        Whether it looks at all of an image, not at its field of view alone (see `field`).
    """

    def __init__(
        self,
        net: ObjectNet,
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
        self._quick: nn.Module | None = None

    def see(self, image: Image) -> dict[int, Seen]:
        """What it sees of each class, at the size of the image: the mean of several looks.

        If they are at the field of view alone, nothing is in the frame around it.

        Parameters
        ----------
        image : (H, W, 3) uint8
        """
        if self._quick is None:
            self._quick = folded(self._net).to(self.device).to(memory_format=torch.channels_last)
        inner = np.s_[:, :] if self.whole else field_of(image)
        count = len(self.labels)
        part = image[inner]
        with torch.inference_mode():
            total = self._look(self._quick, part, ZOOMS[0])
            for zoom in ZOOMS[1:]:
                total += self._look(self._quick, part, zoom)
            values = np.zeros((2 * count, *image.shape[:2]), np.float32)
            values[:, *inner] = total.div_(len(ZOOMS)).cpu().numpy()
        return {k: Seen(values[i], values[count + i]) for i, k in enumerate(self.labels)}

    def _look(self, net: nn.Module, image: Image, zoom: float) -> Tensor:
        """(2 C, H, W), of the image and of its mirror image at `zoom` times the usual size."""
        x, (rows, columns) = to_input(image, round(self.side_px * zoom))
        x = x.to(self.device)
        logits = (net(x) + net(x.flip(-1)).flip(-1)) / 2  # (1, 2 C, h, w)
        seen = torch.sigmoid(logits[..., :rows, :columns])
        return F.interpolate(seen, size=image.shape[:2], mode="bilinear", align_corners=False)[0]

    def pack(self) -> dict[str, Any]:
        """Plain values and half-precision weights, for the prompter file."""
        state = {k: v.cpu() for k, v in self._net.state_dict().items()}
        return {
            "labels": list(self.labels),
            "side_px": self.side_px,
            "whole": self.whole,
            "config": {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in asdict(self._net.config).items()
            },
            "state": {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
        }

    @classmethod
    def unpack(cls, content: Mapping[str, Any], device: torch.device) -> Finder:
        """Back from `pack`.

        Raises
        ------
        FormatError
            Damaged.
        """
        try:
            labels = [int(k) for k in content["labels"]]
            net = ObjectNet(_config(content["config"]), len(labels))
            state = content["state"].items()
            net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state})
            whole = bool(content.get("whole", False))
            return cls(net, labels, int(content["side_px"]), device, whole=whole)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            told = " ".join(str(error).split())[:120]
            raise FormatError(f"its object network is damaged ({told}). Train again.") from error
