"""Any timm network as an encoder: its blocks' outputs, as maps from fine to coarse.

A network is looked at once, with a picture of zeros: which of its modules are blocks, and what maps
they give. Convolutional networks and plain vision transformers are known. Knows no weights file.

Source: timm (Wightman, PyTorch Image Models), whose names of networks are taken as they are.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.errors import ModelError

STRIDES = (4, 8, 16, 32)
"""Of the maps that a pyramid takes, in pixels of the input."""
PLAIN = ((1, 1), (1, 1), 1)
"""Kernel, stride and groups of a convolution that is a matrix product."""
_BLOCK = re.compile(
    r"(Block|BasicBlock|Bottleneck|InvertedResidual|DepthwiseSeparableConv|EdgeResidual"
    r"|ConvNeXtBlock|RepVggBlock|MobileOneBlock|UniversalInvertedResidual)$"
)


@dataclass(frozen=True)
class Layout:
    """Which modules of a network give maps, and what these are.

    Attributes
    ----------
    names : tuple of str
        Blocks in the order in which they run.
    channels : tuple of int
    strides : tuple of int
        Pixels of the input to a cell.
    tokens : bool
        Whether blocks give (B, N, C) tokens, all of one grid, as a vision transformer's do.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    tokens: bool = False

    @property
    def levels(self) -> list[list[int]]:
        """Blocks of each level for correlations: three levels, fine to coarse.

        Of a pyramid all blocks at strides of 8, 16 and 32; of a transformer three blocks each,
        spread over its last half.
        """
        if self.tokens:
            return spread_blocks(len(self.names))
        return [[i for i, s in enumerate(self.strides) if s == stride] for stride in STRIDES[1:]]

    @property
    def ends(self) -> list[int]:
        """The block whose map stands for each of `STRIDES`."""
        if self.tokens:
            last = len(self.names) - 1
            return [round(last * (k + 1) / len(STRIDES)) for k in range(len(STRIDES))]
        return [max(i for i, s in enumerate(self.strides) if s == stride) for stride in STRIDES]


def spread_blocks(depth: int, levels: int = 3, width: int = 3) -> list[list[int]]:
    """Blocks of a transformer that feed each level: three each, evenly over the last half.

    >>> spread_blocks(12)
    [[6, 7, 8], [8, 9, 10], [9, 10, 11]]
    >>> spread_blocks(24)
    [[12, 14, 15], [16, 18, 19], [20, 22, 23]]
    """
    first, n = depth // 2, depth - depth // 2
    span = min(n, max(width, -(-n // levels)))
    chosen = []
    for i in range(levels):
        start = first + round(i * (n - span) / (levels - 1))
        chosen.append(
            [round(float(b)) for b in np.linspace(start, start + span - 1, min(width, span))]
        )
    return chosen


def create(name: str) -> nn.Module:
    """A timm network without its classifier, with random weights.

    Raises
    ------
    ModelError
        timm has no network of this name.
    """
    import timm  # slow to import

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models())
        matches = (timm.list_models(f"{name}*"), timm.list_models(f"*{name}*"), near)
        like = next(filter(None, (*matches, timm.list_models("resnet*"))))[:5]
        msg = f"encoder {name!r}: timm has none of this name. Like it: {', '.join(like)}. "
        msg += "A file of yours is path:FILE."
        raise ModelError(msg)
    more = {"dynamic_img_size": True} if _is_transformer(name) else {}
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **more)
    for part in ("conv_head", "bn2"):  # of an EfficientNet: for its classifier only
        if isinstance(getattr(network, "blocks", None), nn.Sequential) and hasattr(network, part):
            setattr(network, part, nn.Identity())
    return network


def _is_transformer(name: str) -> bool:
    return name.startswith(("vit_", "deit", "eva", "beit"))


def input_config(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and deviation of colors in [0, 255], and the side that it was trained at."""
    config: Any = network.pretrained_cfg
    mean, std = (tuple(255 * float(v) for v in config[k]) for k in ("mean", "std"))
    return mean, std, int(config["input_size"][-1])


def inspect_layout(network: nn.Module, name: str) -> Layout:
    """Look at a network once.

    Raises
    ------
    ModelError
        Neither a pyramid with maps at all of `STRIDES` nor a plain vision transformer.
    """
    blocks = {k: m for k, m in network.named_modules() if _BLOCK.search(type(m).__name__)}
    blocks = {
        k: m for k, m in blocks.items() if not any(k.startswith(f"{other}.") for other in blocks)
    }
    side = input_config(network)[2]
    side = side if _is_transformer(name) else -(-side // STRIDES[-1]) * STRIDES[-1]
    was_training = network.training
    with torch.no_grad():
        _, maps = run(network.eval(), list(blocks.values()), torch.zeros(1, 3, side, side))
    network.train(was_training)
    shapes = [tuple(t.shape) for t in maps]
    if shapes and all(len(s) == 3 for s in shapes):
        width = len(shapes)
        stride = int(network.patch_embed.patch_size[0])  # type: ignore[union-attr, index]
        return Layout(tuple(blocks), tuple(s[2] for s in shapes), (stride,) * width, tokens=True)
    is_maps = all(len(s) == 4 and s[2] == s[3] for s in shapes)
    strides = tuple(round(side / s[-1]) if len(s) == 4 else 0 for s in shapes)
    if not is_maps or not set(STRIDES) <= set(strides):
        strides_text = ", ".join(map(str, sorted(set(strides)))) or "none"
        msg = (
            f"encoder {name!r}: blocks with maps at strides {strides_text}, expected 4, 8, 16 and "
            "32, or a plain vision transformer. Take resnet50, convnext_tiny, "
            "vit_small_patch14_dinov2 or another of their kind."
        )
        raise ModelError(msg)
    return Layout(tuple(blocks), tuple(s[1] for s in shapes), strides)


def run(network: nn.Module, blocks: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One pass of a network: its answer, and the outputs of these blocks on the way.

    Those of a residual network before their last activation. Threads may share the network.
    """
    caught: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for i, block in enumerate(blocks):
            last = getattr(block, "act3", None) or getattr(block, "act2", None)
            if isinstance(last, nn.Module) and "resnet" in type(block).__module__:
                handle = last.register_forward_pre_hook(_catch_input(caught, i))
            else:
                handle = block.register_forward_hook(_catch_output(caught, i))
            stack.callback(handle.remove)
        answer = getattr(network, "forward_features", network)(x)
    return answer, [caught[i] for i in range(len(blocks)) if i in caught]


def _catch_output(caught: dict[int, Tensor], place: int) -> Callable[..., None]:
    mine = threading.get_ident()

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if threading.get_ident() == mine:  # else it is another thread's pass
            caught[place] = output

    return hook


def _catch_input(caught: dict[int, Tensor], place: int) -> Callable[..., None]:
    mine = threading.get_ident()

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == mine:
            caught[place] = inputs[0].clone()  # the activation is in place

    return hook


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution as a matrix product: PyTorch's own is slow on one thread."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) to (B, cout, h, w)."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(
            0, 3, 1, 2
        )


class _Float32WhileTraining(nn.Module):
    """A convolution in 32 bits where a gradient is wanted: oneDNN's depthwise one is slow in 16.

    Forward and backward of 1248 channels of 8 x 8 cells took 19 ms, and 77 ms in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution that it is mixed into."""
        if not torch.is_grad_enabled() or x.device.type != "cpu":
            return torch.as_tensor(super().forward(x))
        with torch.autocast("cpu", enabled=False):
            return torch.as_tensor(super().forward(x.float()))


def use_fast_convolutions(module: nn.Module) -> None:
    """Let the 1x1 and the depthwise convolutions of a network compute in quicker ways, in place.

    Its parameters stay the same.
    """
    kinds: dict[type, type] = {}
    for child in module.modules():
        if not isinstance(child, nn.Conv2d):
            continue
        kind = type(child)
        if child.groups > 1 and child.groups == child.in_channels:
            kinds.setdefault(kind, type(kind.__name__, (_Float32WhileTraining, kind), {}))
            child.__class__ = kinds[kind]
        elif kind is nn.Conv2d and (child.kernel_size, child.stride, child.groups) == PLAIN:
            child.__class__ = PointwiseConv2d


class TimmEncoder(nn.Module):
    """A timm network that answers maps: (B, 3, h, w) to one for each of its blocks.

    Parameters
    ----------
    name : str
        As timm has it.

    Raises
    ------
    ModelError
        A network that nobody knows, or that gives no maps for inputs of any size.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._frozen: list[nn.Module] = []
        try:
            self.network = create(name)
            use_fast_convolutions(self.network)
            self.layout = inspect_layout(self.network, name)
            with torch.no_grad():
                self.eval().blocks(torch.zeros(1, 3, 64, 96))
        except (TypeError, AttributeError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:80]
            msg = f"encoder {name!r}: can't look at images of any size ({reason}). "
            msg += (
                "Take resnet50, convnext_tiny, vit_small_patch14_dinov2 or another of their kind."
            )
            raise ModelError(msg) from error
        self.train()
        mean, deviation, self.side_px = input_config(self.network)
        self.mean, self.deviation = mean, deviation

    @property
    def widths(self) -> list[int]:
        """Channels of the maps that stand for `STRIDES`."""
        return [self.layout.channels[i] for i in self.layout.ends]

    def freeze(self) -> None:
        """Let the first part stay as it is when the rest learns.

        Of a pyramid all that comes before the first block at a stride of 16, which knows edges and
        textures and costs most; of a transformer all before its second half.
        """
        self._frozen = self._first_part()
        for part in self._frozen:
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)

    def _first_part(self) -> list[nn.Module]:
        names, strides = self.layout.names, self.layout.strides
        late = len(names) // 2 if self.layout.tokens else strides.index(16)
        until = self.network.get_submodule(names[late])
        return list(takewhile(lambda module: module is not until, self.network.modules()))

    def train(self, mode: bool = True) -> TimmEncoder:
        """Put in training mode, but for the frozen part, whose norms stay as they are."""
        super().train(mode)
        for part in self._frozen:
            part.training = False
        return self

    def blocks(self, x: Tensor) -> list[Tensor]:
        """Maps of all blocks, (B, C, h, w) each, before their last activation.

        Parameters
        ----------
        x : (B, 3, h, w)
            Scaled as the network takes it; sides multiples of 32. A transformer sees it resized to
            a whole number of its patches.
        """
        modules = [self.network.get_submodule(k) for k in self.layout.names]
        if not self.layout.tokens:
            return run(self.network, modules, x)[1]
        patch = self.layout.strides[0]
        grid = [max(1, round(int(n) / patch)) for n in x.shape[-2:]]
        size = [n * patch for n in grid]
        if size != list(x.shape[-2:]):
            x = _resized(x, size)
        prefix = int(self.network.num_prefix_tokens)  # type: ignore[arg-type]
        return [
            torch.unflatten(t[:, prefix:].transpose(1, 2), 2, grid)  # (B, N, C) to (B, C, h, w)
            for t in run(self.network, modules, x)[1]
        ]

    def levels(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[list[Tensor]]:
        """Of the `blocks`' maps, those that correlations take: three levels, fine to coarse.

        A transformer's are resized to what a pyramid has of an input of `size`: 4, 2 and 1 for each
        32 pixels.
        """
        chosen = [[maps[i] for i in level] for level in self.layout.levels]
        if not self.layout.tokens:
            return chosen
        last = [max(1, round(n / STRIDES[-1])) for n in size]
        return [
            [_resized(t, [n * times for n in last]) for t in level]
            for times, level in zip((4, 2, 1), chosen, strict=True)
        ]

    def ends(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Of the `blocks`' maps, one for each of `STRIDES`, of an input of `size`."""
        chosen = [maps[i] for i in self.layout.ends]
        if not self.layout.tokens:
            return chosen
        sizes = [(max(1, size[0] // s), max(1, size[1] // s)) for s in STRIDES]
        return [_resized(t, wanted) for t, wanted in zip(chosen, sizes, strict=True)]


def _resized(t: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(t, size=tuple(size), mode="bilinear", align_corners=False)
