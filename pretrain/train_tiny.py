"""Train the packaged segmenter: masks from prompts, and taps that match across pictures.

    python -m pretrain.convert_encoder --out pretrain/runs/imagenet.pt
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m pretrain.train_tiny --out pretrain/runs/tiny

One process a core: each draws its own batches and the gradients are averaged. The encoder has seen
ImageNet and learns at a lower rate, with its batch norms as they are; its first stages stay.
Resumes from the last checkpoint in --out; the log (one JSON line per report) stays beside it. The
learning rate is constant and falls to nothing over the last --decay steps; `steady.pt` is kept from
before the fall, so that a longer run can go on from there (rename it last.pt).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn import functional as F

from napari_samic.models.tiny import model
from pretrain import batches, checks, matching, prompting

STILL = ("conv_stem", "bn1", "blocks.0", "blocks.1")
"""Parts of the encoder that do not learn."""
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


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


class Trainer:
    """Network, its moving average, optimizer and the steps."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.config = model.TinyConfig()
        self.model = model.build(self.config).eval().to(memory_format=torch.channels_last)
        self.encoder = self.model.image_encoder
        self.encoder.backbone.network.load_state_dict(torch.load(args.encoder, weights_only=True))
        for k, p in self.encoder.backbone.network.named_parameters():
            p.requires_grad_(not k.startswith(STILL))
        self.matcher = matching.Matcher([len(v) for v in self.encoder.backbone.layout.levels])
        self.average = copy.deepcopy(self.model).eval()
        encoder_ids = {id(p) for p in self.encoder.backbone.parameters()}
        groups = []
        for slow in (False, True):
            for flat in (False, True):
                chosen = [p for p in self.parameters() if (p.ndim <= 1) == flat]
                chosen = [p for p in chosen if (id(p) in encoder_ids) == slow]
                decay, share = 0.0 if flat else 0.05, args.encoder_rate if slow else 1.0
                groups.append({"params": chosen, "weight_decay": decay, "share": share})
        self.optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.99), fused=True)
        self.step = 0
        args.out.mkdir(parents=True, exist_ok=True)
        last = args.out / "last.pt"
        if last.exists():
            self.restore(torch.load(last, weights_only=True))
        self.rng = np.random.default_rng([args.seed, self.step, RANK])

    def parameters(self) -> list[torch.nn.Parameter]:
        every = [*self.model.parameters(), *self.matcher.parameters()]
        return [p for p in every if p.requires_grad]

    def restore(self, state) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.matcher.load_state_dict(state["matcher"])
        self.optimizer.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "matcher": self.matcher.state_dict(),
            "optimiser": self.optimizer.state_dict(),
            "step": self.step,
        }
        torch.save(state, self.args.out / "last.tmp")
        (self.args.out / "last.tmp").rename(self.args.out / "last.pt")
        torch.save(model.pack(self.average, self.config), self.args.out / "tiny.pt")

    def rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.args.warm_up)
        left = min(1.0, (self.args.steps - self.step) / max(1, self.args.decay))
        return float(self.args.rate * warm * max(0.002, left))

    def share(self) -> None:
        """Average the gradients over the processes."""
        if WORLD == 1:
            return
        flat = torch.cat([p.grad.reshape(-1) for p in self.parameters() if p.grad is not None])
        distributed.all_reduce(flat)
        start = 0
        for p in self.parameters():
            if p.grad is not None:
                p.grad.copy_(flat[start : start + p.numel()].view_as(p) / WORLD)
                start += p.numel()

    def train_step(self, batch: batches.Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group["share"]
        x = (batch.images - self.model.pixel_mean) / self.model.pixel_std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            embedding, taps = self.encoder.encode(x)
        loss, report = self.decode(embedding, batch)
        match = self.matcher(self.rng, taps, batch.same)
        loss = loss + self.args.match * match
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.share()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(
                self.average.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
        return report | {"match": float(match.detach()), "loss": float(loss.detach())}

    def decode(self, embedding, batch: batches.Batch):
        """First prompts, some correction clicks without learning, and one more with."""
        previous = prompting.hints(batch.prompts, batch.targets.shape)
        skipped = int(self.rng.choice([-1, 0, 1, 2, 4], p=[0.2, 0.35, 0.2, 0.15, 0.1]))
        loss, report = torch.zeros(()), {}
        for turn in range(skipped + 2):
            learns = turn in (0, skipped + 1)
            maps = prompting.draw(batch.images.shape[-1], batch.prompts, previous)
            with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(learns):
                answer = self.model.mask_decoder.all_masks(embedding, maps, batch.owners)
            logits, scores = answer[0].float(), answer[1]
            iou = checks.true_iou(logits, batch.targets)
            ambiguous = torch.tensor([p[2] and turn == 0 for p in batch.prompts])
            chosen = torch.where(ambiguous, 1 + scores[:, 1:].argmax(1), 0)
            rows = torch.arange(len(iou))
            if learns:
                loss = loss + self.error(logits, scores, iou, batch.targets, ambiguous)
                name = "0" if turn == 0 else "n"
                report[f"iou{name}"] = float(iou[rows, 0].mean())
                report[f"conf{name}"] = float((scores - iou)[:, 0].abs().mean().detach())
            if turn < skipped + 1:
                single = torch.from_numpy(self.rng.random(len(rows)) < 0.6)
                chosen = torch.where(single, 0, chosen)
                previous = logits.detach()[rows, chosen][:, None]
                prompting.correct(self.rng, batch.prompts, batch.targets, previous)
        return loss, report

    def error(self, logits, scores, iou, target, ambiguous) -> torch.Tensor:
        each = mask_loss(logits, target)  # (P, 4)
        best = each[:, 1:].amin(1)
        several = best + 0.7 * each[:, 0] + 0.05 * each[:, 1:].mean(1)
        use = torch.where(ambiguous, several, each[:, 0] + 0.3 * best)
        return use.mean() + 2 * F.mse_loss(scores, iou)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/tiny"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--decay", type=int, default=500, help="steps over which the rate falls")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--targets", type=int, default=3, help="objects a picture")
    parser.add_argument("--large", type=float, default=0.4, help="share of steps at 512 px")
    parser.add_argument("--match", type=float, default=1.0, help="weight of the matching loss")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", type=Path, default=Path("pretrain/runs/imagenet.pt"))
    parser.add_argument("--encoder-rate", type=float, default=0.1, help="share of the rate")
    args = parser.parse_args()
    if WORLD > 1:
        distributed.init_process_group("gloo")
    trainer, start, recent = Trainer(args), time.time(), []
    held = batches.Pool(args.pool, held_back=True)
    stream = batches.Stream(
        args.pool,
        seed=[args.seed, trainer.step, RANK],
        pairs=args.pairs,
        targets=args.targets,
        large=args.large,
    )
    for batch in batches.load(stream):
        recent.append(trainer.train_step(batch))
        ends = trainer.step >= args.steps
        if RANK == 0 and (trainer.step % 50 == 0 or ends):
            line = {"step": trainer.step, "s": round(time.time() - start), "rate": trainer.rate()}
            for key in ("loss", "match", "iou0", "ioun", "conf0", "confn"):
                line[key] = round(float(np.mean([r[key] for r in recent if key in r])), 4)
            recent = []
            if trainer.step % 400 == 0 or ends:
                line |= checks.validate(trainer.average, held, side=256)
            trainer.save()
            if trainer.step == (args.steps - args.decay) // 50 * 50:
                shutil.copy(args.out / "last.pt", args.out / "steady.pt")
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
        if ends:
            break


if __name__ == "__main__":
    main()
