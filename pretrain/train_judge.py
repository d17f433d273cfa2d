"""Put a trained segmenter at two scales, and train the judge that chooses among its masks.

    python -m pretrain.train_judge --weights pretrain/runs/tiny/tiny.pt --out pretrain/runs/judge

The networks stay as they are: their masks for simulated prompts are made once, with what the judge
may know of each and its true IoU. Pictures are those of the segmenter's training; what was held
back gives the figures.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretrain import batches, checks, prompting
from torch.nn import functional as F

from napari_samic.models import checkpoints, tiny

SIDE = 512
WORKERS = 2
TURNS = 4
"""First prompt and correction clicks."""


def two_scales(weights: Path) -> tuple[Any, tiny.TinyConfig]:
    """The network of a file at one scale, at two, with a judge that knows nothing yet."""
    content = checkpoints.read(weights)
    state = tiny.unpack(content, weights.name).state_dict()
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
    config = replace(tiny.TinyConfig(**plain), side_px=SIDE, scales=2)
    model = tiny.build(config)
    for part in ("image_encoder", "mask_decoder"):
        own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        getattr(model, part).one.load_state_dict(own)
    return model.eval(), config


def drawn(prompts, previous: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt maps at full and at half size."""
    small = [
        (
            [((x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5, sign) for x, y, sign in points],
            None if box is None else (box + 0.5) / 2 - 0.5,
            ambiguous,
            hint,
        )
        for points, box, ambiguous, hint in prompts
    ]
    half = None if previous is None else F.avg_pool2d(previous, 2)
    return prompting.draw(SIDE, prompts, previous), prompting.draw(SIDE // 2, small, half)


def collect(weights: Path, folder: Path, pictures: int, *, seed: int, plain: bool):
    """Facts (N, 8, F), true IoU (N, 8) and turn (N,) of every mask of every prompt; two workers."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as workers:
        share = partial(_collect, weights, folder, pictures // WORKERS, plain)
        parts = list(workers.map(share, [(seed, k) for k in range(WORKERS)]))
    return tuple(torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))


@torch.inference_mode()
def _collect(weights: Path, folder: Path, pictures: int, plain: bool, seed: tuple[int, int]):
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    model = tiny.ready(two_scales(weights)[0])
    pool = batches.Pool(folder, held_back=plain)
    facts, truths, turns = [], [], []
    for _ in range(pictures):
        batch = batches.draw(rng, pool, pairs=1, targets=4, side=SIDE) if not plain else None
        batch = batch or held_back(rng, pool)
        x = (batch.images - model.pixel_mean) / model.pixel_std
        for i, image in enumerate(x):
            rows = torch.nonzero(batch.owners == i)[:, 0]
            if not len(rows):
                continue
            embedding, _ = model.image_encoder.encode(image[None])
            fine, packed = embedding.split(model.mask_decoder.split, 1)
            prompts = [batch.prompts[int(r)] for r in rows]
            previous = prompting.hints(prompts, batch.targets.shape)
            for turn in range(TURNS):
                maps, small = drawn(prompts, previous)
                logits, known, _ = model.mask_decoder.described(
                    fine, F.pixel_unshuffle(packed, 2), maps, small
                )
                facts.append(known.half())
                truths.append(checks.true_iou(logits, batch.targets[rows]))
                turns += [turn if p[1] is None else -1 for p in prompts]
                best = model.mask_decoder.judged(known).argmax(1)
                previous = logits[torch.arange(len(rows)), best][:, None]
                prompting.correct(rng, prompts, batch.targets[rows], previous)
    return torch.cat(facts).numpy(), torch.cat(truths).numpy(), np.array(turns)


def held_back(rng: np.random.Generator, pool: batches.Pool) -> batches.Batch:
    """One picture as it is, with a box and a click for the same object."""
    while True:
        _, row, _ = pool.pair(rng)
        ids = np.array(pool.ids[row])[2::4, 2::4].astype(int)
        mask = prompting.pick_target(rng, ids, np.minimum(ids, 1))
        if mask is not None:
            break
    cell = prompting.interior_point(rng, mask, at_maximum=True)
    click = ([(*prompting.to_pixels(rng, cell), 1)], None, True, None)
    prompts = [click, ([], prompting.noisy_box(rng, mask), False, None)]
    image = torch.from_numpy(np.array(pool.images[row])).permute(2, 0, 1)[None].float()
    targets = torch.from_numpy(mask).float()[None, None].repeat(2, 1, 1, 1)
    return batches.Batch(image, targets[:1], torch.zeros(2, dtype=torch.long), targets, prompts)


def report(scores: torch.Tensor, truth: torch.Tensor, turns: torch.Tensor) -> dict[str, float]:
    """IoU of the chosen mask, of the best one, and error of the confidence."""
    rows = torch.arange(len(scores))
    chosen = truth[rows, scores.argmax(1)]
    out = {"error": float((scores.amax(1) - chosen).abs().mean())}
    for name, turn in (("box", -1), ("click1", 0), ("click3", 2)):
        here = turns == turn
        out[name] = float(chosen[here].mean())
        out[f"{name}_full"], out[f"{name}_half"] = (float(truth[here, i].mean()) for i in (0, 4))
        out[f"{name}_best"] = float(truth[here].amax(1).mean())
    return {k: round(v, 4) for k, v in out.items()}


def fit(judge, facts, truth, *, epochs: int, rate: float, choice: float) -> None:
    """Learn the IoU of each mask, and to put the better one first."""
    optimiser = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * (len(facts) // 256)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(facts))[: len(facts) // 256 * 256].split(256):
            x, y = facts[rows].float(), truth[rows]
            logits = judge(x)[..., 0] + x[..., -1]
            loss = 20 * F.mse_loss(torch.sigmoid(logits), y)
            wanted = torch.softmax(y / 0.05, 1)
            loss = loss + choice * F.cross_entropy(4 * torch.sigmoid(logits) / 0.2, wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            plan.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="of one scale")
    parser.add_argument("--pool", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/judge"))
    parser.add_argument("--pictures", type=int, default=400, help="pairs of pictures")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--choice", type=float, default=0.1, help="weight of choosing well")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    model, config = two_scales(args.weights)
    shown = collect(args.weights, args.pool, args.pictures, seed=args.seed, plain=False)
    held = collect(args.weights, args.pool, 300, seed=args.seed, plain=True)
    decoder = model.mask_decoder
    lines = [{"masks": shown[1].numel(), **report(torch.sigmoid(held[0][..., -1]), *held[1:])}]
    fit(decoder.judge, *shown[:2], epochs=args.epochs, rate=args.rate, choice=args.choice)
    with torch.inference_mode():
        lines.append({"trained": True, **report(decoder.judged(held[0].float()), *held[1:])})
    for line in lines:
        print(line, flush=True)
    (args.out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    torch.save(tiny.pack(model, config), args.out / "tiny.pt")


if __name__ == "__main__":
    main()
