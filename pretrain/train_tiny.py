"""Train the packaged segmenter.

    python -m pretrain.train_tiny --pool pretrain/runs/pool --out pretrain/runs/tiny --steps 2600

Resumes from the last checkpoint in --out. The log (one JSON line per report) stays beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from pretrain import prompting
from pretrain.data import N_CLASSES, SIDE
from torch.nn import functional as F

from napari_samic.models import tiny

GRID = SIDE // tiny.STRIDE


class Pool:
    """Memory-mapped pictures; draws augmented batches."""

    def __init__(self, folder: Path, *, held_back: bool) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.ids = np.load(folder / "ids.npy", mmap_mode="r")
        self.classes = np.load(folder / "classes.npy", mmap_mode="r")
        self.rows = json.loads((folder / "rows.json").read_text())
        sets = {}
        for i, row in enumerate(self.rows):
            if row["held_back"] == held_back:
                sets.setdefault(row["set"], []).append(i)
        self.sets = {k: np.array(v) for k, v in sets.items()}
        share = {k: len(v) ** 0.5 * (2.2 if k == "scenes" else 1) for k, v in self.sets.items()}
        self.names = list(share)
        self.share = np.array(list(share.values())) / sum(share.values())

    def draw(self, rng: np.random.Generator, count: int):
        picks = [rng.choice(self.sets[rng.choice(self.names, p=self.share)]) for _ in range(count)]
        image = (
            torch.from_numpy(np.stack([self.images[i] for i in picks])).permute(0, 3, 1, 2).float()
        )
        maps = torch.from_numpy(
            np.stack([np.stack([self.ids[i], self.classes[i]]) for i in picks]).astype(np.float32)
        )
        return augment(rng, image, maps)


def augment(rng: np.random.Generator, image: torch.Tensor, maps: torch.Tensor):
    """Flip, turn, stretch, zoom, recolour, blur and add noise. Image in [0, 255]."""
    matrices = []
    for _ in range(len(image)):
        angle = rng.choice([0, 90, 180, 270]) + rng.normal(0, 12)
        scale = math.exp(rng.uniform(math.log(0.6), math.log(1.35)))  # under 1: zooms in
        stretch = math.exp(rng.normal(0, 0.12))
        a = math.radians(angle)
        turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        turn = turn @ np.diag([scale * stretch * rng.choice([-1, 1]), scale / stretch])
        matrices.append(np.column_stack([turn, rng.uniform(-0.35, 0.35, 2)]))
    theta = torch.tensor(np.array(matrices), dtype=torch.float32)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, align_corners=False)
    maps = F.grid_sample(maps, grid, mode="nearest", align_corners=False)
    for i in range(len(image)):
        one = image[i]
        if rng.random() < 0.15:
            one = one.mean(0, keepdim=True).expand(3, -1, -1)
        if rng.random() < 0.08:
            one = 255 - one
        if rng.random() < 0.7:
            one = (one - one.mean()) * rng.uniform(0.6, 1.35) + one.mean() + rng.uniform(-35, 35)
            one = one * torch.tensor(rng.uniform(0.85, 1.15, (3, 1, 1)), dtype=torch.float32)
        if rng.random() < 0.3:
            small = rng.choice([64, 96, 128, 180])
            one = F.interpolate(
                F.interpolate(one[None], size=small, mode="area"), size=SIDE, mode="bilinear"
            )[0]
        if rng.random() < 0.3:
            one = one + torch.randn(one.shape) * rng.uniform(2, 14)
        image[i] = one.clamp(0, 255)
    return image, maps


def downsample(maps: torch.Tensor) -> np.ndarray:
    """Centre pixel of each stride-4 cell: (B, 2, 64, 64)."""
    return maps[..., 2::4, 2::4].numpy().astype(int)


def mask_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """20 x focal + dice, one value a mask: (P, M, h, w) against (P, 1, h, w)."""
    target = target.expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    soft = torch.sigmoid(logits)
    hit = soft * target + (1 - soft) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    focal = (alpha * (1 - hit) ** 2 * bce).mean((-2, -1))
    overlap = 2 * (soft * target).sum((-2, -1)) + 1
    dice = 1 - overlap / (soft.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 20 * focal + dice + 0.5 * bce.mean((-2, -1))


def true_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    hard = logits.detach() > 0
    truth = target.expand_as(hard) > 0.5
    both, either = (hard & truth).sum((-2, -1)), (hard | truth).sum((-2, -1))
    return both / either.clamp(min=1)


class Trainer:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.rng = np.random.default_rng(args.seed)
        self.config = tiny.TinyConfig(side_px=SIDE)
        self.model = tiny.build(self.config).to(memory_format=torch.channels_last)
        self.semantic = torch.nn.Conv2d(sum(self.config.widths[1:]), N_CLASSES, 1)
        self.average = copy.deepcopy(self.model).eval()
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
            lr=args.rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.step = 0
        args.out.mkdir(parents=True, exist_ok=True)
        last = args.out / "last.pt"
        if last.exists():
            self.restore(torch.load(last, weights_only=True))
        elif args.start:
            self.model.load_state_dict(tiny.load(args.start).state_dict())
            self.average.load_state_dict(self.model.state_dict())
        if args.freeze:
            for part in (self.model.image_encoder.stem, self.model.image_encoder.stages):
                part.requires_grad_(False)

    def parameters(self):
        return [p for m in (self.model, self.semantic) for p in m.parameters() if p.requires_grad]

    def restore(self, state) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.semantic.load_state_dict(state["semantic"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.rng = np.random.default_rng([self.args.seed, self.step])

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "semantic": self.semantic.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, self.args.out / "last.tmp")
        (self.args.out / "last.tmp").rename(self.args.out / "last.pt")
        torch.save(tiny.pack(self.average, self.config), self.args.out / "tiny.pt")

    def rate(self) -> float:
        warm = min(1.0, (self.step + 1) / (0.05 * self.args.steps))
        return (
            self.args.rate
            * warm
            * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, self.step / self.args.steps))))
        )

    def train_step(self, pool: Pool) -> dict[str, float]:
        image, maps = pool.draw(self.rng, self.args.batch)
        if self.args.freeze:  # batch norms, too, so that the taps stay as they are
            self.model.image_encoder.eval()
        small = downsample(maps)
        jobs = []  # (image index, target)
        for i in range(len(image)):
            for _ in range(self.args.targets):
                target = prompting.pick_target(self.rng, small[i, 0], small[i, 1])
                if target is not None:
                    jobs.append((i, target))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        x = (image - self.model.pixel_mean) / self.model.pixel_std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            embedding, taps = self.model.image_encoder.encode(x)
            levels = [F.relu(level[-1]) for level in taps]
            size = levels[0].shape[-2:]
            joined = torch.cat([F.interpolate(v, size=size) for v in levels], 1)
            classes = self.semantic(joined).float()
        truth = torch.from_numpy(small[:, 1, 1::2, 1::2])  # stride 8
        weight = torch.ones(N_CLASSES)
        weight[0] = 0.3
        loss = 0.3 * F.cross_entropy(classes, truth, weight=weight)
        loss, report = self.decode(embedding, jobs, loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(
                self.average.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
        return report | {"semantic": float((classes.argmax(1) == truth)[truth > 0].float().mean())}

    def decode(self, embedding, jobs, loss):
        """One prompt each, then correction clicks with the earlier logits."""
        which = torch.tensor([i for i, _ in jobs])
        target = torch.from_numpy(np.stack([t for _, t in jobs])).float()[:, None]
        prompts = [prompting.first_prompt(self.rng, t) for _, t in jobs]
        ambiguous = torch.tensor([p[2] for p in prompts])
        previous, report = None, {}
        rounds = 2 if self.rng.random() < 0.8 else 1
        for turn in range(rounds):
            maps = draw_prompts(self.model, prompts, previous)
            with torch.autocast("cpu", torch.bfloat16):
                logits, scores = self.model.mask_decoder.all_masks(embedding[which], maps)
            logits = logits.float()
            each = mask_loss(logits, target)  # (P, 4)
            iou = true_iou(logits, target)
            error = F.mse_loss(scores, iou)
            best = each[:, 1:].amin(1)
            use = torch.where(
                ambiguous,
                best + 0.4 * each[:, 0] + 0.05 * each[:, 1:].mean(1),
                each[:, 0] + 0.3 * best,
            )
            loss = loss + (use.mean() + 2 * error) * (0.8 if turn == 0 else 1.0)
            chosen = torch.where(ambiguous, 1 + scores[:, 1:].argmax(1), 0)
            rows = torch.arange(len(jobs))
            report[f"iou{turn}"] = float(iou[rows, chosen].mean())
            report[f"conf{turn}"] = float((scores - iou).abs().mean().detach())
            previous = logits.detach()[rows, chosen][:, None]
            answers = (previous[:, 0] > 0).numpy()
            for p, (_, t), answer in zip(prompts, jobs, answers, strict=True):
                click = prompting.correction(self.rng, t, answer)
                if click:
                    p[0].append(click)
            ambiguous = torch.zeros_like(ambiguous)
        return loss, report | {"loss": float(loss.detach())}


def draw_prompts(model, prompts, previous) -> torch.Tensor:
    """Prompt maps of a mixed list of prompts, (P, 10, h, w)."""
    longest = max(1, max(len(p[0]) for p in prompts))
    xy, sign = torch.zeros(len(prompts), longest, 2), -torch.ones(len(prompts), longest)
    for i, (points, _, _) in enumerate(prompts):
        for j, (x, y, s) in enumerate(points):
            xy[i, j], sign[i, j] = torch.tensor([x, y]), s
    maps = model.prompt_encoder((xy, sign), None, previous)[1]
    boxed = [i for i, p in enumerate(prompts) if p[1] is not None]
    if boxed:
        boxes = torch.tensor(np.stack([prompts[i][1] for i in boxed]), dtype=torch.float32)
        maps[boxed, 6:8] = model.prompt_encoder(None, boxes, None)[1][:, 6:8]
    return maps.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def validate(model, pool: Pool, per_set: int = 12) -> dict[str, float]:
    """mIoU at box, one click, three clicks on held-back pictures; confidence error."""
    rng, out = np.random.default_rng(7), {"box": [], "click1": [], "click3": [], "error": []}
    for _, rows in sorted(pool.sets.items()):
        for i in rows[:per_set]:
            image = torch.from_numpy(np.array(pool.images[i])).permute(2, 0, 1)[None].float()
            embedding = model.image_encoder((image - model.pixel_mean) / model.pixel_std)
            ids, classes = np.array(pool.ids[i])[2::4, 2::4], np.array(pool.classes[i])[2::4, 2::4]
            target = prompting.pick_target(rng, ids.astype(int), classes.astype(int))
            if target is None:
                continue
            truth = torch.from_numpy(target)[None, None].float()
            box = ([], prompting.noisy_box(rng, target), False)
            logits, _ = model.mask_decoder.all_masks(embedding, draw_prompts(model, [box], None))
            out["box"].append(float(true_iou(logits, truth)[0, 0]))
            points, previous = (
                [
                    (
                        *prompting.to_pixels(
                            rng, prompting.interior_point(rng, target, at_maximum=True)
                        ),
                        1,
                    )
                ],
                None,
            )
            for turn in range(3):
                maps = draw_prompts(model, [(points, None, False)], previous)
                logits, scores = model.mask_decoder.all_masks(embedding, maps)
                k = 0 if turn else 1 + int(scores[0, 1:].argmax())
                iou = float(true_iou(logits, truth)[0, k])
                out["error"].append(abs(float(scores[0, k]) - iou))
                previous = logits[:, k : k + 1]
                click = prompting.correction(rng, target, (previous[0, 0] > 0).numpy())
                if turn == 0:
                    out["click1"].append(iou)
                if click:
                    points.append(click)
            out["click3"].append(iou)
    return {k: float(np.mean(v)) for k, v in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/tiny"))
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights file to start from")
    parser.add_argument(
        "--freeze", action="store_true", help="train neck and decoder only: the taps stay the same"
    )
    args = parser.parse_args()
    pool, held = Pool(args.pool, held_back=False), Pool(args.pool, held_back=True)
    trainer, start, recent = Trainer(args), time.time(), []
    while trainer.step < args.steps:
        recent.append(trainer.train_step(pool))
        if trainer.step % 50 == 0 or trainer.step == args.steps:
            line = {"step": trainer.step, "s": round(time.time() - start), "rate": trainer.rate()}
            for key in ("loss", "iou0", "iou1", "conf0", "semantic"):
                line[key] = round(float(np.mean([r[key] for r in recent if key in r])), 4)
            recent = []
            if trainer.step % 400 == 0 or trainer.step == args.steps:
                line |= {k: round(v, 4) for k, v in validate(trainer.average, held).items()}
            if trainer.step % 100 == 0 or trainer.step == args.steps:
                trainer.save()
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
