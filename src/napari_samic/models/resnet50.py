"""ResNet-50 as a frozen source of features: every block of its last three stages.

Sources: He et al., CVPR 2016; the taps are HSNet's (before a block's last ReLU). Needs torchvision,
imported when the network is built. Knows nothing of prompts, maps or correlations.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_samic.contracts import Image
from napari_samic.errors import FormatError, InputError, WeightsError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]."""


class ResNet50Taps(nn.Module):
    """ResNet-50 that answers with 4 + 6 + 3 feature maps; never trains, whatever it is told.

    `ResNet50Taps()` has random weights; `ResNet50Taps.load(path)` has trained ones.

    References
    ----------
    HSNet, section 4.1.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50

        self.body = resnet50(weights=None)
        del self.body.fc
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Features of a batch.

        Parameters
        ----------
        images : (B, 3, S, S) float
            Normalised, as `preprocess` makes them.

        Returns
        -------
        list of list of (B, C, h, w) float
            l2: 4 of (B, 512, S / 8, S / 8); l3: 6 of (B, 1024, S / 16, S / 16);
            l4: 3 of (B, 2048, S / 32, S / 32). Before each block's last ReLU.

        Raises
        ------
        InputError
            Not (B, 3, H, W).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"images of {tuple(images.shape)}, expected (B, 3, H, W).")
        net = self.body
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))  # (B, 64, S / 4, S / 4)
        x = net.layer1(x)
        levels = []
        for stage in (net.layer2, net.layer3, net.layer4):
            level = []
            for block in stage:
                level.append(_before_relu(block, x))
                x = F.relu(level[-1])
            levels.append(level)
        return levels

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read torchvision's weights of ResNet-50; batch norms are folded into the convolutions.

        Parameters
        ----------
        path : Path
            A state dict, as torchvision publishes it.

        Returns
        -------
        ResNet50Taps

        Raises
        ------
        WeightsError
            No such file.
        FormatError
            A file of another kind.
        """
        state = _read(Path(path))
        with torch.device("meta"):  # no time spent on random weights
            taps = cls()
        wanted = taps.body.state_dict()
        _check_keys(Path(path), state, wanted)
        taps.body.load_state_dict({k: state[k] for k in wanted}, assign=True)
        taps.requires_grad_(False)
        taps.fold_batch_norms()
        return taps

    def fold_batch_norms(self) -> None:
        """Join each batch norm to its convolution: same answer, fewer passes. Changes the names."""
        pairs = [(self.body, "conv1", "bn1")]
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for block in getattr(self.body, stage):
                pairs += [(block, f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
                if block.downsample is not None:
                    pairs.append((block.downsample, "0", "1"))
        for parent, conv, norm in pairs:
            if not isinstance(getattr(parent, norm), nn.Identity):
                fused = fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm))
                setattr(parent, conv, fused)
                setattr(parent, norm, nn.Identity())
        self.requires_grad_(False)


def _before_relu(block: Any, x: Tensor) -> Tensor:
    """A bottleneck without its last ReLU; `x` is left as it was."""
    y = block.relu(block.bn1(block.conv1(x)))
    y = block.relu(block.bn2(block.conv2(y)))
    y = block.bn3(block.conv3(y))
    return y + (x if block.downsample is None else block.downsample(x))  # type: ignore[no-any-return]


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file. Fetch the weights of ResNet-50.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        msg = f"{path.name}: not a file of PyTorch weights. Fetch the weights of ResNet-50 again."
        raise FormatError(msg) from error


def _check_keys(path: Path, state: Any, wanted: dict[str, Tensor]) -> None:
    """Raise FormatError unless `state` has every weight, in its shape; `fc` is ignored."""
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        msg = f"{path.name}: holds no state dict. Save `model.state_dict()`, not the model."
        raise FormatError(msg)
    given = {k: v for k, v in state.items() if not k.startswith("fc.")}
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "of another shape": [
            k for k in sorted(wanted.keys() & given.keys()) if wanted[k].shape != given[k].shape
        ],
    }
    told = [f"{len(keys)} {what} ({_shortly(keys)})" for what, keys in faults.items() if keys]
    if told:
        raise FormatError(f"{path.name}: not the weights of ResNet-50: {'; '.join(told)}.")


def _shortly(keys: list[str]) -> str:
    return ", ".join(keys[:2]) + (", ..." if len(keys) > 2 else "")


def preprocess(image: Image, side: int = 224) -> Tensor:
    """Resize to a square, whatever the aspect, and normalise as ImageNet was.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    side : int
        S, in pixels.

    Returns
    -------
    (1, 3, S, S) float32

    Raises
    ------
    InputError
        Another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image of {image.dtype} {image.shape}, expected uint8 (H, W, 3).")
    small = PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(small, np.float32) / 255)  # (S, S, 3)
    normal = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    return normal.permute(2, 0, 1)[None].contiguous()  # (1, 3, S, S)
