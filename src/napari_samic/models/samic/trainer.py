"""How the SAMIC prompter learns from a few references.

Every annotated image is the target once an epoch, with another one of its class as reference
(METHOD A2.8). Features are frozen and taken once an image and view. Some references are kept aside;
if the new weights do worse on them than the old ones did, the old ones stay and the report says so.
An onlooker may end it early; see `watch`.

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
    FeatureStore,
    Looks,
    check_references,
    choose,
    labels_of,
    shifted,
    split,
    support_candidates,
    views_of,
)
from napari_samic.models.samic.fit_report import FitReport
from napari_samic.models.samic.hsnet import HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import NormalizedFeatures, correlate

PATIENCE = 10
"""The training stops after this many epochs without a better loss."""
BATCH = 4
"""Pairs a step."""


class Trainee(Looks, Protocol):
    """What `fit` needs of a prompter; `samic.SamicPrompter` is one."""

    learner: HyperCorrelationLearner
    heat: HeatMapSettings
    references: tuple[Reference, ...]
    report: FitReport | None

    def forget_prepared(self) -> None:
        """Drop what was computed for references."""
        ...

    def network_map(self, references: Sequence[Reference], image: Image, label: int = 1) -> Tensor:
        """Predicted map, (S, S)."""
        ...


def fit(
    prompter: Trainee,
    references: Sequence[Reference],
    settings: TrainSettings,
    watch: TrainingControl | None = None,
) -> Job[FitReport]:
    """Train the prompter's learner; a Step an image, then one a batch and one an epoch.

    Cancelled or failed, it leaves the prompter as it was. With no epochs the weights stay, and
    only the references and their mean feature are taken. `watch` ends it early and keeps the best
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
        return (yield from _adopt(prompter, references, started))
    rng = np.random.default_rng(settings.seed)
    kept, held = split(references, settings.holdout_frac, rng)
    views = views_of(kept, settings.views)
    store = FeatureStore(prompter)
    yield from _encode_all(store, [*views, *held])
    old = PrompterSnapshot.of(prompter)
    try:
        learner = prompter.learner
        adam = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate)
        trainer = Trainer(learner, adam)
        looks = (settings, prompter.settings, prompter.heat)
        key = config_hash(references, old.weights, looks, prompter.backbone.weights_sha256)
        watch = watch or TrainingControl()
        course = TrainState(prompter, store, views, kept, held, settings, rng, trainer, watch, key)
        outcome = yield from _judged(course, old)
        chosen = choose(store, references, prompter.settings.keeps)
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
    store = FeatureStore(prompter)
    yield from _encode_all(store, references)
    chosen = choose(store, references, prompter.settings.keeps)
    if prompter.settings.centre:
        _recentre(prompter, store.centre(views_of(references, 1)))
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
    centre: Levels | None
    references: tuple[Reference, ...]

    @staticmethod
    def of(prompter: Trainee) -> PrompterSnapshot:
        """Take the prompter as it is."""
        weights = copy.deepcopy(prompter.learner.state_dict())
        return PrompterSnapshot(weights, prompter.centre, prompter.references)

    def restore(self, prompter: Trainee) -> None:
        """Make the prompter what it was."""
        prompter.learner.load_state_dict(self.weights)
        prompter.learner.eval()
        prompter.references = self.references
        _recentre(prompter, self.centre)


def _recentre(prompter: Trainee, centre: Levels | None) -> None:
    prompter.centre = centre
    prompter.forget_prepared()


@dataclass(frozen=True, eq=False)
class TrainState:
    """What every step of one training needs."""

    prompter: Trainee
    store: FeatureStore
    views: list[AugmentedReference]
    kept: Sequence[Reference]
    held: Sequence[Reference]
    settings: TrainSettings
    rng: np.random.Generator
    trainer: Trainer[HyperCorrelationLearner]
    watch: TrainingControl
    key: str

    def score(self) -> float | None:
        """On the references kept aside, with the weights as they are."""
        self.prompter.learner.eval()
        return score(self.prompter, self.kept, self.held)

    def state(self, best: EarlyStopping, curve: Sequence[float]) -> dict[str, Any]:
        """Where it is now: all that the next epoch depends on."""
        rng = json.dumps(self.rng.bit_generator.state)
        trainer = copy.deepcopy(self.trainer.state())
        return {"losses": list(curve), "best": asdict(best), "trainer": trainer, "rng": rng}

    def resume(self) -> tuple[EarlyStopping, list[float]]:
        """Go to where the watch's checkpoint is; the best so far, and the losses."""
        checkpoint = self.watch.checkpoint
        state = checkpoint.load(LEARNING, self.key) if checkpoint is not None else None
        if state is None:
            return EarlyStopping(), []
        self.trainer.restore(copy.deepcopy(state["trainer"]))
        self.rng.bit_generator.state = json.loads(state["rng"])
        return EarlyStopping(**state["best"]), list(state["losses"])


def _judged(
    course: TrainState, old: PrompterSnapshot
) -> Job[tuple[tuple[float, ...], float | None, float | None, bool, str]]:
    """Train; go back if the references kept aside are found worse than with the old state.

    First weights have no centre of their own, so they are judged, and kept, with the new one.
    """
    prompter, centre = course.prompter, None
    if prompter.settings.centre:
        centre = course.store.centre(course.views[:: course.settings.views])
    fallback = centre if old.centre is None else old.centre
    _recentre(prompter, fallback)
    before = course.score()
    _recentre(prompter, centre)
    curve, stopped = yield from _epochs(course)
    after = course.score()
    accepted = before is None or after is None or after >= before
    if not accepted:
        old.restore(prompter)
        _recentre(prompter, fallback)
    return curve, before, after, accepted, stopped


def _epochs(course: TrainState) -> Job[tuple[tuple[float, ...], str]]:
    """Returns the loss curve and why it stopped; the best weights are in the learner."""
    learner, settings = course.prompter.learner, course.settings
    best, curve = course.resume()
    checkpoint, kept = course.watch.checkpoint, course.state(best, curve)

    def state() -> dict[str, Any]:
        return kept

    while not (stopped := _why_stop(course, best, len(curve))):
        learner.train()
        epoch = len(curve) + 1
        loss = yield from _epoch(course, epoch)
        if loss is None:
            continue
        if not all(bool(torch.isfinite(p).all()) for p in learner.parameters()):
            raise TrainingError("weights are not finite any more. Train with a lower rate.")
        curve.append(loss)
        best.see(loss, learner)
        if checkpoint is not None:
            kept = course.state(best, curve)
            checkpoint.save(LEARNING, course.key, state)
        data = {"phase": "epoch", "epoch": epoch, "loss": loss}
        if (held_out := course.watch.timed(course.score)) is not None:
            data["held_out"] = held_out
        yield JobProgress(
            epoch * 1000, settings.epochs * 1000, f"epoch {epoch}: loss {loss:.3f}", data
        )
    if checkpoint is not None and checkpoint.strict:
        checkpoint.save(LEARNING, course.key, state, now=True)
    learner.load_state_dict(best.weights)
    learner.eval()
    return tuple(curve), stopped


def _why_stop(course: TrainState, best: EarlyStopping, epochs: int) -> str:
    """Why there is no further epoch; "" if there is one."""
    settings = course.settings
    if best.since >= PATIENCE:
        return f"no better loss for {PATIENCE} epochs"
    if epochs >= settings.epochs:
        return "all done"
    return "stopped by hand" if epochs and course.watch.is_over else ""


def _epoch(course: TrainState, epoch: int) -> Job[float | None]:
    """Every target once, in a new order; returns the mean loss, None if it was ended early."""
    settings, views = course.settings, course.views
    episodes = [
        (v, label) for v in views for label in v.labels if support_candidates(views, v, label)
    ]
    order, total = course.rng.permutation(len(episodes)), 0.0
    for start in range(0, len(order), BATCH):
        if epoch > 1 and course.watch.is_over:
            return None
        batch = [episodes[i] for i in order[start : start + BATCH]]
        total += _step(course, batch) * len(batch)
        done = epoch - 1 + (start + len(batch)) / len(order)
        data = {"phase": "batch", "epoch": epoch}
        yield JobProgress(int(done * 1000), settings.epochs * 1000, f"epoch {epoch}", data)
    return total / len(order)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
def _step(course: TrainState, batch: Sequence[tuple[AugmentedReference, int]]) -> float:
    store, settings = course.store, course.settings
    targets, references, truth = [], [], []
    for view, label in batch:
        others = support_candidates(course.views, view, label)
        partner = others[int(course.rng.integers(len(others)))]
        references.append(store.reference(partner.reference, label))
        target, wanted = store.target(view.reference), store.map(view.reference, label)
        target, wanted = shifted(target, wanted, settings.shift_frac, course.rng)
        targets.append(target)
        truth.append(wanted)
    pyramid = correlate(NormalizedFeatures.join(targets), NormalizedFeatures.join(references))
    joined = torch.cat(truth)  # (B, S, S)
    predicted = course.prompter.learner.predict(pyramid, (joined.shape[1], joined.shape[2]))
    weights = {k: getattr(settings, k) for k in ("kld_weight", "cc_weight", "nss_weight")}
    loss = losses.saliency_loss(predicted, joined, **weights)
    return course.trainer.learn(loss)


def score(prompter: Trainee, kept: Sequence[Reference], held: Sequence[Reference]) -> float | None:
    """Mean correlation of predicted and true map on `held`, by as many of `kept` as a file has."""
    values = []
    for target in held:
        for label in labels_of(target):
            shown = [r for r in kept if label in labels_of(r)][: prompter.settings.keeps]
            predicted = prompter.network_map(shown, target.image, label)
            objects = [p for p in target.objects if p.label == label]
            wanted = prompter.map_of(objects, target.image.shape)
            values.append(float(losses.cc(predicted[None], wanted)))
    return float(np.mean(values)) if values else None
