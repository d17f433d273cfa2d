"""How the SAMIC prompter learns from a few references.

Every annotated image is the target once an epoch, with another one of its class as reference
(METHOD A2.8). Features are frozen and taken once an image and view. Some references are kept aside;
if the new weights do worse on them than the old ones did, the old ones stay and the report says so.

Source: SAMIC, section 3.5 and 4.1.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from napari_samic import losses
from napari_samic.contracts import Image, Job, Reference, Step
from napari_samic.errors import TrainingError
from napari_samic.models.backbones import Levels
from napari_samic.models.correlation import Prepared, correlate
from napari_samic.models.episodes import (
    Looks,
    Store,
    View,
    check_references,
    choose,
    labels_of,
    partners,
    shifted,
    split,
    views_of,
)
from napari_samic.models.hsnet import HyperCorrelationLearner
from napari_samic.settings import TrainSettings


@dataclass(frozen=True)
class FitReport:
    """What a training did.

    Attributes
    ----------
    losses : tuple of float
        Mean training loss of each epoch.
    before, after : float or None
        Correlation of predicted and true heat map on the references kept aside, at most 1.
    accepted : bool
        False: training made it worse and the old weights were kept.
    held_out : tuple of str
    pairs : int
        Target views an epoch.
    seconds : float
    stopped : str
        Why it ended.
    """

    losses: tuple[float, ...]
    before: float | None
    after: float | None
    accepted: bool
    held_out: tuple[str, ...]
    pairs: int
    seconds: float
    stopped: str

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.losses:
            return f"not trained: first weights, {self.pairs} reference(s)"
        line = f"{len(self.losses)} epochs in {self.seconds:.0f} s ({self.stopped})"
        if self.before is None or self.after is None:
            return f"{line}; fewer than 4 references, so none was kept aside to judge it"
        line += f"; held-out map correlation {self.before:.3f} before, {self.after:.3f} after"
        return line if self.accepted else f"{line}: worse, so the old weights were kept"


class Trainee(Looks, Protocol):
    """What `fit` needs of a prompter; `samic.SamicPrompter` is one."""

    learner: HyperCorrelationLearner
    references: tuple[Reference, ...]
    report: FitReport | None

    def forget_prepared(self) -> None:
        """Drop what was computed for references."""
        ...

    def network_map(self, references: Sequence[Reference], image: Image, label: int = 1) -> Tensor:
        """Predicted map, (S, S)."""
        ...


def fit(
    prompter: Trainee, references: Sequence[Reference], settings: TrainSettings
) -> Job[FitReport]:
    """Train the prompter's learner; a Step an image, then one a batch and one an epoch.

    Cancelled or failed, it leaves the prompter as it was. With no epochs the weights stay, and
    only the references and their mean feature are taken.

    Raises
    ------
    TrainingError
        No two references of any class, one listed twice, or a loss that is not finite.
    """
    started = time.monotonic()
    references = check_references(references, to_learn=settings.epochs > 0)
    if settings.epochs == 0:
        return (yield from _adopt(prompter, references, started))
    rng = np.random.default_rng(settings.seed)
    kept, held = split(references, settings.holdout_frac, rng)
    views = views_of(kept, settings.views)
    store = Store(prompter)
    yield from _encode_all(store, [*views, *held])
    old = _State.of(prompter)
    try:
        optimiser = torch.optim.Adam(prompter.learner.parameters(), lr=settings.learning_rate)
        course = _Course(prompter, store, views, settings, rng, optimiser)
        outcome = yield from _judged(course, kept, held, old)
        chosen = choose(store, references, prompter.settings.shots)
    except BaseException:
        old.restore(prompter)
        raise
    finally:
        prompter.learner.zero_grad(set_to_none=True)
    names, seconds = tuple(r.name for r in held), time.monotonic() - started
    curve, before, after, accepted, stopped = outcome
    report = FitReport(curve, before, after, accepted, names, len(views), seconds, stopped)
    prompter.references, prompter.report = chosen, report
    return report


def _adopt(prompter: Trainee, references: Sequence[Reference], started: float) -> Job[FitReport]:
    store = Store(prompter)
    yield from _encode_all(store, references)
    chosen = choose(store, references, prompter.settings.shots)
    if prompter.settings.centre:
        _recentre(prompter, store.centre(views_of(references, 1)))
    seconds = time.monotonic() - started
    report = FitReport((), None, None, True, (), len(references), seconds, "no epochs")
    prompter.references, prompter.report = chosen, report
    return report


def _encode_all(store: Store, items: Sequence[View | Reference]) -> Iterator[Step]:
    for i, item in enumerate(items):
        reference = item.reference if isinstance(item, View) else item
        store.levels(reference)
        yield Step(i + 1, len(items), f"features of {reference.name}", {"phase": "features"})


@dataclass(frozen=True, eq=False)
class _State:
    """What a training changes in a prompter."""

    weights: dict[str, Tensor]
    centre: Levels | None
    references: tuple[Reference, ...]

    @staticmethod
    def of(prompter: Trainee) -> _State:
        weights = copy.deepcopy(prompter.learner.state_dict())
        return _State(weights, prompter.centre, prompter.references)

    def restore(self, prompter: Trainee) -> None:
        prompter.learner.load_state_dict(self.weights)
        prompter.learner.eval()
        prompter.references = self.references
        _recentre(prompter, self.centre)


def _recentre(prompter: Trainee, centre: Levels | None) -> None:
    prompter.centre = centre
    prompter.forget_prepared()


@dataclass(frozen=True, eq=False)
class _Course:
    """What every step of one training needs."""

    prompter: Trainee
    store: Store
    views: list[View]
    settings: TrainSettings
    rng: np.random.Generator
    optimiser: torch.optim.Optimizer


def _judged(
    course: _Course, kept: Sequence[Reference], held: Sequence[Reference], old: _State
) -> Job[tuple[tuple[float, ...], float | None, float | None, bool, str]]:
    """Train; go back if the references kept aside are found worse than with the old state.

    First weights have no centre of their own, so they are judged, and kept, with the new one.
    """
    prompter, centre = course.prompter, None
    if prompter.settings.centre:
        centre = course.store.centre(course.views[:: course.settings.views])
    fallback = centre if old.centre is None else old.centre
    _recentre(prompter, fallback)
    before = _score(prompter, kept, held)
    _recentre(prompter, centre)
    curve, stopped = yield from _epochs(course)
    after = _score(prompter, kept, held)
    accepted = before is None or after is None or after >= before
    if not accepted:
        old.restore(prompter)
        _recentre(prompter, fallback)
    return curve, before, after, accepted, stopped


class _Best:
    """Weights of the lowest loss so far, and for how many epochs nothing was better."""

    def __init__(self) -> None:
        self.loss, self.since = float("inf"), 0
        self.weights: dict[str, Tensor] = {}

    def see(self, loss: float, learner: HyperCorrelationLearner, min_delta: float) -> None:
        if loss < self.loss - min_delta:
            self.loss, self.since = loss, 0
            self.weights = copy.deepcopy(learner.state_dict())
        else:
            self.since += 1


def _epochs(course: _Course) -> Job[tuple[tuple[float, ...], str]]:
    """Returns the loss curve and why it stopped; the best weights are in the learner."""
    learner, settings = course.prompter.learner, course.settings
    best, curve, stopped = _Best(), [], "all done"
    for epoch in range(1, settings.epochs + 1):
        learner.train()
        curve.append((yield from _epoch(course, epoch)))
        if not all(bool(torch.isfinite(p).all()) for p in learner.parameters()):
            raise TrainingError("weights are not finite any more. Train with a lower rate.")
        best.see(curve[-1], learner, settings.min_delta)
        data = {"phase": "epoch", "epoch": epoch, "loss": curve[-1]}
        message = f"epoch {epoch}: loss {curve[-1]:.3f}"
        yield Step(epoch * 1000, settings.epochs * 1000, message, data)
        if best.since >= settings.patience:
            stopped = f"no better loss for {settings.patience} epochs"
            break
    learner.load_state_dict(best.weights)
    learner.eval()
    return tuple(curve), stopped


def _epoch(course: _Course, epoch: int) -> Job[float]:
    """Every target once, in a new order; returns the mean loss."""
    settings, views = course.settings, course.views
    episodes = [(v, label) for v in views for label in v.labels if partners(views, v, label)]
    order, total = course.rng.permutation(len(episodes)), 0.0
    for start in range(0, len(order), settings.batch_size):
        batch = [episodes[i] for i in order[start : start + settings.batch_size]]
        total += _step(course, batch) * len(batch)
        done = epoch - 1 + (start + len(batch)) / len(order)
        data = {"phase": "batch", "epoch": epoch}
        yield Step(int(done * 1000), settings.epochs * 1000, f"epoch {epoch}", data)
    return total / len(order)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
def _step(course: _Course, batch: Sequence[tuple[View, int]]) -> float:
    store, settings = course.store, course.settings
    targets, references, truth = [], [], []
    for view, label in batch:
        others = partners(course.views, view, label)
        partner = others[int(course.rng.integers(len(others)))]
        references.append(store.reference(partner.reference, label))
        target, wanted = store.target(view.reference), store.map(view.reference, label)
        target, wanted = shifted(target, wanted, settings.shift_frac, course.rng)
        targets.append(target)
        truth.append(wanted)
    pyramid = correlate(Prepared.join(targets), Prepared.join(references))
    joined = torch.cat(truth)  # (B, S, S)
    predicted = course.prompter.learner.predict(pyramid, (joined.shape[1], joined.shape[2]))
    weights = {k: getattr(settings, k) for k in ("kld_weight", "cc_weight", "nss_weight")}
    loss = losses.saliency_loss(predicted, joined, **weights)
    if not bool(torch.isfinite(loss)):
        raise TrainingError("the loss is not finite any more. Train with a lower learning rate.")
    course.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    course.optimiser.step()
    return float(loss.detach())


def _score(prompter: Trainee, kept: Sequence[Reference], held: Sequence[Reference]) -> float | None:
    """Mean correlation of predicted and true map on `held`, with up to `shots` of `kept`."""
    values = []
    for target in held:
        for label in labels_of(target):
            shown = [r for r in kept if label in labels_of(r)][: prompter.settings.shots]
            predicted = prompter.network_map(shown, target.image, label)
            objects = [p for p in target.objects if p.label == label]
            wanted = prompter.map_of(objects, target.image.shape)
            values.append(float(losses.cc(predicted[None], wanted)))
    return float(np.mean(values)) if values else None
