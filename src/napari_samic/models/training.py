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
    partners,
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
    """Train the prompter's learner; yields a Step an epoch and one an image before that.

    Raises
    ------
    TrainingError
        No two references of any class, or a loss that is not finite.
    """
    started = time.monotonic()
    references = check_references(references)
    rng = np.random.default_rng(settings.seed)
    kept, held = split(references, settings.holdout_frac, rng)
    views = views_of(kept, settings.views)
    store = Store(prompter)
    yield from _encode_all(store, [*views, *held])
    old = _State.of(prompter)
    if prompter.settings.centre:
        prompter.centre = store.centre(views[:: settings.views])
        prompter.forget_prepared()
    before = _score(prompter, kept, held)
    try:
        curve, stopped = yield from _epochs(prompter, store, views, settings, rng)
    except BaseException:  # cancelled or failed: leave the prompter as it was
        old.restore(prompter)
        raise
    after = _score(prompter, kept, held)
    accepted = before is None or after is None or after >= before
    if not accepted:
        old.restore_weights(prompter)
    prompter.references = choose(store, references, prompter.settings.shots)
    seconds = time.monotonic() - started
    names = tuple(r.name for r in held)
    report = FitReport(curve, before, after, accepted, names, len(views), seconds, stopped)
    prompter.report = report
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

    def restore_weights(self, prompter: Trainee) -> None:
        prompter.learner.load_state_dict(self.weights)

    def restore(self, prompter: Trainee) -> None:
        self.restore_weights(prompter)
        prompter.learner.eval()
        prompter.centre, prompter.references = self.centre, self.references
        prompter.forget_prepared()


def _epochs(
    prompter: Trainee,
    store: Store,
    views: list[View],
    settings: TrainSettings,
    rng: np.random.Generator,
) -> Job[tuple[tuple[float, ...], str]]:
    """Returns the loss curve and why it stopped; the best weights are in the learner."""
    learner = prompter.learner
    optimiser = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate)
    best, since, curve = float("inf"), 0, []
    best_weights = copy.deepcopy(learner.state_dict())
    episodes = [(v, label) for v in views for label in v.labels if partners(views, v, label)]
    for epoch in range(settings.epochs):
        learner.train()
        order, total = rng.permutation(len(episodes)), 0.0
        for start in range(0, len(order), settings.batch_size):
            batch = [episodes[i] for i in order[start : start + settings.batch_size]]
            total += _step(prompter, store, views, batch, optimiser, settings, rng) * len(batch)
            data = {"phase": "batch", "epoch": epoch + 1}
            done = epoch + (start + len(batch)) / len(order)
            yield Step(int(done * 1000), settings.epochs * 1000, f"epoch {epoch + 1}", data)
        curve.append(total / len(order))
        if curve[-1] < best - settings.min_delta:
            best, since = curve[-1], 0
            best_weights = copy.deepcopy(learner.state_dict())
        else:
            since += 1
        data = {"phase": "epoch", "epoch": epoch + 1, "loss": curve[-1]}
        message = f"epoch {epoch + 1}: loss {curve[-1]:.3f}"
        yield Step((epoch + 1) * 1000, settings.epochs * 1000, message, data)
        if since >= settings.patience:
            break
    learner.load_state_dict(best_weights)
    learner.eval()
    ended = (
        f"no better loss for {settings.patience} epochs"
        if since >= settings.patience
        else "all done"
    )
    return tuple(curve), ended


def _step(
    prompter: Trainee,
    store: Store,
    views: list[View],
    batch: Sequence[tuple[View, int]],
    optimiser: torch.optim.Optimizer,
    settings: TrainSettings,
    rng: np.random.Generator,
) -> float:
    targets, references, truth = [], [], []
    for view, label in batch:
        others = partners(views, view, label)
        partner = others[int(rng.integers(len(others)))]
        targets.append(store.target(view.reference))
        references.append(store.reference(partner.reference, label))
        truth.append(store.map(view.reference, label))
    pyramid = correlate(Prepared.join(targets), Prepared.join(references))
    wanted = torch.cat(truth)  # (B, S, S)
    predicted = prompter.learner.predict(pyramid, (wanted.shape[1], wanted.shape[2]))
    loss = losses.saliency_loss(
        predicted,
        wanted,
        kld_weight=settings.kld_weight,
        cc_weight=settings.cc_weight,
        nss_weight=settings.nss_weight,
    )
    if not bool(torch.isfinite(loss)):
        raise TrainingError("the loss is not finite any more. Train with a lower learning rate.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _score(prompter: Trainee, kept: Sequence[Reference], held: Sequence[Reference]) -> float | None:
    """Mean correlation of predicted and true map on `held`, with up to `shots` of `kept`."""
    values = []
    for target in held:
        for label in sorted({p.label for p in target.objects if not p.is_empty}):
            shown = [r for r in kept if any(p.label == label for p in r.objects)]
            if not shown:
                continue
            predicted = prompter.network_map(shown[: prompter.settings.shots], target.image, label)
            wanted = prompter.map_of(
                [p for p in target.objects if p.label == label], target.image.shape
            )
            values.append(float(losses.cc(predicted[None], wanted)))
    return float(np.mean(values)) if values else None
