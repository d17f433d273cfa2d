"""What an onlooker of a training may do: see its score, end it early, and go on with it later.

A mark holds all that the next epoch depends on: weights, optimiser, random numbers, and the best so
far; a checkpoint holds the same of a network that grows. A training that goes on from one ends with
the very weights of one that was never stopped, so how often it was stopped is nothing that a recipe
would have to tell. Knows no loss.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_samic.atomic import kept_file, remove
from napari_samic.contracts import Reference
from napari_samic.errors import FormatError, TrainingError
from napari_samic.models import checkpoints

KIND, GROWING = "napari-samic/training", "napari-samic/growing"
VERSION = 1
EVERY_S = 30.0
"""A training that may be killed is written down so often."""
SHARE = 0.2
"""Of the time of a training that its held-out score may take."""
_OTHER = (
    "references, prompts or settings are not those of the training that was stopped. "
    "Start a new one."
)
FREE = ("epochs", "patience", "minutes")
"""Settings that may differ when a training goes on."""


@dataclass
class Best:
    """Weights of the lowest loss so far, and for how many epochs nothing was better."""

    loss: float = float("inf")
    since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, loss: float, learner: torch.nn.Module, min_delta: float) -> None:
        """Look at an epoch's loss."""
        if loss < self.loss - min_delta:
            self.loss, self.since = loss, 0
            self.weights = copy.deepcopy(learner.state_dict())
        else:
            self.since += 1


@dataclass(frozen=True, eq=False)
class Mark:
    """Where a training is between two epochs.

    Attributes
    ----------
    key : str
        Of references, settings and first weights; see `key_of`.
    losses : tuple of float
    best : Best
    weights, optimiser : dict
        State of the learner and of its optimiser after the last epoch.
    rng : dict
        State of the random numbers.
    """

    key: str
    losses: tuple[float, ...]
    best: Best
    weights: dict[str, Any]
    optimiser: dict[str, Any]
    rng: dict[str, Any]


@dataclass(eq=False)
class Watch:
    """What is asked of a training, and what it leaves.

    Attributes
    ----------
    stop : callable
        Asked before each batch; True ends the training with the best so far, once there is one.
    scores : bool
        Judge the references kept aside while it runs, for at most a fifth of the time.
    mark : Mark or None
        Where to go on from; afterwards, where it ended.
    marks : bool
        Keep `mark` up to date.
    strict : bool
        A mark of another training is an error; else it is passed over.
    path : Path or None
        Where the mark is written down every now and then.
    """

    stop: Callable[[], bool] = lambda: False
    scores: bool = False
    mark: Mark | None = None
    marks: bool = True
    strict: bool = True
    path: Path | None = None
    _next_score: float = 0.0
    _over: bool = False
    _saved: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether it is to end; once asked for, it stays so."""
        self._over = self._over or self.stop()
        return self._over

    def fits(self, key: str) -> Mark | None:
        """The mark to go on from.

        Raises
        ------
        TrainingError
            It is of another training.
        """
        if self.mark is not None and self.mark.key != key:
            if not self.strict:
                self.mark = None
                return None
            raise TrainingError(_OTHER)
        return self.mark

    def keep(self, mark: Mark) -> None:
        """Take a mark, and write it down if that was long ago."""
        self.mark = mark
        if self.path is not None and time.monotonic() - self._saved > EVERY_S:
            save_mark(self.path, mark)
            self._saved = time.monotonic()

    def timed(self, score: Callable[[], float | None]) -> float | None:
        """Score now, or None if that would take too much of the time."""
        started = time.monotonic()
        if not self.scores or started < self._next_score:
            return None
        found = score()
        ended = time.monotonic()
        self._next_score = ended + (ended - started) * (1 / SHARE - 1)
        return found


def key_of(
    references: Sequence[Reference], weights: dict[str, Tensor], settings: Iterable[Any], eyes: str
) -> str:
    """Hash of what decides a training; `eyes` is the checksum of the frozen network."""
    found = hashlib.sha256(eyes.encode())
    for one in settings:
        values = {k: v for k, v in asdict(one).items() if k not in FREE}
        found.update(json.dumps(values, sort_keys=True).encode())
    for reference in references:
        found.update(f"{reference.name} {reference.image.shape}".encode())
        found.update(np.ascontiguousarray(reference.image).tobytes())
        if reference.mask is not None:
            found.update(np.ascontiguousarray(reference.mask).tobytes())
        for p in reference.objects:
            box = None if p.box_rc is None else p.box_rc.tolist()
            said = (p.points_rc.tolist(), p.is_foreground.tolist(), box, p.label)
            found.update(json.dumps(said).encode())
    for name in sorted(weights):
        found.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _unfinished(path: Path) -> Path:
    """Where it is written first: the next one takes its place, should the process be killed."""
    return path.with_name(f"{path.name}.tmp")


def forget(path: Path) -> None:
    """Remove a mark or checkpoint, also a half-written one.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    for file in (path, _unfinished(path)):
        remove(file)


def save_mark(path: Path, mark: Mark) -> None:
    """Write a mark over an earlier one, atomically.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    content = {spec.name: getattr(mark, spec.name) for spec in fields(mark)}
    content |= {"kind": KIND, "version": VERSION}
    _write(path, content | {"best": asdict(mark.best), "rng": json.dumps(mark.rng)})


def _write(path: Path, content: dict[str, Any]) -> None:
    with (
        kept_file(path, _unfinished(path), overwrite=True) as temporary,
        temporary.open("wb") as file,
    ):
        torch.save(content, file)


def load_mark(path: Path) -> Mark | None:
    """Read a mark; None if the file is a checkpoint.

    Raises
    ------
    FormatError
        Damaged, or something else.
    """
    try:
        content = checkpoints.unpacked(path)
        if content["kind"] == GROWING:
            return None
        if (content.pop("kind"), content.pop("version")) != (KIND, VERSION):
            raise ValueError("another kind or version")
        best, rng = Best(**content.pop("best")), json.loads(content.pop("rng"))
        return Mark(best=best, rng=rng, **{**content, "losses": tuple(content["losses"])})
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        told = " ".join(str(error).split())[:80]
        msg = f"{path.name}: no training to go on with ({told}). Start a new one."
        raise FormatError(msg) from error


@dataclass(eq=False)
class Checkpoint:
    """Where the training of a network that grows is, in a file.

    Attributes
    ----------
    path : Path
    key : str
        Of references, settings and first weights; see `key_of`.
    strict : bool
        A checkpoint of another training is an error; else it is passed over.
    began : int
        The step that was gone on from; 0: none.
    is_kept : bool
        There is something to go on with.
    """

    path: Path
    key: str
    strict: bool = False
    began: int = 0
    is_kept: bool = False
    _saved: float = field(default_factory=time.monotonic)

    def load(self) -> dict[str, Any] | None:
        """What `save` was given; None if there is nothing, or something else.

        Raises
        ------
        TrainingError
            With `strict`: it is of another training.
        """
        try:
            content = checkpoints.unpacked(self.path)
            if (content["kind"], content["version"]) != (GROWING, VERSION):
                return None
            if content["key"] == self.key:
                self.is_kept = True
                return dict(content["state"])
        except Exception:  # not there, or damaged in one of a dozen ways
            return None
        if self.strict:
            raise TrainingError(_OTHER)
        return None

    def save(self, state: Callable[[], dict[str, Any]], *, now: bool = False) -> None:
        """Write a state down, if that was long ago or is asked for.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        if not now and time.monotonic() - self._saved < EVERY_S:
            return
        content = {"kind": GROWING, "version": VERSION, "key": self.key, "state": state()}
        _write(self.path, content)
        self._saved, self.is_kept = time.monotonic(), True

    def drop(self) -> None:
        """Nothing is to be gone on with any more."""
        self.is_kept = False
        forget(self.path)
