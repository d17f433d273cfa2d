"""The packaged encoder grown to a few references: what points into a frozen network can't give.

All its weights learn, from random looks at the references, to see where objects are and how deep
inside one a pixel lies. Whether that helped is for the caller to judge.

Source: ours; loss is cross-entropy and Dice (Milletari et al., 3DV 2016), the weights' moving mean
is Polyak and Juditsky's, SIAM J. Control 1992.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.contracts import Job, Step
from napari_samic.errors import TrainingError
from napari_samic.models import objectnet
from napari_samic.models.looks import Album, Page, side_for
from napari_samic.models.objectnet import Finder, ObjectNet
from napari_samic.settings import AdaptSettings


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
    """

    steps: int
    before: float | None
    after: float | None
    accepted: bool
    held_out: tuple[str, ...]
    seconds: float
    what: str = "adapted"

    @property
    def summary(self) -> str:
        """One line for people."""
        line = f"{self.what} in {self.steps} steps, {self.seconds:.0f} s"
        if self.before is None or self.after is None:
            why = "too few references to judge it" if self.accepted else "stopped, so not used"
            return f"{line}; {why}"
        line += f"; held-out IoU {self.before:.3f} without, {self.after:.3f} with it"
        if not self.accepted and self.after > self.before:
            return f"{line}: stopped by hand, so it is not used"
        return line if self.accepted else f"{line}: not better, so it is not used"


Net = TypeVar("Net", bound=nn.Module)
Judge = Callable[[Finder | None], float]
"""How good the masks of the references kept aside are, with a finder or without."""


def adapt(
    pages: Sequence[Page],
    labels: Sequence[int],
    settings: AdaptSettings,
    *,
    seed: int = 0,
    device: torch.device,
    aside: Sequence[Page] = (),
    judge: Judge | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Job[tuple[Finder | None, Grown]]:
    """Teach the packaged encoder the references' objects; a Step a batch.

    Those kept aside judge it when two thirds of the steps are done, and then are learned from too:
    five references are too few to leave one out for good.

    Parameters
    ----------
    pages : sequence of Page
    labels : sequence of int
        The classes.
    settings : AdaptSettings
    seed : int
        Same seed, same machine, same result.
    device : torch.device
    aside : sequence of Page
        With `judge`: not learned from until they have judged.
    judge : callable, optional
    stop : callable
        Asked before each batch; True ends it, and nothing was learned.

    Returns
    -------
    Job of (Finder or None, Grown)
        None if the judge found it no better, or it was stopped.

    Raises
    ------
    TrainingError
        No object to learn from, or a loss that is not finite.
    """
    started, rng = time.monotonic(), np.random.default_rng(seed)
    pages, aside = [one.field for one in pages], [one.field for one in aside]
    side_px = side_for([*pages, *aside])
    net = objectnet.fresh(len(labels), seed).to(device)
    course = _course(net, settings, steps_for(settings, len(pages) + len(aside)))
    album = Album(pages, labels, side_px, rng)
    until = course.steps * 2 // 3 if aside and judge else course.steps
    yield from _learn(course, album, settings, until, stop)
    before = after = None
    if aside and judge and not stop():
        yield Step(course.done, course.steps, "judging the adapted network", {"phase": "adapt"})
        finder = Finder(copy.deepcopy(course.mean).eval(), labels, side_px, device)
        before, after = judge(None), judge(finder)
        if after > before:
            album = Album([*pages, *aside], labels, side_px, rng)
            yield from _learn(course, album, settings, course.steps, stop)
    accepted = course.done == course.steps
    names, seconds = tuple(one.name for one in aside), time.monotonic() - started
    report = Grown(course.done, before, after, accepted, names, seconds)
    finder = Finder(course.mean.eval(), labels, side_px, device)
    return (finder if accepted else None), report


def _learn(
    course: Course[ObjectNet],
    album: Album,
    settings: AdaptSettings,
    until: int,
    stop: Callable[[], bool],
) -> Iterator[Step]:
    device = next(course.net.parameters()).device
    while course.done < until and not stop():
        loss = _step(course, device, *album.looks(settings.adapt_batch))
        message = f"adapting: {course.done} of {course.steps}"
        yield Step(course.done, course.steps, message, {"phase": "adapt", "loss": loss})


def steps_for(settings: AdaptSettings, references: int) -> int:
    """How many batches: as set, or what so many references are worth.

    >>> [steps_for(AdaptSettings(), n) for n in (1, 5, 20, 176)]
    [250, 450, 1200, 3000]
    """
    return settings.adapt_steps or min(200 + 50 * references, 3000)


class Course(Generic[Net]):
    """One training: the network, its moving mean, optimiser and rate.

    Parameters
    ----------
    net : nn.Module
        Changed in place.
    groups : list of dict
        Of parameters, as AdamW takes them.
    rates : list of float
        Highest, of each group.
    steps : int
    decay : float
        Weight decay.
    kept : float
        Of the moving mean at each step, once it has begun.
    """

    def __init__(
        self,
        net: Net,
        groups: list[dict[str, Any]],
        rates: list[float],
        steps: int,
        *,
        decay: float,
        kept: float,
    ) -> None:
        self.net, self.steps, self.done = net, steps, 0
        self.mean = copy.deepcopy(net)
        self._kept = kept
        self._optimiser = torch.optim.AdamW(groups, lr=rates[0], weight_decay=decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, rates, total_steps=steps + 1, pct_start=0.15
        )

    def learn(self, loss: Tensor) -> float:
        """Take one step down; returns the loss.

        Raises
        ------
        TrainingError
            It is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise TrainingError("the loss is not finite any more. Take a lower rate.")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()
        self.done += 1
        self._follow(min(self._kept, self.done / (self.done + 9)))
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self, kept: float) -> None:
        for mine, theirs in zip(
            self.mean.state_dict().values(), self.net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - kept)


def _course(net: ObjectNet, settings: AdaptSettings, steps: int) -> Course[ObjectNet]:
    """Of the encoder, and three times as fast of its head."""
    parts = (net.first, net.context, net.norm, net.last)
    head = [p for part in parts for p in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": net.encoder.parameters()}, {"params": head}]
    rate = settings.adapt_rate
    net.train().to(memory_format=torch.channels_last)
    return Course(net, groups, [rate, 3 * rate], steps, decay=0.05, kept=0.99)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
@torch.enable_grad()
def _step(course: Course[ObjectNet], device: torch.device, *batch: Tensor) -> float:
    """Learn from one batch of looks; returns its loss."""
    x, truth, there = (t.to(device) for t in batch)
    course.net.train()
    answer = course.net(x.contiguous(memory_format=torch.channels_last))
    return course.learn(loss_of(answer, truth, there))


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
