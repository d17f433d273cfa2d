"""What the benchmark compares: ways from references to masks, by name.

`paper` is SAMIC to the letter on the segmenter's own features, `default` is what `train` and
`segment` do without options; with one reference, as `train --epochs 0`, it is `samic-first`. The
steps between them are added one at a time. The others compare without training a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from napari_samic.contracts import Image, Job, Reference, Segmentation
from napari_samic.errors import SettingsError
from napari_samic.models import backbones, methods, starting
from napari_samic.models.samic import SamicPrompter
from napari_samic.pipeline.adapt import adapt
from napari_samic.pipeline.follow import Follower
from napari_samic.pipeline.worker import Worker, tuned
from napari_samic.settings import (
    AdaptSettings,
    HeatMapSettings,
    MemorySettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)

DEFAULT = "default"
Answerer = Callable[[Image], Segmentation]


@dataclass(frozen=True)
class Way:
    """One way of SAMIC.

    Attributes
    ----------
    help : str
    paper : bool
        Every setting as the paper has it, and first weights at random.
    paper_peaks : bool
        The paper's peaks.
    trained : bool
        Whether the learner is trained.
    adapted : bool
        Whether the packaged encoder is grown to the references.
    follows : bool
        Whether images are frames that follow the first reference.
    settings : SegmentSettings
    prompter : PrompterSettings or None
        Other than the defaults; not looked at with `paper`.
    """

    help: str
    paper: bool = False
    paper_peaks: bool = False
    trained: bool = True
    adapted: bool = False
    follows: bool = False
    settings: SegmentSettings = field(default_factory=SegmentSettings)
    prompter: PrompterSettings | None = None


_NEAREST = PrompterSettings(kept=64, serve="nearest")
_AGREED = PrompterSettings(weigh="agreement")
_PLAIN = SegmentSettings(mask_choice="single", tell_apart=False, drop_covered=False)
WAYS = MappingProxyType(
    {
        "paper": Way("the paper to the letter", paper=True, paper_peaks=True, settings=_PLAIN),
        "paper+peaks": Way("and our peaks", paper=True, settings=_PLAIN),
        "paper+peaks+join": Way("and our choice of masks", paper=True),
        "samic": Way("and the packaged first weights and our settings"),
        "samic-nearest": Way("samic, served by the references likest the image", prompter=_NEAREST),
        "samic-agreed": Way("samic, maps weighed by their agreement", prompter=_AGREED),
        "samic-first": Way("those without training", trained=False),
        "follow": Way("samic-first, and what was found in a frame", trained=False, follows=True),
        DEFAULT: Way("samic, and the encoder grown to the references", adapted=True),
    }
)


def names() -> tuple[str, ...]:
    """All that can be compared."""
    return (*WAYS, *methods.names())


def check(wanted: Sequence[str]) -> None:
    """Raise SettingsError for a name that is not known."""
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        raise SettingsError(f"unknown {', '.join(unknown)}. Known: {', '.join(names())}.")


@dataclass(frozen=True)
class Conditions:
    """What is the same for all.

    Attributes
    ----------
    segmenter : Segmenter
    training : TrainSettings
    adapting : AdaptSettings
    seed : int
    """

    segmenter: Any
    training: TrainSettings
    adapting: AdaptSettings
    seed: int = 0


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
        return _follower(worker, references[0]).segment if WAYS[name].follows else worker.segment
    features = backbones.build("segmenter", given.segmenter)
    asked = SamicPrompter(features)
    asked.references = tuple(references)
    other = methods.make(name, given.segmenter, features, references)
    return Worker(asked, given.segmenter, SegmentSettings(), other=other).segment


def _samic(way: Way, references: Sequence[Reference], given: Conditions) -> Job[Worker]:
    features = backbones.build("segmenter", given.segmenter)
    how = replace(given.training, seed=given.seed)
    prompter = SamicPrompter(features, settings=way.prompter, seed=given.seed)
    if way.paper:
        settings = replace(PrompterSettings.paper(), backbone="segmenter")
        peaks = PeakSettings.paper() if way.paper_peaks else PeakSettings()
        prompter = SamicPrompter(
            features, settings=settings, heat=HeatMapSettings.paper(), peaks=peaks, seed=given.seed
        )
        how = replace(how, learning_rate=1e-3, views=1, shift_frac=0.0)
    else:
        starting.give(prompter)
    learns = way.trained and len(references) > 1
    if way.paper and not learns:
        raise SettingsError(f"{way.help}: needs two references to be trained. Leave 1 shot out.")
    yield from prompter.fit(references, how if learns else replace(how, epochs=0))
    if way.adapted and learns and given.adapting.adapt:
        yield from adapt(prompter, given.segmenter, references, given.adapting, given.seed)
    return Worker(prompter, tuned(given.segmenter, prompter), way.settings, prompter.finder)


def _follower(worker: Worker, first: Reference) -> Follower:
    memory = MemorySettings(follow="always")
    follower = Follower(worker.prompter, worker.segmenter, memory, worker.settings)
    follower.begin(first)
    return follower
