"""Fine-tuning of an encoder to a few references: what points into a frozen network can't give.

Its later stages, its neck and a head learn, from random crops of the references, to see where
objects are and how deep inside one a pixel lies. If asked, also from images without annotation.
Whether it helped is for the caller to judge.

Source: ours; loss is cross-entropy and Dice, what images without annotation teach
is in `semi_supervised`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_samic.core.settings import (
    LEAST_STEPS,
    OTHERS,
    OTHERS_FROM,
    AdaptSettings,
    judged_after,
    steps_for,
)
from napari_samic.core.types import Image, Job, JobProgress, duration
from napari_samic.models import losses
from napari_samic.models.features import timm_weights
from napari_samic.models.finetune import network, semi_supervised
from napari_samic.models.finetune.checkpointing import FINETUNING, Checkpoint
from napari_samic.models.finetune.dataset import (
    ReferenceDataset,
    ReferenceSample,
    choose_input_size,
)
from napari_samic.models.finetune.network import ForegroundDistanceNet, ForegroundPredictor
from napari_samic.models.finetune.semi_supervised import UnlabeledDataset
from napari_samic.models.finetune.trainer import Trainer

LOST = 0.1
"""Where a reference has more of its objects' area than this in the frame around its field of view,
the frame is part of the picture."""
EMA = 0.98
"""Share of the moving average that stays at each step."""
WARMUP = 20
"""Steps until the rate is at its highest."""
HEAD = 3.0
"""Rate of what is new above the encoder, as a multiple of the encoder's."""
RATE = 1e-3
"""Highest learning rate of the encoder, of AdamW."""
BATCH = 8
"""Crops of references a batch, and as many of images without annotation."""


@dataclass(frozen=True)
class FinetuneReport:
    """What came of it.

    Attributes
    ----------
    steps : int
    before, after : float or None
        What the judge said of the references kept aside, without and with it, at most 1.
    accepted : bool
    held_out : tuple of str
    seconds : float
    what : str
        What was done, for people.
    others : int
        Images without annotation that were learned from, too.
    stopped : bool
        Before all batches were done; what was learned until then is used.
    unjudged : str
        Why nobody judged it, for people.
    """

    steps: int
    before: float | None
    after: float | None
    accepted: bool
    held_out: tuple[str, ...]
    seconds: float
    what: str = "adapted"
    others: int = 0
    stopped: bool = False
    unjudged: str = ""

    @property
    def summary(self) -> str:
        """One line for people."""
        more = f" with {self.others} images more" if self.others else ""
        line = f"{self.what} in {self.steps} steps{more}, {self.seconds:.0f} s"
        line += ", stopped before its end" if self.stopped else ""
        if self.before is None or self.after is None:
            if not self.accepted:
                return f"{line}; stopped too early, so it is not used"
            return f"{line}; not judged{f': {self.unjudged}' if self.unjudged else ''}"
        line += f"; held-out IoU {self.before:.3f} without, {self.after:.3f} with it"
        if not self.accepted:
            return f"{line}: not better, so it is not used"
        doubt = ": too few images to say that it is worse, so it is used"
        return line if self.after > self.before else line + doubt


Judge = Callable[[ForegroundPredictor | None], float]
"""How good the masks of the references kept aside are, with a predictor or without."""


def should_accept(before: float, after: float, judges: int) -> bool:
    """Whether a fine-tuned network is to be used.

    One image says little: of five polyps the one kept aside refused it where 40 others gained 0.10
    and 0.19, and took it where they lost 0.06 (`docs/benchmarks.md`). It gained on all sets it was
    measured on, so that it stays until the error grows by more than a share of one in `judges`.

    Parameters
    ----------
    before, after : float
        Mean IoU of the references kept aside, without and with it.
    judges : int
        How many these are.

    >>> should_accept(0.44, 0.28, 1), should_accept(0.9, 0.75, 1)
    (True, False)
    >>> should_accept(0.44, 0.43, 26), should_accept(0.44, 0.38, 26)
    (True, False)
    """
    return 1 - after < (1 - before) * (1 + 1 / judges)


def finetune_encoder(
    samples: Sequence[ReferenceSample],
    labels: Sequence[int],
    settings: AdaptSettings,
    *,
    seed: int = 0,
    device: torch.device,
    encoder: str = timm_weights.SEGMENTER,
    held_out: Sequence[ReferenceSample] = (),
    judge: Judge | None = None,
    stop: Callable[[], bool] = lambda: False,
    unlabeled: Iterable[Image] = (),
    checkpoint: Checkpoint | None = None,
    key: str = "",
) -> Job[tuple[ForegroundPredictor | None, FinetuneReport]]:
    """Fine-tuning: a copy of a trained encoder learns the references' objects; progress each batch.

    Those kept aside judge it when two thirds of the usual steps are done, and then are learned from
    too: five references are too few to leave one out for good. The rate is constant and what counts
    is the mean of the weights, so that it may end at any step, and so many steps give the same (not
    with `unlabeled`, whose weight rises with the share of the steps that are done).

    Parameters
    ----------
    samples : sequence of ReferenceSample
    labels : sequence of int
        The classes.
    settings : AdaptSettings
    seed : int
        Same seed, same machine, same result.
    device : torch.device
    encoder : str
        What it starts from, as `timm_weights.load` takes it; "segmenter" is the packaged one.
    held_out : sequence of ReferenceSample
        With `judge`: not learned from until they have judged.
    judge : callable, optional
    stop : callable
        Asked before each batch; True ends it with what was learned so far.
    unlabeled : iterable of (H, W, 3) uint8
        Images without annotation, as those to be segmented; read one by one, `OTHERS` of
        them at most, and none for fewer references than `OTHERS_FROM`.
    checkpoint : Checkpoint, optional
        Where to go on from, and what is kept up to date; with `unlabeled` it begins anew.
    key : str
        Of the training that may be gone on with; see `config_hash`.

    Returns
    -------
    Job of (ForegroundPredictor or None, FinetuneReport)
        None if the judge found it worse (`should_accept`), or it was stopped before `LEAST_STEPS`.

    Raises
    ------
    TrainingError
        No object to learn from, or a loss that is not finite.
    """
    started, rng = time.monotonic(), np.random.default_rng(seed)
    whole = any(sample.outside > LOST for sample in (*samples, *held_out))
    if not whole:
        samples, held_out = (
            [sample.field for sample in samples],
            [sample.field for sample in held_out],
        )
    side_px = choose_input_size([*samples, *held_out])
    count = len(samples) + len(held_out)
    net = network.build(len(labels), seed, encoder).to(device)
    steps = settings.adapt_steps or steps_for(count)
    trainer = _trainer(net)
    extra = UnlabeledDataset(side_px, seed, whole=whole)
    what = "adapted"
    if count < OTHERS_FROM and next(iter(unlabeled), None) is not None:
        what += f" without other images, which take {OTHERS_FROM} references,"
    for image in islice(unlabeled, 0 if count < OTHERS_FROM else OTHERS):
        extra.add(image)
        yield JobProgress(0, 0, f"looking at {len(extra)} images more", {"phase": "adapt"})
        if extra.is_full or stop():
            break
    before, after, accepted = None, None, True
    judged: tuple[float, float] | None = None
    kept = checkpoint.load(FINETUNING, key) if checkpoint is not None and not len(extra) else None
    if checkpoint is not None and kept is not None:
        trainer.restore(kept["trainer"])
        checkpoint.began = trainer.step
        judged = kept["judged"] and tuple(kept["judged"])
    loop = TrainingLoop(trainer, steps, extra, stop, None if len(extra) else checkpoint, key)
    last_loop = loop  # a decoder is judged with the network as it was judged, which no file keeps
    if settings.decoder_steps:
        last_loop = replace(loop, checkpoint=None)
    dataset = ReferenceDataset([*samples, *held_out] if judged else samples, labels, side_px, rng)
    if kept is not None:
        dataset.restore(kept["album"])
    until = judged_after(count) if held_out and judge else steps
    if judged:
        before, after = judged
        yield from loop.run(dataset, steps, judged)
    else:
        yield from loop.run(dataset, min(until, steps))
        accepted = trainer.step >= min(LEAST_STEPS, steps)
    if held_out and judge and not judged and trainer.step == until and not stop():
        yield JobProgress(trainer.step, steps, "judging the adapted network", {"phase": "adapt"})
        finder = ForegroundPredictor(
            copy.deepcopy(trainer.ema_model).eval(), labels, side_px, device, whole=whole
        )
        before, after = judge(None), judge(finder)
        accepted = should_accept(before, after, len(held_out))
        if accepted:
            dataset = ReferenceDataset([*samples, *held_out], labels, side_px, rng)
            yield from last_loop.run(dataset, steps, (before, after))
    if checkpoint is not None and trainer.step == steps:
        checkpoint.drop()
    names, seconds = tuple(sample.name for sample in held_out), time.monotonic() - started
    stopped = accepted and trainer.step < steps
    why = f"that takes {until} batches" if held_out else "none was kept aside, which takes four"
    report = FinetuneReport(
        trainer.step, before, after, accepted, names, seconds, what, len(extra), stopped,
        why if before is None else "",
    )  # fmt: skip
    finder = ForegroundPredictor(trainer.ema_model.eval(), labels, side_px, device, whole=whole)
    return (finder if accepted else None), report


def _trainer(net: ForegroundDistanceNet) -> Trainer[ForegroundDistanceNet]:
    """Of the encoder's later part, and faster of what is new above it."""
    backbone = net.encoder.backbone
    backbone.freeze()
    slow = [p for p in backbone.parameters() if p.requires_grad]
    head = [p for part in (net.encoder.neck, net.context, net.last) for p in part.parameters()]
    groups = [{"params": slow, "lr": RATE}, {"params": head, "lr": HEAD * RATE}]
    net.train().to(memory_format=torch.channels_last)
    return Trainer(
        net,
        torch.optim.AdamW(groups, weight_decay=0.05),
        ema_decay=EMA,
        warmup=WARMUP,
        max_norm=1.0,
    )


@dataclass(frozen=True, eq=False)
class TrainingLoop:
    """The training loop over batches, and what it learns from beside the references."""

    trainer: Trainer[ForegroundDistanceNet]
    steps: int
    extra: UnlabeledDataset
    stop: Callable[[], bool]
    checkpoint: Checkpoint | None
    key: str

    def run(
        self, dataset: ReferenceDataset, until: int, judged: tuple[float, float] | None = None
    ) -> Iterator[JobProgress]:
        """Learn from crops of references and of images without annotation; progress each batch."""

        def state() -> dict[str, Any]:
            return {"trainer": trainer.state(), "album": dataset.state(), "judged": judged}

        trainer, started, first = self.trainer, time.monotonic(), self.trainer.step
        while trainer.step < until and not self.stop():
            loss = self._step(dataset)
            each = (time.monotonic() - started) / (trainer.step - first)
            left = duration(each * (self.steps - trainer.step))
            message = f"fine-tuning: {trainer.step} of {self.steps}, about {left} left"
            if self.checkpoint is not None:
                self.checkpoint.save(FINETUNING, self.key, state)
            yield JobProgress(trainer.step, self.steps, message, {"phase": "adapt", "loss": loss})
        if self.checkpoint is not None and trainer.step < until:
            self.checkpoint.save(FINETUNING, self.key, state, now=True)

    @torch.inference_mode(False)  # whatever mode the consumer of the job is in
    @torch.enable_grad()
    def _step(self, dataset: ReferenceDataset) -> float:
        """Learn from one batch of each; returns the loss."""
        trainer = self.trainer
        device = next(trainer.net.parameters()).device
        x, truth, valid = (t.to(device) for t in dataset.sample_batch(BATCH))
        weight = (
            semi_supervised.rampup_weight(trainer.step / self.steps) if len(self.extra) else 0.0
        )
        trainer.net.train()
        if not weight:
            return trainer.training_step(_loss(_forward(trainer.net, x), truth, valid))
        changed, pseudo_labels, extra_valid = self.extra.pseudo_labeled_batch(
            BATCH, trainer.ema_model
        )
        answer = _forward(trainer.net, torch.cat([x, changed]))
        loss = _loss(answer[:BATCH], truth, valid)
        return trainer.training_step(
            loss
            + weight * semi_supervised.consistency_loss(answer[BATCH:], pseudo_labels, extra_valid)
        )


def _forward(net: ForegroundDistanceNet, x: Tensor) -> Tensor:
    return torch.as_tensor(net(x.contiguous(memory_format=torch.channels_last)))


def _loss(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    return losses.maps_loss(logits, truth, truth.chunk(2, 1)[0], valid, valid)
