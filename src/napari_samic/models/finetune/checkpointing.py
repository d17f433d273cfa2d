"""What may be done to a training that runs: see its score, end it early, and resume it later.

A checkpoint holds all that the next epoch or batch depends on: weights, optimizer, random numbers,
the best so far. A training that goes on from one ends with the very weights of one that was never
stopped, so how often it was stopped is nothing that a recipe would have to tell. Knows no loss.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_samic.core.errors import FormatError, TrainingError
from napari_samic.core.types import Reference
from napari_samic.io.files import kept_file, remove
from napari_samic.models.hub import checkpoints

KIND, VERSION = "napari-samic/training", 1
FINETUNING, LEARNING = "growing", "learning"
"""What is trained: an encoder by fine-tuning, or SAMIC's own network."""
EVERY_S = 30.0
"""A training that may be killed is written down so often."""
SHARE = 0.2
"""Of the time of a training that its held-out score may take."""
_OTHER = (
    "references, prompts or settings are not those of the training that was stopped. "
    "Start a new one."
)
MIN_DELTA = 1e-4
"""What counts as a better loss."""
FREE = ("epochs", "minutes")
"""Settings that may differ when a training goes on."""


@dataclass
class EarlyStopping:
    """Early stopping: the weights of the best epoch are kept, and the others counted.

    Training ends after some epochs without a lower loss (`models.samic.trainer.PATIENCE`), and goes
    back to these weights.

    Attributes
    ----------
    loss : float
        The lowest so far.
    since : int
        Epochs since then.
    weights : dict of str to Tensor
        Of that epoch.
    """

    loss: float = float("inf")
    since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def update(self, loss: float, learner: torch.nn.Module) -> None:
        """Take an epoch's loss: keep its weights if it is the lowest so far."""
        if loss < self.loss - MIN_DELTA:
            self.loss, self.since = loss, 0
            self.weights = copy.deepcopy(learner.state_dict())
        else:
            self.since += 1


@dataclass(eq=False)
class TrainingControl:
    """What is asked of a training, and what it leaves.

    Attributes
    ----------
    stop : callable
        Asked before each batch; True ends the training with the best so far, once there is one.
    scores : bool
        Judge the references kept aside while it runs, for at most a fifth of the time.
    checkpoint : Checkpoint or None
        Where to go on from, and what is kept up to date.
    """

    stop: Callable[[], bool] = lambda: False
    scores: bool = False
    checkpoint: Checkpoint | None = None
    _next_score: float = 0.0
    _over: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is to end; once asked for, it stays so."""
        self._over = self._over or self.stop()
        return self._over

    def score_if_due(self, score: Callable[[], float | None]) -> float | None:
        """Score now, or None if that would take too much of the time."""
        started = time.monotonic()
        if not self.scores or started < self._next_score:
            return None
        result = score()
        ended = time.monotonic()
        self._next_score = ended + (ended - started) * (1 / SHARE - 1)
        return result


def config_hash(
    references: Sequence[Reference],
    weights: dict[str, Tensor],
    settings: Iterable[Any],
    encoder_sha256: str,
) -> str:
    """Hash of what decides a training; `encoder_sha256` is the checksum of the frozen network."""
    hasher = hashlib.sha256(encoder_sha256.encode())
    for group in settings:
        values = {k: v for k, v in asdict(group).items() if k not in FREE}
        hasher.update(json.dumps(values, sort_keys=True).encode())
    for reference in references:
        hasher.update(f"{reference.name} {reference.image.shape}".encode())
        hasher.update(np.ascontiguousarray(reference.image).tobytes())
        if reference.mask is not None:
            hasher.update(np.ascontiguousarray(reference.mask).tobytes())
        for p in reference.objects:
            box = None if p.box_rc is None else p.box_rc.tolist()
            prompt = (p.points_rc.tolist(), p.is_foreground.tolist(), box, p.label)
            hasher.update(json.dumps(prompt).encode())
    for name in sorted(weights):
        hasher.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


@dataclass(eq=False)
class Checkpoint:
    """A checkpoint: a file from which a training goes on as if it had never been stopped.

    Attributes
    ----------
    path : Path
    strict : bool
        A checkpoint of another training is an error, and so is another file; else it is passed
        over. The end of a training is kept, too, so that it may go on for longer.
    began : int
        The step that was gone on from; 0: none.

    Raises
    ------
    FormatError
        With `strict`: damaged, or something else.
    """

    path: Path
    strict: bool = False
    began: int = 0
    _kept: str = ""  # stage that the file is of, for those who go on
    _saved: float = field(default_factory=time.monotonic)
    _content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        try:
            content = checkpoints.load_torch(self.path)
            if (content["kind"], content["version"]) != (KIND, VERSION):
                raise ValueError("another kind or version")
            self._content = {k: content[k] for k in ("stage", "key", "state")}
        except Exception as error:  # torch raises a dozen kinds for a damaged file
            reason = " ".join(str(error).split())[:80]
            msg = f"{self.path.name}: no training to go on with ({reason}). Start a new one."
            if self.strict:
                raise FormatError(msg) from error

    def load(self, stage: str, key: str) -> dict[str, Any] | None:
        """What the file held when this was made; None if that is nothing, or of another stage.

        Raises
        ------
        TrainingError
            With `strict`: it is of another training.
        """
        if self._content.get("stage") != stage:
            return None
        if self._content["key"] == key:
            self._kept = self._kept or stage
            return dict(self._content["state"])
        if self.strict:
            raise TrainingError(_OTHER)
        return None

    def save(
        self, stage: str, key: str, state: Callable[[], dict[str, Any]], *, now: bool = False
    ) -> None:
        """Write a state down, if that was long ago or is asked for; see `config_hash` for the key.

        Nothing takes the place of a fine-tuning that is still to come.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        recent = time.monotonic() - self._saved < EVERY_S
        if self._kept not in ("", stage) or (recent and not now):
            return
        content = {"kind": KIND, "version": VERSION, "stage": stage, "key": key, "state": state()}
        with (
            kept_file(self.path, _unfinished(self.path), overwrite=True) as temporary,
            temporary.open("wb") as file,
        ):
            torch.save(content, file)
        self._saved, self._kept = time.monotonic(), stage

    def drop(self) -> None:
        """Nothing is to be gone on with any more: remove the file, also a half-written one.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        self._kept = ""
        for file in (self.path, _unfinished(self.path)):
            remove(file)


def _unfinished(path: Path) -> Path:
    """Where it is written first: the next one takes its place, should the process be killed."""
    return path.with_name(f"{path.name}.tmp")
