"""How the SAMIC prompter learns from a few references.

Every annotated image is the target once an epoch, with another one of its class as reference
(METHOD A2.8). Features are frozen and taken once an image and view. Some references are kept aside;
if the new weights do worse on them than the old ones did, the old ones stay and the report says so.
It may be ended early; see `TrainingControl`.

Source: SAMIC, section 3.5 and 4.1.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from napari_samic.core.errors import TrainingError
from napari_samic.core.settings import HeatMapSettings, TrainSettings
from napari_samic.core.types import Image, Job, JobProgress, Reference
from napari_samic.models import losses
from napari_samic.models.features.backbones import Levels
from napari_samic.models.finetune.checkpointing import (
    LEARNING,
    EarlyStopping,
    TrainingControl,
    config_hash,
)
from napari_samic.models.finetune.trainer import Trainer
from napari_samic.models.samic.episodes import (
    AugmentedReference,
    FeatureSource,
    FeatureStore,
    augmented_views,
    check_references,
    choose_diverse,
    labels_of,
    random_shift,
    split,
    support_candidates,
)
from napari_samic.models.samic.fit_report import FitReport
from napari_samic.models.samic.hsnet import HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import NormalizedFeatures, correlate

PATIENCE = 10
"""The training stops after this many epochs without a better loss."""
BATCH = 4
"""Pairs a step."""


class LearnerHost(FeatureSource, Protocol):
    """What `fit` needs of a prompter; `SamicPrompter` is one."""

    learner: HyperCorrelationLearner
    heat: HeatMapSettings
    references: tuple[Reference, ...]
    report: FitReport | None

    def clear_caches(self) -> None:
        """Drop what was computed for references."""
        ...

    def network_map(self, references: Sequence[Reference], image: Image, label: int = 1) -> Tensor:
        """Predicted map, (S, S)."""
        ...


def fit(
    prompter: LearnerHost,
    references: Sequence[Reference],
    settings: TrainSettings,
    control: TrainingControl | None = None,
) -> Job[FitReport]:
    """Train the prompter's learner; progress each image, then each batch and epoch.

    Cancelled or failed, it leaves the prompter as it was. With no epochs the weights stay, and
    only the references and their mean feature are taken. `control` ends it early and keeps the best
    so far, or goes on with one that was ended.

    Raises
    ------
    TrainingError
        No two references of any class, one listed twice, a loss that is not finite, or a checkpoint
        of another training.
    """
    started = time.monotonic()
    references = check_references(references, to_learn=settings.epochs > 0)
    if settings.epochs == 0:
        return (yield from _take_references(prompter, references, started))
    rng = np.random.default_rng(settings.seed)
    kept, held = split(references, settings.holdout_frac, rng)
    views = augmented_views(kept, settings.views)
    store = FeatureStore(prompter)
    yield from _encode_all(store, [*views, *held])
    old = PrompterSnapshot.of(prompter)
    try:
        learner = prompter.learner
        adam = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate)
        trainer = Trainer(learner, adam)
        groups = (settings, prompter.settings, prompter.heat)
        key = config_hash(references, old.weights, groups, prompter.backbone.weights_sha256)
        control = control or TrainingControl()
        train_state = TrainState(
            prompter, store, views, kept, held, settings, rng, trainer, control, key
        )
        outcome = yield from _train_with_holdout(train_state, old)
        chosen = choose_diverse(store, references, prompter.settings.keeps)
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


def _take_references(
    prompter: LearnerHost, references: Sequence[Reference], started: float
) -> Job[FitReport]:
    store = FeatureStore(prompter)
    yield from _encode_all(store, references)
    chosen = choose_diverse(store, references, prompter.settings.keeps)
    if prompter.settings.centre:
        _recenter(prompter, store.center(augmented_views(references, 1)))
    seconds = time.monotonic() - started
    report = FitReport((), None, None, True, (), len(references), seconds, "no epochs")
    prompter.references, prompter.report = chosen, report
    return report


def _encode_all(
    store: FeatureStore, items: Sequence[AugmentedReference | Reference]
) -> Iterator[JobProgress]:
    for i, item in enumerate(items):
        reference = item.reference if isinstance(item, AugmentedReference) else item
        store.levels(reference)
        yield JobProgress(i + 1, len(items), f"features of {reference.name}", {"phase": "features"})


@dataclass(frozen=True, eq=False)
class PrompterSnapshot:
    """What a training changes in a prompter."""

    weights: dict[str, Tensor]
    center: Levels | None
    references: tuple[Reference, ...]

    @staticmethod
    def of(prompter: LearnerHost) -> PrompterSnapshot:
        """Take the prompter as it is."""
        weights = copy.deepcopy(prompter.learner.state_dict())
        return PrompterSnapshot(weights, prompter.center, prompter.references)

    def restore(self, prompter: LearnerHost) -> None:
        """Make the prompter what it was."""
        prompter.learner.load_state_dict(self.weights)
        prompter.learner.eval()
        prompter.references = self.references
        _recenter(prompter, self.center)


def _recenter(prompter: LearnerHost, center: Levels | None) -> None:
    prompter.center = center
    prompter.clear_caches()


@dataclass(frozen=True, eq=False)
class TrainState:
    """What every step of one training needs."""

    prompter: LearnerHost
    store: FeatureStore
    views: list[AugmentedReference]
    kept: Sequence[Reference]
    held: Sequence[Reference]
    settings: TrainSettings
    rng: np.random.Generator
    trainer: Trainer[HyperCorrelationLearner]
    control: TrainingControl
    key: str

    def evaluate_holdout(self) -> float | None:
        """On the references kept aside, with the weights as they are."""
        self.prompter.learner.eval()
        return evaluate_holdout(self.prompter, self.kept, self.held)

    def state(self, best: EarlyStopping, curve: Sequence[float]) -> dict[str, Any]:
        """Where it is now: all that the next epoch depends on."""
        rng = json.dumps(self.rng.bit_generator.state)
        trainer = copy.deepcopy(self.trainer.state())
        return {"losses": list(curve), "best": asdict(best), "trainer": trainer, "rng": rng}

    def resume(self) -> tuple[EarlyStopping, list[float]]:
        """Go to where the checkpoint is; the best so far, and the losses."""
        checkpoint = self.control.checkpoint
        state = checkpoint.load(LEARNING, self.key) if checkpoint is not None else None
        if state is None:
            return EarlyStopping(), []
        self.trainer.restore(copy.deepcopy(state["trainer"]))
        self.rng.bit_generator.state = json.loads(state["rng"])
        return EarlyStopping(**state["best"]), list(state["losses"])


def _train_with_holdout(
    train_state: TrainState, old: PrompterSnapshot
) -> Job[tuple[tuple[float, ...], float | None, float | None, bool, str]]:
    """Train; go back if the references kept aside are found worse than with the old state.

    First weights have no center of their own, so they are judged, and kept, with the new one.
    """
    prompter, center = train_state.prompter, None
    if prompter.settings.centre:
        center = train_state.store.center(train_state.views[:: train_state.settings.views])
    fallback = center if old.center is None else old.center
    _recenter(prompter, fallback)
    before = train_state.evaluate_holdout()
    _recenter(prompter, center)
    curve, stopped = yield from _epochs(train_state)
    after = train_state.evaluate_holdout()
    accepted = before is None or after is None or after >= before
    if not accepted:
        old.restore(prompter)
        _recenter(prompter, fallback)
    return curve, before, after, accepted, stopped


def _epochs(train_state: TrainState) -> Job[tuple[tuple[float, ...], str]]:
    """Returns the loss curve and why it stopped; the best weights are in the learner."""
    learner, settings = train_state.prompter.learner, train_state.settings
    best, curve = train_state.resume()
    checkpoint, kept = train_state.control.checkpoint, train_state.state(best, curve)

    def state() -> dict[str, Any]:
        return kept

    while not (stopped := _why_stop(train_state, best, len(curve))):
        learner.train()
        epoch = len(curve) + 1
        loss = yield from _epoch(train_state, epoch)
        if loss is None:
            continue
        if not all(bool(torch.isfinite(p).all()) for p in learner.parameters()):
            raise TrainingError("weights are not finite any more. Train with a lower rate.")
        curve.append(loss)
        best.update(loss, learner)
        if checkpoint is not None:
            kept = train_state.state(best, curve)
            checkpoint.save(LEARNING, train_state.key, state)
        data = {"phase": "epoch", "epoch": epoch, "loss": loss}
        if (held_out := train_state.control.score_if_due(train_state.evaluate_holdout)) is not None:
            data["held_out"] = held_out
        yield JobProgress(
            epoch * 1000, settings.epochs * 1000, f"epoch {epoch}: loss {loss:.3f}", data
        )
    if checkpoint is not None and checkpoint.strict:
        checkpoint.save(LEARNING, train_state.key, state, now=True)
    learner.load_state_dict(best.weights)
    learner.eval()
    return tuple(curve), stopped


def _why_stop(train_state: TrainState, best: EarlyStopping, epochs: int) -> str:
    """Why there is no further epoch; "" if there is one."""
    settings = train_state.settings
    if best.since >= PATIENCE:
        return f"no better loss for {PATIENCE} epochs"
    if epochs >= settings.epochs:
        return "all done"
    return "stopped by hand" if epochs and train_state.control.is_over else ""


def _epoch(train_state: TrainState, epoch: int) -> Job[float | None]:
    """Every target once, in a new order; returns the mean loss, None if it was ended early."""
    settings, views = train_state.settings, train_state.views
    episodes = [
        (v, label) for v in views for label in v.labels if support_candidates(views, v, label)
    ]
    order, total = train_state.rng.permutation(len(episodes)), 0.0
    for start in range(0, len(order), BATCH):
        if epoch > 1 and train_state.control.is_over:
            return None
        batch = [episodes[i] for i in order[start : start + BATCH]]
        total += train_step(train_state, batch) * len(batch)
        done = epoch - 1 + (start + len(batch)) / len(order)
        data = {"phase": "batch", "epoch": epoch}
        yield JobProgress(int(done * 1000), settings.epochs * 1000, f"epoch {epoch}", data)
    return total / len(order)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
def train_step(train_state: TrainState, batch: Sequence[tuple[AugmentedReference, int]]) -> float:
    """Learn from a batch of targets, each a view and the class it is to show; returns the loss."""
    store, settings = train_state.store, train_state.settings
    targets, references, truth = [], [], []
    for view, label in batch:
        others = support_candidates(train_state.views, view, label)
        partner = others[int(train_state.rng.integers(len(others)))]
        references.append(store.reference(partner.reference, label))
        target, true_map = store.target(view.reference), store.map(view.reference, label)
        target, true_map = random_shift(target, true_map, settings.shift_frac, train_state.rng)
        targets.append(target)
        truth.append(true_map)
    pyramid = correlate(NormalizedFeatures.join(targets), NormalizedFeatures.join(references))
    joined = torch.cat(truth)  # (B, S, S)
    predicted = train_state.prompter.learner.predict(pyramid, (joined.shape[1], joined.shape[2]))
    weights = {name: getattr(settings, f"{name}_weight") for name in losses.SALIENCY_LOSSES}
    loss = losses.saliency_loss(predicted, joined, weights)
    return train_state.trainer.training_step(loss)


def evaluate_holdout(
    prompter: LearnerHost, kept: Sequence[Reference], held: Sequence[Reference]
) -> float | None:
    """Mean correlation of predicted and true map on `held`, by as many of `kept` as a file has."""
    values = []
    for target in held:
        for label in labels_of(target):
            supports = [r for r in kept if label in labels_of(r)][: prompter.settings.keeps]
            predicted = prompter.network_map(supports, target.image, label)
            objects = [p for p in target.objects if p.label == label]
            true_map = prompter.map_of(objects, target.image.shape)
            values.append(float(losses.cc(predicted[None], true_map)))
    return float(np.mean(values)) if values else None
