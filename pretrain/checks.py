"""Scores on held-back pictures while training: prompts, confidence, and features that match."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from napari_samic.evaluation.metrics import auc
from pretrain import batches, prompting


def true_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(P, M) from logits (P, M, h, w) and (P, 1, h, w)."""
    hard = logits.detach() > 0
    truth = target.expand_as(hard) > 0.5
    both, either = (hard & truth).sum((-2, -1)), (hard | truth).sum((-2, -1))
    return both / either.clamp(min=1)


def encode(model, image: np.ndarray, side: int):
    """Embedding and taps of one picture."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=side, mode="area")
    return model.image_encoder.encode((x - model.pixel_mean) / model.pixel_std)


@torch.no_grad()
def validate(model, pool: batches.Pool, *, side: int, per_set: int = 8) -> dict[str, float]:
    """Mean over the sets: IoU at box, one and three clicks, confidence error, one-shot AUC."""
    rng = np.random.default_rng(7)
    out: dict[str, list[float]] = {}
    for kinds in pool.sets.values():
        measured: dict[str, list[float]] = {}
        for _ in range(per_set):
            kind = str(rng.choice(list(kinds)))
            rows = rng.choice(kinds[kind], 2)
            _prompted(rng, model, pool, int(rows[0]), kind, side, measured)
            if rows[0] != rows[1]:
                measured.setdefault("auc", []).extend(_matched(model, pool, rows, kind, side))
        for key, values in measured.items():
            out.setdefault(key, []).append(float(np.mean(values)))
    return {k: round(float(np.mean(v)), 4) for k, v in out.items()}


def _prompted(rng, model, pool, row: int, kind: str, side: int, measured) -> None:
    embedding, _ = encode(model, pool.images[row], side)
    middles = (np.arange(side // prompting.STRIDE) + 0.5) * prompting.STRIDE / side
    cells = (middles * pool.ids.shape[1]).astype(int)
    ids = np.array(pool.ids[row])[np.ix_(cells, cells)].astype(int)
    classes = pool.codes(row, kind)[ids]
    target = prompting.pick_target(rng, ids, classes)
    if target is None:
        return
    truth = torch.from_numpy(target)[None, None].float()

    def ask(prompt, previous):
        maps = prompting.draw(side, [prompt], previous)
        logits, scores = model.mask_decoder.all_masks(embedding, maps)
        return logits, scores[0], true_iou(logits, truth)[0]

    def keep(name: str, value) -> None:
        measured.setdefault(name, []).append(float(value))

    keep("box", ask(([], prompting.noisy_box(rng, target), False, None), None)[2][0])
    cell = prompting.interior_point(rng, target, at_maximum=True)
    points, previous = [(*prompting.to_pixels(rng, cell), 1)], None
    for turn in range(3):
        logits, scores, iou = ask((points, None, False, None), previous)
        keep("error", abs(scores[0] - iou[0]))
        if turn == 0:
            keep("click1", iou[0])
            keep("surest", iou[1 + int(scores[1:].argmax())])
            keep("best3", iou[1:].max())
        previous = logits[:, :1]
        click = prompting.correction(rng, target, (previous[0, 0] > 0).numpy())
        if click:
            points.append(click)
    keep("click3", iou[0])


def _matched(model, pool, rows, kind: str, side: int) -> list[float]:
    """AUC of the mean cosine to the kind's prototype in the other picture; one or no figure."""
    total, masks = 0, []
    levels = [encode(model, pool.images[r], side)[1] for r in rows]
    for row in rows:
        wanted = pool.codes(int(row), kind)[np.array(pool.ids[row])] == 1
        masks.append(torch.from_numpy(wanted)[None, None].float())
    for first, second in zip(*levels, strict=True):
        x = torch.cat([first[-1], second[-1]])
        x = F.normalize(x - x.mean((0, 2, 3), keepdim=True), dim=1)
        inside = F.adaptive_avg_pool2d(masks[0], x.shape[-2:])
        front = F.normalize((x[:1] * inside).sum((2, 3), keepdim=True), dim=1)
        cosine = (x[1:] * front).sum(1, keepdim=True)
        total = total + F.interpolate(cosine, size=levels[0][0][-1].shape[-2:], mode="bilinear")
    truth = F.adaptive_avg_pool2d(masks[1], total.shape[-2:]).flatten() > 0.5
    return [auc(total.flatten(), truth)] if 0 < truth.sum() < truth.numel() else []
