"""What the benchmark compares: ways from references to masks, by name.

`paper` is SAMIC to the letter on the segmenter's own features, `default` is what `train` and
`segment` do without options; with one reference, as `train --epochs 0`, it is `samic-first`, or
`samic` where a set has other classes to learn from. The steps between them are added one at a time.
The first divides the map by its maximum: the paper's losses leave its level open, so that it is
chance whether anything of it is above 0.5. Ablations are `paper+level` with one thing changed. The
others compare without training a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from napari_samic import sambox
from napari_samic.contracts import Image, Job, Reference, Segmentation
from napari_samic.errors import SettingsError
from napari_samic.models import backbones, methods, starting
from napari_samic.models.backbones import Backbone
from napari_samic.models.episodes import split
from napari_samic.models.samic import SamicPrompter
from napari_samic.pipeline.adapt import adapt
from napari_samic.pipeline.follow import Follower
from napari_samic.pipeline.worker import Worker, tuned
from napari_samic.settings import (
    OTHERS_FROM,
    AdaptSettings,
    HeatMapSettings,
    MemorySettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)

DEFAULT = "default"
REMEMBERED = 8
"""Trainings that are kept for other ways."""
LEVEL = "paper+level"
LOSSES = ("kld", "cc", "nss")
Answerer = Callable[[Image], Segmentation]


@dataclass(frozen=True)
class Way:
    """One way of SAMIC.

    Attributes
    ----------
    help : str
    paper : bool
        Every setting as the paper has it, and first weights at random.
    trained : bool
        Whether the learner is trained.
    adapted : bool
        Whether the packaged encoder is grown to the references.
    others : bool
        Whether it learns from the images to be segmented then, too; never from their masks.
    frames : {"", "memory", "previous"}
        Where images are frames that follow the first reference: whether `Follower` remembers them,
        or the answer to the frame before is the reference of the next.
    layers : int
        4-D convolutions in each block of the learner, where `paper`.
    losses : tuple of str
        Of `LOSSES`, what is learned from, where `paper`; the others weigh nothing.
    settings : SegmentSettings
    peaks : PeakSettings
    prompter : PrompterSettings or None
        Other than the defaults; not looked at with `paper`.
    """

    help: str
    paper: bool = False
    trained: bool = True
    adapted: bool = False
    others: bool = False
    frames: Literal["", "memory", "previous"] = ""
    layers: int = 3
    losses: tuple[str, ...] = LOSSES
    settings: SegmentSettings = field(default_factory=SegmentSettings)
    peaks: PeakSettings = field(default_factory=PeakSettings)
    prompter: PrompterSettings | None = None


_NEAREST = PrompterSettings(kept=64, serve="nearest")
_AGREED = PrompterSettings(weigh="agreement")
_PLAIN = SegmentSettings(mask_choice="single", tell_apart=False, drop_covered=False)
_PAPER = Way("the paper to the letter", paper=True, settings=_PLAIN, peaks=PeakSettings.paper())
_LEVELLED = replace(
    _PAPER,
    help="and the map divided by its maximum",
    peaks=replace(PeakSettings.paper(), normalise=True),
)
_DEPTHS = {LEVEL if n == _LEVELLED.layers else f"layers-{n}": n for n in (1, 2, 3, 4)}
_SUMS = {"+".join(some): some for n in (1, 2) for some in combinations(LOSSES, n)}
ABLATIONS = MappingProxyType(
    {
        name: replace(_LEVELLED, help=f"{LEVEL} with layers = {n}", layers=n)
        for name, n in _DEPTHS.items()
        if name != LEVEL
    }
    | {
        name: replace(_LEVELLED, help=f"{LEVEL} with the loss {name}", losses=some)
        for name, some in _SUMS.items()
    }
)
WAYS = MappingProxyType(
    {
        "paper": _PAPER,
        LEVEL: _LEVELLED,
        "paper+peaks": Way("and our peaks", paper=True, settings=_PLAIN),
        "paper+peaks+join": Way("and our choice of masks", paper=True),
        "samic": Way("and the packaged first weights and our settings"),
        "samic-nearest": Way("samic, served by the references likest the image", prompter=_NEAREST),
        "samic-agreed": Way("samic, maps weighed by their agreement", prompter=_AGREED),
        "samic-first": Way("those without training", trained=False),
        "samic-previous": Way(
            "samic-first, shown its answer to the frame before", trained=False, frames="previous"
        ),
        "follow": Way("samic-first, and what was found in a frame", trained=False, frames="memory"),
        DEFAULT: Way("samic, and the encoder grown to the references", adapted=True),
        "default-others": Way(
            "and to the images to be segmented, without their masks", adapted=True, others=True
        ),
        **ABLATIONS,
    }
)
GROUPS = MappingProxyType({"ablate-layers": tuple(_DEPTHS), "ablate-losses": (*_SUMS, LEVEL)})
"""Names that stand for several ways."""


def names() -> tuple[str, ...]:
    """All that can be compared."""
    return (*WAYS, *methods.names())


def expand(wanted: Sequence[str]) -> tuple[str, ...]:
    """Put the ways of a group in its place, each way once, in the order given.

    Raises
    ------
    SettingsError
        A name that is not known.

    Examples
    --------
    >>> expand(["paper+level", "ablate-layers"])
    ('paper+level', 'layers-1', 'layers-2', 'layers-4')
    """
    known = (*names(), *GROUPS)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SettingsError(f"unknown {', '.join(unknown)}. Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(way for name in wanted for way in GROUPS.get(name, (name,))))


@dataclass(frozen=True)
class Conditions:
    """What is the same for all.

    Attributes
    ----------
    segmenter : Segmenter
    training : TrainSettings
    adapting : AdaptSettings
    seed : int
    instances : bool
        False: one value a class, as in videos of several objects.
    more : tuple of callable
        Read the images to be segmented, (H, W, 3) uint8.
    lessons : tuple of Reference
        What is learned from instead of the references, which then only serve; of other classes.
    learned : dict
        Trainings that other ways may share, the last few.
    """

    segmenter: Any
    training: TrainSettings
    adapting: AdaptSettings
    seed: int = 0
    instances: bool = True
    more: tuple[Callable[[], Image], ...] = ()
    lessons: tuple[Reference, ...] = ()
    learned: dict[Any, SamicPrompter] = field(default_factory=dict)


def learn(name: str, references: Sequence[Reference], given: Conditions) -> Job[Answerer]:
    """Learn from the references; a job.

    Parameters
    ----------
    name : str
        One of `names()`.
    references : sequence of Reference
    given : Conditions

    Returns
    -------
    Job of callable
        From (H, W, 3) uint8 to a Segmentation.
    """
    if name in WAYS:
        worker = yield from _samic(WAYS[name], references, given)
        return _answerer(WAYS[name], worker, references[0])
    features = backbones.build("segmenter", given.segmenter)
    asked = SamicPrompter(features)
    asked.references = tuple(references)
    other = methods.make(name, given.segmenter, features, references, seed=given.seed)
    settings = SegmentSettings(instances=given.instances)
    return Worker(asked, given.segmenter, settings, other=other).segment


def untrained(way: Way, features: Backbone, seed: int = 0) -> SamicPrompter:
    """The way's prompter with its first weights."""
    if not way.paper:
        prompter = SamicPrompter(features, settings=way.prompter, seed=seed)
        starting.give(prompter)  # none for another segmenter than the packaged one
        return prompter
    settings = replace(PrompterSettings.paper(), backbone="segmenter", layers=way.layers)
    heat = HeatMapSettings.paper()
    return SamicPrompter(features, settings=settings, heat=heat, peaks=way.peaks, seed=seed)


def _training(way: Way, given: Conditions) -> TrainSettings:
    how = replace(given.training, seed=given.seed)
    if not way.paper:
        return how
    unused: dict[str, Any] = {f"{name}_weight": 0.0 for name in LOSSES if name not in way.losses}
    return replace(how, learning_rate=1e-3, views=1, shift_frac=0.0, **unused)


def for_videos(ways: Sequence[str]) -> tuple[str, ...]:
    """Those that need frames that follow each other."""
    return tuple(name for name in ways if name in WAYS and WAYS[name].frames)


def sees_targets(name: str) -> bool:
    """Whether a way learns from the images to be segmented."""
    return name in WAYS and WAYS[name].others


def is_taught(name: str) -> bool:
    """Whether a way learns from lessons, where there are some."""
    return name in WAYS and WAYS[name].trained


def check_others(ways: Sequence[str], shots: Sequence[int]) -> None:
    """Raise SettingsError for a way that would see the images to be segmented, but can't yet."""
    unfit = [name for name in ways if sees_targets(name)]
    if unfit and min(shots) < OTHERS_FROM:
        msg = f"{', '.join(unfit)}: learns from other images with {OTHERS_FROM} references or more."
        raise SettingsError(f"{msg} Leave fewer shots out, or this way.")


def check(ways: Sequence[str], shots: Sequence[int]) -> None:
    """Raise SettingsError for a way that can't do with one reference, before hours are spent.

    Of a set without lessons.
    """
    unfit = [name for name in ways if name in WAYS and WAYS[name].paper]
    if unfit and min(shots) < 2:
        msg = f"{', '.join(unfit)}: trained from random weights, which takes two references."
        raise SettingsError(f"{msg} Leave 1 shot out, or these ways where a set gives one.")


def _samic(way: Way, references: Sequence[Reference], given: Conditions) -> Job[Worker]:
    prompter = yield from _trained(way, references, given)
    if way.adapted and len(references) > 1 and given.adapting.adapt:
        aside: tuple[str, ...] | None = None
        if given.lessons:
            rng = np.random.default_rng(given.seed)
            aside = tuple(r.name for r in split(references, given.training.holdout_frac, rng)[1])
        more = _images(given) if way.others else ()
        yield from adapt(
            prompter,
            given.segmenter,
            references,
            given.adapting,
            given.seed,
            aside=aside,
            more=more,
        )
    settings = replace(way.settings, instances=given.instances)
    return Worker(prompter, tuned(given.segmenter, prompter), settings, prompter.finder)


def _images(given: Conditions) -> Iterator[Image]:
    for i in np.random.default_rng(given.seed).permutation(len(given.more)):
        yield given.more[i]()


def _trained(way: Way, references: Sequence[Reference], given: Conditions) -> Job[SamicPrompter]:
    """Ways that learn alike learn once; each gets a prompter of its own, with its own peaks.

    With lessons, the mean feature that is subtracted stays theirs.
    """
    teachers = given.lessons if given.lessons and way.trained else references
    learns = way.trained and len(teachers) > 1
    names = tuple(r.name for r in teachers)
    key = (way.paper, way.layers, way.losses, way.prompter, learns, names)
    if key not in given.learned:
        how = _training(way, given)
        made = untrained(way, backbones.build("segmenter", given.segmenter), given.seed)
        yield from made.fit(teachers, how if learns else replace(how, epochs=0))
        if not learns:
            return made
        given.learned[key] = made
        while len(given.learned) > REMEMBERED:
            given.learned.pop(next(iter(given.learned)))
    own = given.learned[key].twin()
    own.peaks = way.peaks
    if teachers is not references:  # these only serve
        own.references, own.report = tuple(references), None
    return own


def _answerer(way: Way, worker: Worker, first: Reference) -> Answerer:
    if way.frames == "memory":
        memory = MemorySettings(follow="always")
        follower = Follower(worker.prompter, worker.segmenter, memory, worker.settings)
        follower.begin(first)
        return follower.segment
    if way.frames == "previous":
        return _FrameBefore(worker, first).segment
    return worker.segment


@dataclass(eq=False)
class _FrameBefore:
    """Shows the answer to a frame as the reference of the next; SAMIC's protocol of DAVIS."""

    worker: Worker
    shown: Reference

    def segment(self, image: Image) -> Segmentation:
        """Segment the next frame, (H, W, 3) uint8."""
        found = self.worker.answer(image, self.worker.look(image, (self.shown,)))
        by_class = not self.worker.settings.instances
        prompts = sambox.prompts_of(found.labels, by_class=by_class)
        if prompts:  # else the last frame with an object goes on being shown
            self.shown = Reference(self.shown.name, image, prompts, found.labels)
        return found
