"""Time the learner and the correlation against straightforward ones, turn about in one process.

    python benchmarks/learner.py --batch 4 --repeats 7

"plain" is the textbook form: channels-first copies, every tap computed, every reference cell
correlated. Medians; the ratio is plain / ours, the difference the largest between the two answers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.models.samic.hsnet import CenterPivotConv4d, HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import correlate, prepare_reference, prepare_target


class PlainPivot(nn.Module):
    """Two convolutions on channels-first copies."""

    def __init__(self, ours: CenterPivotConv4d) -> None:
        super().__init__()
        self.conv1, self.conv2, self.stride = ours.conv1, ours.conv2, ours.stride

    def forward(self, x: Tensor) -> Tensor:
        b, c, ha, wa, hb, wb = x.shape
        kept = x[..., :: self.stride, :: self.stride]
        h, w = kept.shape[4:]
        over_a = self.conv1(kept.permute(0, 4, 5, 1, 2, 3).reshape(b * h * w, c, ha, wa))
        over_b = self.conv2(x.permute(0, 2, 3, 1, 4, 5).reshape(b * ha * wa, c, hb, wb))
        over_a = over_a.view(b, h, w, -1, ha, wa).permute(0, 3, 4, 5, 1, 2)
        y: Tensor = over_a + over_b.view(b, ha, wa, -1, h, w).permute(0, 3, 1, 2, 4, 5)
        return y


class PlainLearner(nn.Module):
    """The same weights, the textbook way."""

    def __init__(self, ours: HyperCorrelationLearner) -> None:
        super().__init__()
        self.blocks = [
            self._plain(getattr(ours, f"encoder_layer{i}")) for i in ("4", "3", "2", "4to3", "3to2")
        ]
        self.decoder1, self.decoder2 = ours.decoder1, ours.decoder2

    @staticmethod
    def _plain(block: Any) -> nn.Sequential:
        parts: list[nn.Module] = []
        for pivot, norm, _ in zip(block[0::3], block[1::3], block[2::3], strict=True):
            plain_norm = nn.GroupNorm(4, norm.num_channels)
            plain_norm.weight, plain_norm.bias = norm.weight, norm.bias
            parts += [PlainPivot(pivot), plain_norm, nn.ReLU()]
        return nn.Sequential(*parts)

    @staticmethod
    def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
        b, c, ha, wa, hb, wb = x.shape
        flat = x.permute(0, 4, 5, 1, 2, 3).reshape(b * hb * wb, c, ha, wa)
        y = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=True)
        return y.view(b, hb, wb, c, *size).permute(0, 3, 4, 5, 1, 2)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        x4, x3, x2 = (block(level) for block, level in zip(self.blocks, pyramid, strict=False))
        x = self.blocks[3](self._resized(x4, x3.shape[2:4]) + x3)
        x = self.blocks[4](self._resized(x, x2.shape[2:4]) + x2)
        x = self.decoder1(x.flatten(4).mean(-1))
        size = (2 * x.shape[2], 2 * x.shape[3])
        y: Tensor = self.decoder2(F.interpolate(x, size, mode="bilinear", align_corners=True))
        return y


def plain_correlate(
    target: list[list[Tensor]], reference: list[list[Tensor]], heat: Tensor
) -> list[Tensor]:
    """Mask, normalise and multiply everything, block by block."""
    levels = []
    for blocks_a, blocks_b in zip(target, reference, strict=True):
        level = []
        for a, b in zip(blocks_a, blocks_b, strict=True):
            size = b.shape[2:]
            m = F.interpolate(heat[:, None], size, mode="bilinear", align_corners=True)
            b = (b * m).flatten(2)
            b = b / (b.norm(dim=1, keepdim=True) + 1e-5)
            q = a.flatten(2)
            q = q / (q.norm(dim=1, keepdim=True) + 1e-5)
            product = torch.bmm(q.transpose(1, 2), b).view(len(a), *a.shape[2:], *size)
            level.append(product.clamp(min=0))
        levels.append(torch.stack(level, 1))
    return levels[::-1]


def alternate(
    plain: Callable[[], Any], ours: Callable[[], Any], repeats: int
) -> tuple[float, float]:
    """Median milliseconds of each, A B A B; of CPU time where one thread makes that fair."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats + 1):
        for job, kept in zip((plain, ours), times, strict=True):
            start = clock()
            job()
            if i:  # the first round warms up
                kept.append((clock() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def difference(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor) -> float:
    with torch.no_grad():
        return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def click_map(batch: int, side: int, clicks: int = 4) -> Tensor:
    """Gaussians of the default width at `clicks` random places."""
    yx = torch.rand(batch, clicks, 2, 1, 1)
    axis = torch.linspace(0, 1, side)
    far = (axis[:, None] - yx[:, :, 0]) ** 2 + (axis - yx[:, :, 1]) ** 2
    return torch.exp(-far / (2 * 0.02**2)).sum(1).clamp(max=1)


def rows(
    batch: int, grids: Sequence[int], inch: tuple[int, int, int], repeats: int
) -> list[tuple[str, float, float, float]]:
    """(what, plain ms, our ms, difference) for one set of grids, fine to coarse."""
    widths = (512, 1024, 2048) if inch == (3, 6, 4) else (192, 384, 768)
    target, reference = (
        [
            [torch.randn(batch, c, g, g) for _ in range(blocks)]
            for c, g, blocks in zip(widths, grids, reversed(inch), strict=True)
        ]
        for _ in range(2)
    )
    heat = click_map(batch, grids[0] * 8)
    prepared_a, prepared_b = prepare_target(target), prepare_reference(reference, heat)
    pyramid = correlate(prepared_a, prepared_b)
    plain_pyramid = plain_correlate(target, reference, heat)
    ours = HyperCorrelationLearner(inch)
    plain = PlainLearner(ours)

    def train(net: nn.Module, levels: list[Tensor]) -> None:
        ours.zero_grad()
        net(levels).square().mean().backward()

    def infer(net: nn.Module, levels: list[Tensor]) -> Tensor:
        with torch.no_grad():
            y: Tensor = net(levels)
            return y

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "learner forward + backward": (
            lambda: train(plain, plain_pyramid),
            lambda: train(ours, pyramid),
        ),
        "learner forward": (lambda: infer(plain, plain_pyramid), lambda: infer(ours, pyramid)),
        "correlation, all from features": (
            lambda: plain_correlate(target, reference, heat),
            lambda: correlate(prepare_target(target), prepare_reference(reference, heat)),
        ),
        "correlation, images prepared": (
            lambda: plain_correlate(target, reference, heat),
            lambda: correlate(prepared_a, prepared_b),
        ),
    }
    apart = difference(infer(plain, plain_pyramid), infer(ours, pyramid))
    apart_corr = difference(plain_pyramid, pyramid)
    return [
        (what, *alternate(a, b, repeats), apart if "learner" in what else apart_corr)
        for what, (a, b) in pairs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--inch", type=int, nargs=3, default=(6, 8, 3), help="blocks of l4, l3, l2")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"batch {args.batch}, inch {tuple(args.inch)}, {args.threads} thread(s), medians in ms")
    print(f"{'grids':10}{'what':34}{'plain':>9}{'ours':>9}{'ratio':>8}{'max diff':>11}")
    for grids in ((28, 14, 7), (32, 16, 8)):
        for what, a, b, apart in rows(args.batch, grids, tuple(args.inch), args.repeats):
            name = "/".join(map(str, grids))
            print(f"{name:10}{what:34}{a:9.1f}{b:9.1f}{a / b:7.2f}x{apart:11.1e}")


if __name__ == "__main__":
    main()
