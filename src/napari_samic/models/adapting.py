"""An encoder grown to a few references: what points into a frozen network can't give.

Its later stages, its neck and a head learn, from random looks at the references, to see where
objects are and how deep inside one a pixel lies. If asked, also from images without annotation.
Whether it helped is for the caller to judge.

Source: ours; loss is cross-entropy and Dice (Milletari et al., 3DV 2016), what images without
annotation teach is in `others`.
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
from torch.nn import functional as F

from napari_samic.contracts import Image, Job, Step, duration
from napari_samic.models import objectnet, others, timm_weights
from napari_samic.models.course import Course
from napari_samic.models.looks import Album, Page, side_for
from napari_samic.models.objectnet import Finder, ObjectNet
from napari_samic.models.others import Others
from napari_samic.models.watch import Checkpoint
from napari_samic.settings import LEAST_STEPS, OTHERS, OTHERS_FROM, AdaptSettings

LOST = 0.1
"""Where a reference has more of its objects' area than this in the frame around its field of view,
the frame is part of the picture."""
KEPT = 0.98
"""Of the moving mean at each step."""
HEAD = 3.0
"""Rate of what is new above the encoder, as a multiple of the encoder's."""
STEPS = ((2, 100), (5, 180), (20, 400), (176, 900))
"""Batches for so many references; between them in proportion, beyond them no more."""


@dataclass(frozen=True)
class Grown:
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

    @property
    def summary(self) -> str:
        """One line for people."""
        more = f" with {self.others} images more" if self.others else ""
        line = f"{self.what} in {self.steps} steps{more}, {self.seconds:.0f} s"
        line += ", stopped before its end" if self.stopped else ""
        if self.before is None or self.after is None:
            why = "not judged" if self.accepted else "stopped too early, so it is not used"
            return f"{line}; {why}"
        line += f"; held-out IoU {self.before:.3f} without, {self.after:.3f} with it"
        if not self.accepted:
            return f"{line}: not better, so it is not used"
        doubt = ": too few images to say that it is worse, so it is used"
        return line if self.after > self.before else line + doubt


Judge = Callable[[Finder | None], float]
"""How good the masks of the references kept aside are, with a finder or without."""


def helps(before: float, after: float, judges: int) -> bool:
    """Whether a network that grew is to be used.

    One image says little: of five polyps the one kept aside refused it where 40 others gained 0.10
    and 0.19, and took it where they lost 0.06 (`docs/benchmarks.md`). It gained on all sets it was
    measured on, so that it stays until the error grows by more than a share of one in `judges`.

    Parameters
    ----------
    before, after : float
        Mean IoU of the references kept aside, without and with it.
    judges : int
        How many these are.

    >>> helps(0.44, 0.28, 1), helps(0.9, 0.75, 1), helps(0.44, 0.43, 26), helps(0.44, 0.38, 26)
    (True, False, True, False)
    """
    return 1 - after < (1 - before) * (1 + 1 / judges)


def adapt(
    pages: Sequence[Page],
    labels: Sequence[int],
    settings: AdaptSettings,
    *,
    seed: int = 0,
    device: torch.device,
    encoder: str = timm_weights.SEGMENTER,
    aside: Sequence[Page] = (),
    judge: Judge | None = None,
    stop: Callable[[], bool] = lambda: False,
    more: Iterable[Image] = (),
    checkpoint: Checkpoint | None = None,
) -> Job[tuple[Finder | None, Grown]]:
    """Teach an encoder the references' objects; a Step a batch.

    Those kept aside judge it when two thirds of the usual steps are done, and then are learned from
    too: five references are too few to leave one out for good. The rate is constant and what counts
    is the mean of the weights, so that it may end at any step, and so many steps give the same (not
    with `more`, whose weight rises with the share of the steps that are done).

    Parameters
    ----------
    pages : sequence of Page
    labels : sequence of int
        The classes.
    settings : AdaptSettings
    seed : int
        Same seed, same machine, same result.
    device : torch.device
    encoder : str
        What it starts from, as `timm_weights.load` takes it; "segmenter" is the packaged one.
    aside : sequence of Page
        With `judge`: not learned from until they have judged.
    judge : callable, optional
    stop : callable
        Asked before each batch; True ends it with what was learned so far.
    more : iterable of (H, W, 3) uint8
        Images without annotation, as those to be segmented; read one by one, `OTHERS` of
        them at most, and none for fewer references than `OTHERS_FROM`.
    checkpoint : Checkpoint, optional
        Where to go on from, and what is kept up to date; not with `more`, where it begins anew.

    Returns
    -------
    Job of (Finder or None, Grown)
        None if the judge found it worse (`helps`), or it was stopped before `LEAST_STEPS`.

    Raises
    ------
    TrainingError
        No object to learn from, or a loss that is not finite.
    """
    started, rng = time.monotonic(), np.random.default_rng(seed)
    whole = any(one.outside > LOST for one in (*pages, *aside))
    if not whole:
        pages, aside = [one.field for one in pages], [one.field for one in aside]
    side_px = side_for([*pages, *aside])
    count = len(pages) + len(aside)
    net = objectnet.fresh(len(labels), seed, encoder).to(device)
    course = _course(net, settings, settings.adapt_steps or steps_for(count))
    free = Others(side_px, seed, whole=whole)
    what = "adapted"
    if count < OTHERS_FROM and next(iter(more), None) is not None:
        what += f" without other images, which take {OTHERS_FROM} references,"
    for image in islice(more, 0 if count < OTHERS_FROM else OTHERS):
        free.add(image)
        yield Step(0, 0, f"looking at {len(free)} images more", {"phase": "adapt"})
        if free.is_full or stop():
            break
    before, after, accepted = None, None, True
    judged: tuple[float, float] | None = None
    kept = checkpoint.load() if checkpoint is not None and not len(free) else None
    if checkpoint is not None and kept is not None:
        course.restore(kept["course"])
        checkpoint.began = course.done
        judged = kept["judged"] and tuple(kept["judged"])
    lesson = _Lesson(course, settings, free, stop, None if len(free) else checkpoint)
    last = lesson  # a decoder is judged with the network as it was judged, which no file keeps
    if settings.decoder_steps:
        last = replace(lesson, checkpoint=None)
    album = Album([*pages, *aside] if judged else pages, labels, side_px, rng)
    if kept is not None:
        album.restore(kept["album"])
    until = 2 * steps_for(count) // 3 if aside and judge else course.steps
    if judged:
        before, after = judged
        yield from lesson.learn(album, course.steps, judged)
    else:
        yield from lesson.learn(album, min(until, course.steps))
        accepted = course.done >= min(LEAST_STEPS, course.steps)
    if aside and judge and not judged and course.done == until and not stop():
        yield Step(course.done, course.steps, "judging the adapted network", {"phase": "adapt"})
        finder = Finder(copy.deepcopy(course.mean).eval(), labels, side_px, device, whole=whole)
        before, after = judge(None), judge(finder)
        accepted = helps(before, after, len(aside))
        if accepted:
            album = Album([*pages, *aside], labels, side_px, rng)
            yield from last.learn(album, course.steps, (before, after))
    if checkpoint is not None and course.done == course.steps:
        checkpoint.drop()
    names, seconds = tuple(one.name for one in aside), time.monotonic() - started
    stopped = accepted and course.done < course.steps
    report = Grown(course.done, before, after, accepted, names, seconds, what, len(free), stopped)
    finder = Finder(course.mean.eval(), labels, side_px, device, whole=whole)
    return (finder if accepted else None), report


def steps_for(references: int) -> int:
    """How many batches so many references are worth.

    >>> [steps_for(n) for n in (1, 5, 20, 176, 1000)]
    [100, 180, 400, 900, 900]
    """
    known, steps = zip(*STEPS, strict=True)
    return round(float(np.interp(references, known, steps)))


def _course(net: ObjectNet, settings: AdaptSettings, steps: int) -> Course[ObjectNet]:
    """Of the encoder's later part, and faster of what is new above it."""
    backbone = net.encoder.backbone
    backbone.freeze()
    slow = [p for p in backbone.parameters() if p.requires_grad]
    head = [p for part in (net.encoder.neck, net.context, net.last) for p in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": slow}, {"params": head}]
    rate = settings.adapt_rate
    net.train().to(memory_format=torch.channels_last)
    return Course(net, groups, [rate, HEAD * rate], steps, decay=0.05, kept=KEPT)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What a course learns from, beside the references."""

    course: Course[ObjectNet]
    settings: AdaptSettings
    free: Others
    stop: Callable[[], bool]
    checkpoint: Checkpoint | None

    def learn(
        self, album: Album, until: int, judged: tuple[float, float] | None = None
    ) -> Iterator[Step]:
        """Learn from looks at references and others; a Step a batch."""

        def state() -> dict[str, Any]:
            return {"course": course.state(), "album": album.state(), "judged": judged}

        course, started, first = self.course, time.monotonic(), self.course.done
        while course.done < until and not self.stop():
            loss = self._step(album)
            each = (time.monotonic() - started) / (course.done - first)
            left = duration(each * (course.steps - course.done))
            message = f"adapting: {course.done} of {course.steps}, about {left} left"
            if self.checkpoint is not None:
                self.checkpoint.save(state)
            yield Step(course.done, course.steps, message, {"phase": "adapt", "loss": loss})
        if self.checkpoint is not None and course.done < until:
            self.checkpoint.save(state, now=True)

    @torch.inference_mode(False)  # whatever mode the consumer of the job is in
    @torch.enable_grad()
    def _step(self, album: Album) -> float:
        """Learn from one batch of looks at each; returns the loss."""
        course, count = self.course, self.settings.adapt_batch
        device = next(course.net.parameters()).device
        x, truth, there = (t.to(device) for t in album.looks(count))
        weight = others.weight_at(course.done / course.steps) if len(self.free) else 0.0
        course.net.train()
        if not weight:
            return course.learn(loss_of(_asked(course.net, x), truth, there))
        changed, told, seen = self.free.looks(count, course.mean)
        answer = _asked(course.net, torch.cat([x, changed]))
        loss = loss_of(answer[:count], truth, there)
        return course.learn(loss + weight * others.loss_of(answer[count:], told, seen))


def _asked(net: ObjectNet, x: Tensor) -> Tensor:
    return torch.as_tensor(net(x.contiguous(memory_format=torch.channels_last)))


def loss_of(logits: Tensor, truth: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy of all maps, and Dice of those that say where objects are.

    Parameters
    ----------
    logits, truth : (B, 2 C, h, w)
        Inside first, then depth.
    there : (B, 1, h, w)
        1 where there is image.
    """
    seen = there.sum() * logits.shape[1]
    entropy = (
        F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * there
    ).sum() / seen
    inside, wanted = (torch.sigmoid(logits) * there).chunk(2, 1)[0], truth.chunk(2, 1)[0]
    both, all_ = (inside * wanted).sum((2, 3)), (inside + wanted).sum((2, 3))
    return 2 * entropy + (1 - (2 * both + 50) / (all_ + 50)).mean()
