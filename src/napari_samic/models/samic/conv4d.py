"""The center-pivot 4-D convolution, written to be trained on a CPU.

Source: HSNet (Min et al., ICCV 2021), section 4.3; written from the paper. Knows nothing of levels
or images.

Tensors are (B, C, ha, wa, hb, wb), target grid (a) and support grid (b), but stored channels-last,
as (B, ha, wa, hb, wb, C): the convolution over (b) reads that without a copy, and oneDNN's weight
gradients are several times faster than from channels-first. The gradient is written by hand since
autograd would scatter strided slices into full-size zeros, and oneDNN's input gradient of a strided
convolution is four times slower than products over its few output cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_samic.core.errors import InputError


class CenterPivotConv4d(nn.Module):
    """The center-pivot 4-D convolution: its kernel is not 0 only where one half is at its center.

    That is two 2-D convolutions, summed: `conv1` over the target grid at every `stride`-th support
    position, `conv2` with `stride` over the support grid at every target position.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    kernel : int
        Side, odd; padded by half.
    stride : int
        Over the support grid; 1 over the target grid.

    Raises
    ------
    InputError
        An even kernel.

    References
    ----------
    HSNet, section 4.3.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise InputError(f"kernel {kernel}: expected an odd side.")
        self.stride, self.pad = stride, kernel // 2
        self.conv1 = nn.Conv2d(c_in, c_out, kernel, 1, kernel // 2)
        self.conv2 = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        x : (B, c_in, ha, wa, hb, wb) float
            Stored in any order; channels-last saves a copy.

        Returns
        -------
        (B, c_out, ha, wa, ceil(hb / stride), ceil(wb / stride)) float
            Stored channels-last.

        Raises
        ------
        InputError
            Not 6-D, or other channels.
        """
        if x.ndim != 6 or x.shape[1] != self.conv1.in_channels:
            wanted = f"(B, {self.conv1.in_channels}, ha, wa, hb, wb)"
            raise InputError(f"correlation of {tuple(x.shape)}, expected {wanted}.")
        if x.shape[4:] == (1, 1):
            return self._folded(x[..., 0, 0])[..., None, None]
        bias = self._bias()
        args = [x.movedim(1, -1), self.conv1.weight, self.conv2.weight, bias]
        if torch.is_autocast_enabled(x.device.type):
            args = [a.to(torch.get_autocast_dtype(x.device.type)) for a in args]
        y: Tensor = _Pivot.apply(*args, self.stride)
        return y.movedim(-1, 1)

    def _bias(self) -> Tensor:
        """Both at once; each gets the whole gradient."""
        if self.conv1.bias is None or self.conv2.bias is None:
            raise InputError("a centre pivot without bias: expected one in both convolutions.")
        return self.conv1.bias + self.conv2.bias

    def _folded(self, x: Tensor) -> Tensor:
        """One support cell: the center tap of conv2 joins conv1. (B, C, ha, wa) to the same."""
        pad = self.pad
        tap = self.conv2.weight[:, :, pad : pad + 1, pad : pad + 1]  # (c_out, c_in, 1, 1)
        weight = self.conv1.weight + F.pad(tap, (pad, pad, pad, pad))
        return F.conv2d(x, weight, self._bias(), padding=pad)


class _Pivot(torch.autograd.Function):
    """Both convolutions on (B, ha, wa, hb, wb, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, w2: Tensor, bias: Tensor, stride: int) -> Tensor:
        x = x.contiguous()
        kept = x[:, :, :, ::stride, ::stride].permute(0, 3, 4, 1, 2, 5)
        kept = kept.contiguous()  # (B, hb', wb', ha, wa, C)
        ctx.save_for_backward(x, kept, w1, w2)
        ctx.stride = stride
        y = _over_support(x, w2, bias, stride)  # (B, ha, wa, hb', wb', c_out)
        y1 = F.conv2d(_planes(kept), w1, None, padding=w1.shape[-1] // 2)
        return y.add_(_unplaned(y1, kept).permute(0, 3, 4, 1, 2, 5))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, w1, w2 = ctx.saved_tensors
        stride, wants_x = ctx.stride, ctx.needs_input_grad[0]
        grad = grad.contiguous()  # (B, ha, wa, hb', wb', c_out)
        grad1 = grad.permute(0, 3, 4, 1, 2, 5).contiguous()  # (B, hb', wb', ha, wa, c_out)
        gx1, gw1 = _conv_backward(grad1, kept, w1, 1, (wants_x, True))
        gw2 = _support_weight_grad(grad, x, w2, stride)
        gx = None
        if wants_x:
            gx = _support_input_grad(grad, w2, x.shape, stride)  # (B, ha, wa, hb, wb, C)
            gx[:, :, :, ::stride, ::stride] += _unplaned(gx1, kept).permute(0, 3, 4, 1, 2, 5)
        return gx, gw1, gw2, grad.flatten(0, 4).sum(0), None


def _planes(x: Tensor) -> Tensor:
    """(B, h1, w1, h2, w2, C) to (B * h1 * w1, C, h2, w2), channels-last; a view."""
    return x.flatten(0, 2).movedim(-1, 1)


def _unplaned(y: Tensor, like: Tensor) -> Tensor:
    """Back from `_planes`, with the leading axes of `like`."""
    return torch.unflatten(y.movedim(1, -1), 0, like.shape[:3])


def _over_support(x: Tensor, w2: Tensor, bias: Tensor, stride: int) -> Tensor:
    """conv2 of (B, ha, wa, hb, wb, C); a single output cell is one product of its live taps."""
    (hb, wb), pad = x.shape[3:5], w2.shape[-1] // 2
    if max(hb, wb) > stride:
        return _unplaned(F.conv2d(_planes(x), w2, bias, stride, pad), x)
    ((rows, cols, taps),) = _windows(hb, wb, w2, stride)
    return F.linear(x[:, :, :, rows, cols].flatten(3), taps.flatten(1), bias)[:, :, :, None, None]


def _windows(hb: int, wb: int, w2: Tensor, stride: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Of each output cell, row by row: the rows and columns it sees, and their live taps.

    Taps are (c_out, rows, columns, c_in).
    """
    pad = w2.shape[-1] // 2
    last = w2.movedim(1, -1)  # (c_out, k, k, c_in)
    for i in range(-pad, hb - pad, stride):
        rows = slice(max(i, 0), min(i + 2 * pad + 1, hb))
        for j in range(-pad, wb - pad, stride):
            cols = slice(max(j, 0), min(j + 2 * pad + 1, wb))
            taps = last[:, rows.start - i : rows.stop - i, cols.start - j : cols.stop - j]
            yield rows, cols, taps


def _support_input_grad(grad: Tensor, w2: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """Gradient of `_over_support` for its input, of `shape`."""
    hb, wb = shape[3:5]
    if stride == 1:
        like = grad.new_empty(shape)
        return _unplaned(_conv_backward(grad, like, w2, 1, (True, False))[0], grad)
    flat = grad.flatten(0, 2).flatten(1, 2)  # (N, hb' * wb', c_out)
    gx = grad.new_zeros(len(flat), hb, wb, shape[5])
    for i, (rows, cols, taps) in enumerate(_windows(hb, wb, w2, stride)):
        gx[:, rows, cols] += torch.unflatten(flat[:, i] @ taps.flatten(1), 1, taps.shape[1:])
    return gx.view(shape)


def _support_weight_grad(grad: Tensor, x: Tensor, w2: Tensor, stride: int) -> Tensor:
    """Gradient of `_over_support` for its weight."""
    (hb, wb), pad = x.shape[3:5], w2.shape[-1] // 2
    if max(hb, wb) > stride:
        return _conv_backward(grad, x, w2, stride, (False, True))[1]
    h, w = min(hb, pad + 1), min(wb, pad + 1)  # what the single output cell sees
    cells = x[:, :, :, :h, :w].flatten(0, 2).flatten(1)  # (N, h * w * c_in)
    live = (grad.flatten(0, 4).T @ cells).view(len(w2), h, w, -1)  # (c_out, h, w, c_in)
    return F.pad(live.movedim(-1, 1), (pad, pad + 1 - w, pad, pad + 1 - h))


def _conv_backward(
    grad: Tensor, x: Tensor, w: Tensor, stride: int, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of a plane convolution for its input and weight, where wanted; oneDNN's."""
    pad = [w.shape[-1] // 2] * 2
    gx, gw, _ = torch.ops.aten.convolution_backward(
        _planes(grad), _planes(x), w, None, [stride] * 2, pad, [1, 1], False, [0, 0], 1,
        [*wants, False],
    )  # fmt: skip
    return gx, gw
