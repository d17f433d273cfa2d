"""MobileSAM's image encoder, for inference: TinyViT-5M at 1024 pixels, stride 16.

Written from the papers (TinyViT, Wu et al., ECCV 2022; MobileSAM, 2023); the parameters carry the
names and shapes of the official checkpoint, so it loads as it is. Four stages: convolutions at
stride 4, then windowed attention at strides 8, 16 and 16 (MobileSAM drops the last halving). Must
not know prompts, masks or files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]
_UNUSED = ("image_encoder.norm_head.", "image_encoder.head.")


def without_classifier(state: State) -> State:
    """Drop what the encoder does not use: the ImageNet classifier and stored index tables."""
    return {
        k: v
        for k, v in state.items()
        if not k.startswith(_UNUSED) and not k.endswith("attention_bias_idxs")
    }


class ConvBN(nn.Sequential):
    """Convolution without bias, then batch norm."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.add_module("c", conv)
        self.add_module("bn", nn.BatchNorm2d(cout))


class PatchEmbed(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.seq = nn.Sequential(ConvBN(3, half, 3, 2), nn.GELU(), ConvBN(half, width, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, C, S/4, S/4)."""
        return torch.as_tensor(self.seq(x))


class MBConv(nn.Module):
    """Inverted bottleneck with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 4 * width
        self.conv1 = ConvBN(width, inner)
        self.conv2 = ConvBN(inner, inner, 3, groups=inner)
        self.conv3 = ConvBN(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), shape kept."""
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y)


class Downsample(nn.Module):
    """From one stage to the next: wider, and smaller if `stride` is 2."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(cin, cout)
        self.conv2 = ConvBN(cout, cout, 3, stride, groups=cout)
        self.conv3 = ConvBN(cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) to (B, cout, h / stride, w / stride)."""
        return torch.as_tensor(self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Attention(nn.Module):
    """Multi-head attention in one window; a learned bias for each absolute offset."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.window = window

    def _bias(self) -> Tensor:
        """(heads, N, N): entry |row offset| * window + |column offset| of each head's table."""
        place = torch.arange(self.window, device=self.attention_biases.device)
        gap = (place[:, None] - place[None]).abs()  # (w, w)
        index = gap[:, None, :, None] * self.window + gap[None, :, None, :]  # (w, w, w, w)
        return self.attention_biases[:, index.reshape(self.window**2, -1)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) with N cells of one window, shape kept."""
        batch, cells, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, cells, self.heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (B, heads, N, C / heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias())
        return torch.as_tensor(self.proj(y.transpose(1, 2).reshape(batch, cells, width)))


class Mlp(nn.Module):
    """Norm, four times wider, back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C), shape kept."""
        return torch.as_tensor(self.fc2(F.gelu(self.fc1(self.norm(x)))))


class Block(nn.Module):
    """Windowed attention, a depthwise convolution across windows, an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvBN(width, width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), shape kept."""
        x = x + self._attend(x)
        x = torch.as_tensor(self.local_conv(x))
        y: Tensor = self.mlp(x.permute(0, 2, 3, 1))
        return x + y.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        batch, width, rows, columns = x.shape
        side = self.window
        padded = F.pad(x, (0, -columns % side, 0, -rows % side))
        down, across = padded.shape[2] // side, padded.shape[3] // side
        y = padded.view(batch, width, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
        y = torch.as_tensor(self.attn(y.reshape(-1, side * side, width)))  # (B * windows, N, C)
        y = y.view(batch, down, across, side, side, width).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(padded.shape)[..., :rows, :columns]


class Stage(nn.Module):
    """Blocks, then the step to the next stage if there is one."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class TinyViT(nn.Module):
    """The encoder.

    Parameters
    ----------
    img_size : int
        Side of the square input in pixels; a multiple of 16.
    strides : (int, int, int)
        Of the steps between stages; MobileSAM's last one is 1.

    References
    ----------
    Wu et al., TinyViT, ECCV 2022; Zhang et al., Faster Segment Anything, 2023.
    """

    def __init__(
        self,
        img_size: int = 1024,
        *,
        widths: tuple[int, ...] = (64, 128, 160, 320),
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (2, 4, 5, 10),
        windows: tuple[int, ...] = (7, 7, 14, 7),
        strides: tuple[int, ...] = (2, 2, 1),
        out: int = 256,
    ) -> None:
        super().__init__()
        from segment_anything.modeling.common import LayerNorm2d

        self.img_size = img_size
        self.patch_embed = PatchEmbed(widths[0])
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks: list[nn.Module] = [
                Block(width, heads[i], windows[i]) if i else MBConv(width) for _ in range(depth)
            ]
            step = Downsample(width, widths[i + 1], strides[i]) if i < len(strides) else None
            stages.append(Stage(blocks, step))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Embedding and block outputs in one pass.

        Parameters
        ----------
        x : (B, 3, S, S) float
            Normalised image.

        Returns
        -------
        embedding : (B, 256, S/16, S/16)
        taps : three lists of (B, C, h, w)
            Blocks of the attention stages, at strides 8, 16 and 16: 2, the last 3 of 6, and 2.
        """
        x = self.patch_embed(x)
        levels: list[list[Tensor]] = []
        for stage in self.layers:
            taps = []
            for block in stage.blocks:  # type: ignore[union-attr]
                x = block(x)
                taps.append(x)
            levels.append(taps[-3:])
            if stage.downsample is not None:
                x = stage.downsample(x)  # type: ignore[operator]
        return torch.as_tensor(self.neck(x)), levels[1:]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to the (B, 256, S/16, S/16) embedding."""
        return self.encode(x)[0]
